"""What a worker and the processes of its pool say to each other: msgpack values, each behind its length.

No pickle: a handler's process is given bytes and gives bytes back.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

HEADER = struct.Struct(">I")


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A job for a process: which processor, and what its `ActiveJob` is made of. `data` is encoded."""

    module: str
    queue: str
    name: str
    job_id: str
    data: bytes
    attempt: int
    attempts: int
    stalls: int
    tags: tuple[str, ...]
    headers: dict[str, str]
    max_payload: int
    key: str | None = None
    cursor: bytes = b""


class Said(msgspec.Struct, frozen=True, array_like=True):
    """Something about the handler while it runs: `started` (empty), `progress` (encoded), `log` (a line), `extend`
    (seconds, encoded).

    Two kinds are answered by a `Told`: `recall`, and `remember` (field and value, encoded).
    """

    kind: str
    body: bytes


class Told(msgspec.Struct, frozen=True, array_like=True):
    """The worker's answer: what the job's attempts have remembered, by field; nothing once that is stored."""

    fields: dict[str, bytes]


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """How the handler ended.

    `kind` is `done` (body: the encoded result), `raised` (type, message, traceback), or the name of a verdict
    (`Unrecoverable`, `RetryAfter`, `Snooze`, `RateLimited`) with its seconds and text.
    """

    kind: str
    body: bytes = b""
    type: str = ""
    message: str = ""
    traceback: str = ""
    seconds: float = 0.0


def pack(value: Task | Said | Told | Ended) -> bytes:
    """Return a value as a frame."""
    body = msgspec.msgpack.encode((type(value).__name__, value))
    return HEADER.pack(len(body)) + body


_tagged = msgspec.msgpack.Decoder(tuple[str, msgspec.Raw])
_kinds: dict[str, msgspec.msgpack.Decoder[Any]] = {
    kind.__name__: msgspec.msgpack.Decoder(kind) for kind in (Task, Said, Told, Ended)
}


def unpack(body: bytes) -> Task | Said | Told | Ended:
    """Return the value of a frame's body."""
    kind, raw = _tagged.decode(body)
    value: Task | Said | Told | Ended = _kinds[kind].decode(raw)
    return value
