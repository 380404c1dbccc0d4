"""Codecs: what they seal they open, what they have not sealed they leave, and say without the data what is wrong."""

from __future__ import annotations

import os
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.encryption import Encryption
from streamq.errors import InvalidInput, UnreadablePayload
from streamq.payload import COMPRESSED, ENCRYPTED, Codec, Codecs, Compression, wrap

KEY, OTHER = os.urandom(32), os.urandom(16)
SECRET = msgspec.msgpack.encode({"iban": "DE02120300000000202051" * 100})
PLAIN_BODIES = [b"\xc0", b"\x05", msgspec.msgpack.encode("x"), wrap(1, b"\x01" * 9), SECRET]


@pytest.mark.parametrize(
    "codec", [Codec(), Compression(0), Encryption({"a": KEY}, "a"), Codecs(Compression(0), Encryption({"a": KEY}, "a"))]
)
@pytest.mark.parametrize("body", PLAIN_BODIES)
def test_what_is_sealed_opens_and_what_is_not_sealed_is_left(codec: Codec, body: bytes) -> None:
    sealed = codec.seal(body)
    msgspec.msgpack.decode(sealed)
    assert codec.open(sealed) == body
    assert codec.open(body) == body


def test_compression_leaves_what_is_small_or_would_not_get_smaller() -> None:
    noise = msgspec.msgpack.encode(os.urandom(2_000))
    assert Compression(least=3_000).seal(b"\xa1" * 2_000) == b"\xa1" * 2_000
    assert Compression().seal(noise) == noise
    assert len(Compression().seal(SECRET)) < len(SECRET) / 10


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (b"nothing", "a compressed payload is damaged"),
        (zlib.compress(b"x" * 1000)[:-6], "a compressed payload is cut off, or over"),
        (zlib.compress(bytes(65 * 1024 * 1024)), "cut off, or over 67,108,864 bytes"),
    ],
)
def test_what_can_not_be_unpacked_is_refused(packed: bytes, why: str) -> None:
    with pytest.raises(UnreadablePayload, match=why):
        Compression().open(wrap(COMPRESSED, packed))


def test_the_same_payload_never_looks_the_same_and_shows_the_keys_id_alone() -> None:
    codec = Encryption({"2026-11": KEY}, "2026-11")
    first, second = codec.seal(SECRET), codec.seal(SECRET)
    assert first != second
    assert b"2026-11" in first
    assert b"DE0212" not in first


def test_old_keys_open_while_the_current_one_seals() -> None:
    old, both = Encryption({"a": KEY}, "a"), Encryption({"a": KEY, "b": OTHER}, "b")
    assert both.open(old.seal(SECRET)) == SECRET
    with pytest.raises(UnreadablePayload, match="it is encrypted under the key 'b', which is not known here"):
        old.open(both.seal(SECRET))


def test_what_was_changed_or_has_another_key_does_not_open_and_the_error_says_nothing_of_it() -> None:
    codec = Encryption({"a": KEY}, "a")
    sealed = codec.seal(SECRET)
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for opener, body in (
        (codec, changed), (Encryption({"a": OTHER}, "a"), sealed), (codec, wrap(ENCRYPTED, b"\x01a12")),
    ):  # fmt: skip
        with pytest.raises(UnreadablePayload) as caught:
            opener.open(body)
        assert str(caught.value) == "it was changed since it was encrypted, or its key is another one"
    for body in (wrap(ENCRYPTED, b""), sealed[:20]):
        with pytest.raises(UnreadablePayload):
            codec.open(body)


@pytest.mark.parametrize(
    ("keys", "current", "why"),
    [
        ({"a": KEY}, "b", "the current key 'b' is not among the keys"),
        ({"a": b"secret"}, "a", "key 'a' must be 16, 24 or 32 bytes"),
        ({"": KEY}, "", "key id"),
        ({"x" * 65: KEY}, "x" * 65, "key id"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys: dict[str, bytes], current: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        Encryption(keys, current)
    assert "secret" not in str(caught.value)


SEALERS = [Compression(0), Encryption({"a": KEY}, "a"), Codecs(Compression(0), Encryption({"a": KEY}, "a"))]
EXTENSIONS = st.builds(wrap, st.sampled_from([COMPRESSED, ENCRYPTED]), st.binary(max_size=80))


@pytest.mark.parametrize("codec", SEALERS)
@given(st.one_of(st.binary(max_size=80), EXTENSIONS, EXTENSIONS.map(lambda body: wrap(ENCRYPTED, b"\x01a" + body))))
def test_no_bytes_raise_anything_but_the_error_that_says_so(codec: Codec, body: bytes) -> None:
    try:
        codec.open(body)
    except UnreadablePayload:
        return


@pytest.mark.parametrize("codec", SEALERS)
@given(st.data())
def test_a_sealed_payload_of_which_a_byte_was_changed_opens_to_nothing_else(codec: Codec, data: st.DataObject) -> None:
    sealed = bytearray(codec.seal(SECRET))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    try:
        found = codec.open(bytes(sealed))
    except UnreadablePayload:
        return
    assert found == SECRET or found == bytes(sealed), "another payload was made of it"
