"""The events of all shards as one stream: each shard's in order, those of several as they come.

An event's id says for every shard how far its stream was read, so that a reader can go on behind it with no event lost
or told twice. Events of the whole queue that all shards have are told once, by shard 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from streamq.errors import InvalidInput
from streamq.events import Event, EventReader, check_position, start_on

if TYPE_CHECKING:
    from streamq.queue import Queue

OF_ALL = frozenset({"paused", "resumed", "drained", "obliterated"})
AHEAD = 200
"""Events that are read before somebody takes them."""


async def merged(shards: Sequence[Queue], begun: asyncio.Event, after: str | None) -> AsyncGenerator[Event, None]:
    """Yield what happens in all shards, for ever; see `Queue.events`. Takes a connection for each.

    `begun` is set from when on no event is missed.

    Raises:
        InvalidInput: `after` is no event's id, or one of a queue with more shards.
    """
    if len(shards) == 1:
        async with aclosing(shards[0]._events_from(begun, after)) as events:
            async for event in events:
                yield event
        return
    positions = await _positions(shards, after)
    begun.set()
    found: asyncio.Queue[tuple[int, Event]] = asyncio.Queue(AHEAD)

    async def read(at: int) -> None:
        async with aclosing(shards[at].events(positions[at])) as events:
            async for event in events:
                await found.put((at, event))

    readers = [asyncio.create_task(read(at), name=f"streamq-events-{at}") for at in range(len(shards))]
    try:
        while True:
            at, event = await _next(found, readers)
            positions[at] = event.id
            if event.kind in OF_ALL and at:
                continue
            yield Event("|".join(positions), event.kind, event.job_id, event.at)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _next(found: asyncio.Queue[tuple[int, Event]], readers: Sequence[asyncio.Task[None]]) -> tuple[int, Event]:
    """Return the next event; a reader goes on through outages, so one that ends has failed for good."""
    if not found.empty():
        return found.get_nowait()
    getting = asyncio.ensure_future(found.get())
    try:
        await asyncio.wait({getting, *readers}, return_when=asyncio.FIRST_COMPLETED)
        for reader in readers:
            if reader.done():
                reader.result()
        return getting.result() if getting.done() else await getting
    finally:
        getting.cancel()


async def _positions(shards: Sequence[Queue], after: str | None) -> list[str]:
    """Return from where each shard's stream is read: from its end, unless an id says where."""
    if after is None:
        return list(await asyncio.gather(*(_end_of(shard) for shard in shards)))
    check_position(after.partition("|")[0] if isinstance(after, str) else after)
    # An event of a queue without shards ("/": no mere time) is one of shard 0. Shards that came later began empty.
    parts = after.split("|") if "|" in after or "/" in after else [after] * len(shards)
    if len(parts) > len(shards):
        raise InvalidInput(f"after is the id of an event of {len(parts)} shards, and the queue has {len(shards)}")
    for part in parts:
        check_position(part)
    return parts + ["0-0"] * (len(shards) - len(parts))


async def _end_of(shard: Queue) -> str:
    reader = EventReader(shard._store, shard._wire, None)
    await start_on(reader)
    return reader.position
