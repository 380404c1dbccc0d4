"""Large payloads outside Redis: a codec that stores them elsewhere, and has a small reference travel in their place.

    codec = Codecs(Compression(), Offload("s3://bucket/payloads", least=65_536))
    queue = Queue("reports", codec=codec)

An object is written before the job that needs it is added, and no transition ever deletes one: it goes by its age, by
`streamq offload clean` or a rule of the bucket. Objects of a day have its date before their names, in UTC. The
reference holds the object's SHA-256, so one that was changed does not open.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, date, datetime

from streamq.errors import OffloadUnavailable, UnreadablePayload
from streamq.payload import OFFLOADED, Codec, unwrap, wrap
from streamq.payload_stores import PayloadStore, open_store
from streamq.policy import whole

MARK = b"streamq-offload/1 "
NAME = r"\d{4}-\d\d-\d\d/[0-9a-f]{32}"
REFERENCES = re.compile(re.escape(MARK) + rf"({NAME})".encode())
"""Finds the names of objects in anything that holds references."""
_REFERENCE = re.compile(re.escape(MARK) + rf"({NAME})(.{{8}})(.{{32}})".encode(), re.DOTALL)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class Offload(Codec):
    """Keeps payloads of `least` bytes or more in a store: a path, a URL that fsspec knows, or a `PayloadStore`.

    The last of the codecs: what it stores is compressed and encrypted already. Producers, workers and readers need it.
    Sealing and opening raise `OffloadUnavailable` while the store is away: an add then adds nothing, and an attempt
    whose data can't be fetched, or whose result can't be stored, is retried as any that fails.

    Raises:
        InvalidInput: There can be no store at the URL, or the number makes no sense.
    """

    blocking = True

    def __init__(self, store: str | PayloadStore, least: int = 65_536) -> None:
        self.store = open_store(store) if isinstance(store, str) else store
        self._least = whole("least", least, low=256, high=2**30)

    def today(self) -> str:
        """Return the day under which objects are stored now."""
        return f"{datetime.now(UTC):%Y-%m-%d}"

    def seal(self, body: bytes) -> bytes:
        """Store a large payload, and return a reference to it."""
        if len(body) < self._least:
            return body
        name = f"{self.today()}/{secrets.token_hex(16)}"
        try:
            self.store.put(name, body)
        except Exception as error:
            raise OffloadUnavailable(f"a payload can't be stored in {self.store!r}: {_said(error)}") from error
        digest = hashlib.sha256(body).digest()
        return wrap(OFFLOADED, MARK + name.encode() + len(body).to_bytes(8, "big") + digest)

    def open(self, body: bytes) -> bytes:
        """Fetch what a reference stands for."""
        held = unwrap(OFFLOADED, body)
        if held is None:
            return body
        found = _REFERENCE.fullmatch(held)
        if found is None:
            raise UnreadablePayload("its reference to an offloaded payload is damaged")
        name, size = found[1].decode(), int.from_bytes(found[2], "big")
        try:
            fetched = self.store.get(name, size + 1)
        except FileNotFoundError:
            raise UnreadablePayload(f"{name} is not, or no longer, in {self.store!r}") from None
        except Exception as error:
            raise OffloadUnavailable(f"{name} can't be read from {self.store!r}: {_said(error)}") from error
        if len(fetched) != size or hashlib.sha256(fetched).digest() != found[3]:
            raise UnreadablePayload(f"{name} in {self.store!r} is not what was stored there")
        return fetched


def delete_before(store: PayloadStore, day: date, needed: set[str], *, dry_run: bool = False) -> tuple[int, int]:
    """Delete objects of the days before `day`, less those that are needed; return how many went and how many stay."""
    gone = kept = 0
    for found in store.days():
        if not _DAY.fullmatch(found) or found >= day.isoformat():
            continue
        for name in list(store.names(found)):
            if name in needed:
                kept += 1
                continue
            if not dry_run:
                store.delete(name)
            gone += 1
    return gone, kept


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
