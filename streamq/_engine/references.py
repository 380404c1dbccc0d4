"""Find what the jobs of all queues refer to: a walk over everything in a database that may hold a payload.

For cleaning up what lies outside Redis. It reads all there is, page by page, so that others are served in between, and
changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from streamq._engine import keys
from streamq._engine.wire import Wire
from streamq.errors import StoreRefused

PAGE = 500
_HASHES = (b"job", b"children", b"steps", b"schedule")
_STREAMS = (b"lane", b"dead")
_KIND = re.compile(rb"sq:\{[^{}]*\}[^:{}]*:(.*)", re.DOTALL)
"""What a key is, behind its queue's base."""
_BATCH = re.compile(rb"batch:[^:]+")
_PIECES = tuple(b"d%d" % n if n else b"d" for n in range(16))


async def find_references(wire: Wire, pattern: re.Pattern[bytes]) -> set[bytes]:
    """Return the first group of all matches of `pattern` in jobs, dead letters and schedules of all queues.

    A job that moves from its record to a lane, or back, just while this passes by is found by one of the looks: at
    records, at lanes from their oldest entry on (what moves into one comes to its end), and at both once more.

    Raises:
        StoreUnavailable: Redis was away; nothing is known.
        StoreRefused: It answered that it can't, or is one node of a cluster, whose others hold jobs, too.
    """
    if b"cluster_enabled:1" in await _call(wire, "INFO", "cluster"):
        raise StoreRefused("this is a Redis Cluster: no node of it knows all jobs, so what they need can't be told")
    found: set[bytes] = set()
    for _ in range(2):
        streams = []
        async for key in _keys(wire):
            kind = told[1] if (told := _KIND.fullmatch(key)) else b""
            if kind.partition(b":")[0] in _STREAMS:
                streams.append(key)
            elif kind.partition(b":")[0] in _HASHES:
                found.update(*map(pattern.findall, await _values(wire, key)))
            elif _BATCH.fullmatch(kind):
                found.update(*map(pattern.findall, await _call(wire, "LRANGE", key, 0, -1)))
        for key in streams:
            async for value in _entries(wire, key):
                found.update(pattern.findall(value))
    return found


async def _keys(wire: Wire) -> AsyncIterator[bytes]:
    cursor = b"0"
    while True:
        cursor, page = await _call(wire, "SCAN", cursor, "MATCH", f"{keys.PREFIX}:{{*", "COUNT", PAGE)
        for key in page:
            yield key
        if cursor == b"0":
            return


async def _values(wire: Wire, key: bytes) -> list[bytes]:
    """Return what a hash holds, an envelope in one piece; nothing if it has gone."""
    flat = await _call(wire, "HGETALL", key)
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    envelope = b"".join(fields.pop(piece, b"") for piece in _PIECES)
    return [envelope, *fields.values()]


async def _entries(wire: Wire, key: bytes) -> AsyncIterator[bytes]:
    start = "-"
    while True:
        page = await _call(wire, "XRANGE", key, start, "+", "COUNT", PAGE)
        for _, fields in page:
            for value in fields or ():
                yield value
        if len(page) < PAGE:
            return
        start = f"({page[-1][0].decode()}"


async def _call(wire: Wire, *command: str | bytes | int) -> Any:
    reply = await wire.call(*command)
    if isinstance(reply, Exception):
        raise StoreRefused(f"Redis refused: {reply}")
    return reply
