"""Offloaded payloads: what is stored, what travels instead, what does not open, and what may be deleted."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from streamq.encryption import Encryption
from streamq.errors import InvalidInput, OffloadUnavailable, UnreadablePayload
from streamq.offload import NAME, REFERENCES, Offload, delete_before
from streamq.payload import OFFLOADED, Codec, Codecs, Compression, wrap
from streamq.payload_stores import FolderStore, FsspecStore, PayloadStore, open_store

LARGE = msgspec.msgpack.encode(os.urandom(5_000))
SMALL = msgspec.msgpack.encode("small")


@pytest.fixture(params=["folder", "file", "memory", "fsspec on files"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PayloadStore:
    if request.param == "fsspec on files":
        return FsspecStore(f"file://{tmp_path}/payloads")
    urls = {"folder": f"{tmp_path}/payloads", "file": f"file://{tmp_path}/payloads", "memory": f"memory://{uuid4()}/p"}
    return open_store(urls[request.param])


def all_names(store: PayloadStore) -> list[str]:
    return [name for day in store.days() for name in store.names(day)]


def test_a_large_payload_is_stored_and_a_small_reference_travels(store: PayloadStore) -> None:
    codec = Offload(store, least=1_000)
    sealed = codec.seal(LARGE)
    assert len(sealed) < 120
    msgspec.msgpack.decode(sealed)
    [name] = all_names(store)
    assert REFERENCES.findall(sealed) == [name.encode()]
    assert name.startswith(f"{datetime.now(UTC):%Y-%m-%d}/")
    assert codec.open(sealed) == store.get(name, 10_000) == LARGE


def test_what_is_small_or_was_never_offloaded_is_left(store: PayloadStore) -> None:
    codec = Offload(store, least=1_000)
    assert codec.seal(SMALL) == SMALL
    assert all_names(store) == []
    assert codec.open(LARGE) == LARGE
    assert codec.open(wrap(1, b"\x01" * 9)) == wrap(1, b"\x01" * 9)


def test_what_is_stored_is_compressed_and_encrypted(store: PayloadStore) -> None:
    secret = msgspec.msgpack.encode("DE02120300000000202051" * 1_000)
    codec = Codecs(Compression(10), Encryption({"a": os.urandom(32)}, "a"), Offload(store, least=256))
    noise = msgspec.msgpack.encode(["DE02120300000000202051", os.urandom(9_000)])
    assert codec.open(codec.seal(secret)) == secret
    assert codec.open(codec.seal(noise)) == noise
    held = [store.get(name, 100_000) for name in all_names(store)]
    assert held
    assert not any(b"DE0212" in body for body in held)


def test_only_the_last_codec_may_offload(tmp_path: Path) -> None:
    offload = Offload(str(tmp_path))
    assert Codecs(Compression(), offload).blocking
    assert not Codecs(Compression(), Codec()).blocking
    with pytest.raises(InvalidInput, match="Offload must be the last of the codecs: any behind it would hide"):
        Codecs(Codecs(offload), Compression())


def test_an_object_that_is_gone_or_was_changed_does_not_open(store: PayloadStore) -> None:
    codec = Offload(store, least=1_000)
    sealed = codec.seal(LARGE)
    [name] = all_names(store)
    for other in (LARGE[:-1], LARGE + b"x", LARGE[:-1] + bytes([LARGE[-1] ^ 1])):
        store.delete(name)
        store.put(name, other)
        with pytest.raises(UnreadablePayload, match=f"{name} in <.*> is not what was stored there"):
            codec.open(sealed)
    store.delete(name)
    store.delete(name)
    with pytest.raises(UnreadablePayload, match=f"{name} is not, or no longer, in <F"):
        codec.open(sealed)


@pytest.mark.parametrize("held", [b"", b"streamq-offload/1 ../../etc/passwd" + bytes(40), b"streamq-offload/1 2026"])
def test_a_damaged_reference_reaches_no_store(tmp_path: Path, held: bytes) -> None:
    with pytest.raises(UnreadablePayload, match="its reference to an offloaded payload is damaged"):
        Offload(Away()).open(wrap(OFFLOADED, held))


class Away:
    """A store that can't be reached."""

    def __repr__(self) -> str:
        return "<Away>"

    def _refuse(self, *args: Any) -> Any:
        raise PermissionError("no credentials")

    put = get = days = names = delete = _refuse


def test_a_store_that_is_away_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        OffloadUnavailable, match="a payload can't be stored in <Away>: PermissionError: no credentials"
    ):
        Offload(Away(), least=256).seal(LARGE)
    sealed = Offload(str(tmp_path), least=256).seal(LARGE)
    with pytest.raises(OffloadUnavailable, match=f"{NAME} can't be read from <Away>: PermissionError: no credentials"):
        Offload(Away()).open(sealed)


def test_a_file_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put("2026-11-25/" + "a" * 32, b"first")
    with pytest.raises(TypeError):
        store.put("2026-11-25/" + "b" * 32, "text")  # type: ignore[arg-type]
    assert all_names(store) == ["2026-11-25/" + "a" * 32]


def test_old_objects_go_unless_they_are_needed(store: PayloadStore) -> None:
    old, needed, today = (
        f"{day}/{n * 32}" for day, n in (("2026-10-01", "a"), ("2026-10-02", "b"), ("2026-11-01", "c"))
    )
    for name in (old, needed, today):
        store.put(name, b"x")
    if isinstance(store, FolderStore):
        (store._root / "not-a-day").mkdir()
    assert delete_before(store, date(2026, 11, 1), {needed}, dry_run=True) == (1, 1)
    assert len([name for name in all_names(store) if name in (old, needed, today)]) == 3
    assert delete_before(store, date(2026, 11, 1), {needed}) == (1, 1)
    assert delete_before(store, date(2026, 11, 1), {needed}) == (0, 1)
    assert all_names(store) == [needed, today]


def test_a_place_that_can_not_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no payloads can be stored there"):
        Offload("nowhere://bucket")
    with pytest.raises(InvalidInput, match="least must be"):
        Offload("memory://x", least=10)
