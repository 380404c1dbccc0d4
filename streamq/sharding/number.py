"""Another number of shards for a queue: when nothing is in it, or by growing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streamq._engine.shards import set_counters, store_number
from streamq.errors import InvalidInput
from streamq.sharding.carried import read_settings

if TYPE_CHECKING:
    from streamq.queue import Queue


async def change_number(shards: Sequence[Queue], stored: int, number: int, *, grow: bool) -> None:
    """Store another number of shards; `shards` are all that there are before or after.

    Raises:
        InvalidInput: Something is in the queue and it is not to grow, `grow` is given and the number is not greater, or
            what is set for the queue or its keys can't be carried over. Nothing was changed.
        StoreError: Redis did not answer: the number is the one or the other, and if it is the new one, what is set for
            the queue may not be in all of its shards.
    """
    queue = shards[0].name
    if grow and number < stored:
        raise InvalidInput(f"queue {queue} can't grow to {number} shards, it has {stored}")
    if not grow and number != stored:
        stats = await asyncio.gather(*(shard.stats() for shard in shards))
        schedules = sum(len(found) for found in await asyncio.gather(*(shard.schedules() for shard in shards)))
        jobs, letters = sum(found.total for found in stats), sum(found.dead for found in stats)
        if jobs or letters or schedules:
            raise InvalidInput(
                f"queue {queue} holds {jobs:,} jobs, {letters:,} dead letters and {schedules:,} schedules: its number "
                "of shards can be changed when it holds none, or with grow=True to a greater one"
            )
    stores = [shard._store for shard in shards]
    if number == stored:
        await set_counters(stores[:number])
        await store_number(stores[0], number)
        return
    carried = await read_settings(shards[:stored], number)
    await set_counters(stores[:number])
    await carried.set_in(shards, range(stored, number))
    await carried.set_keys(shards)
    await store_number(stores[0], number)
    await carried.set_in(shards, range(min(stored, number)))
    await carried.lift_keys(shards)
