"""What is done to payloads between their encoding and Redis: compression here, encryption in `streamq.encryption`.

A codec takes encoded bytes and gives encoded bytes: a msgpack extension that says which codec made it, or what it was
given. What no codec has touched is read as it is, so a codec can be switched on while jobs wait.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import msgspec

from streamq.errors import InvalidInput, UnreadablePayload
from streamq.policy import whole

P = ParamSpec("P")
T = TypeVar("T")

COMPRESSED, ENCRYPTED, OFFLOADED = 2, 3, 4
"""Extension codes of sealed payloads."""
MOST_UNPACKED = 64 * 1024 * 1024
"""Bytes that a payload may unpack to: it may have been put there by somebody else."""
_EXTENSIONS = frozenset((0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8))


class Codec:
    """Leaves payloads as they are. Override both; `open` is given what other codecs have made, or none."""

    blocking = False
    """Whether they wait for files or the network: then they are called in threads, several at once."""

    def seal(self, body: bytes) -> bytes:
        """Return the bytes that go to Redis for an encoded payload."""
        return body

    def open(self, body: bytes) -> bytes:
        """Return the encoded payload again.

        Raises:
            UnreadablePayload: It can't be had here; the text says why, and nothing of what it holds.
        """
        return body


PLAIN = Codec()


class Codecs(Codec):
    """Several codecs, applied in this order and opened in the other one: compress first, then encrypt, then offload.

    Raises:
        InvalidInput: One that keeps payloads elsewhere is not the last.
    """

    def __init__(self, *codecs: Codec) -> None:
        if any(codec.blocking for codec in codecs[:-1]):
            raise InvalidInput("Offload must be the last of the codecs: any behind it would hide what it refers to")
        self._all = codecs
        self.blocking = any(codec.blocking for codec in codecs)

    def seal(self, body: bytes) -> bytes:
        """Seal with each."""
        for codec in self._all:
            body = codec.seal(body)
        return body

    def open(self, body: bytes) -> bytes:
        """Open with each."""
        for codec in reversed(self._all):
            body = codec.open(body)
        return body


class Compression(Codec):
    """Compresses payloads of `least` bytes or more with zlib, if that makes them smaller."""

    def __init__(self, least: int = 1_024, level: int = 6) -> None:
        self._least, self._level = whole("least", least, low=0, high=2**30), whole("level", level, low=1, high=9)

    def seal(self, body: bytes) -> bytes:
        """Compress."""
        if len(body) < self._least:
            return body
        packed = wrap(COMPRESSED, zlib.compress(body, self._level))
        return packed if len(packed) < len(body) else body

    def open(self, body: bytes) -> bytes:
        """Decompress, up to 64 MiB."""
        packed = unwrap(COMPRESSED, body)
        if packed is None:
            return body
        unpacker = zlib.decompressobj()
        try:
            found = unpacker.decompress(packed, MOST_UNPACKED)
        except zlib.error:
            raise UnreadablePayload("a compressed payload is damaged") from None
        if not unpacker.eof:
            raise UnreadablePayload(f"a compressed payload is cut off, or over {MOST_UNPACKED:,} bytes")
        return found


async def aside(codec: Codec, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what seals or opens payloads: in a thread if the codec may block, else right here."""
    if codec.blocking:
        return await asyncio.to_thread(call, *args, **kwargs)
    return call(*args, **kwargs)


def wrap(code: int, body: bytes) -> bytes:
    """Return bytes as the extension of this code."""
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, body))


def unwrap(code: int, body: bytes) -> bytes | None:
    """Return what an extension of this code holds; None if the payload is something else."""
    if not body or body[0] not in _EXTENSIONS:
        return None
    try:
        found = msgspec.msgpack.decode(body, type=msgspec.msgpack.Ext)
    except msgspec.DecodeError:
        raise UnreadablePayload("a sealed payload is damaged") from None
    return bytes(found.data) if found.code == code else None
