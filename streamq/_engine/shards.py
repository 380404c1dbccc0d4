"""Where the jobs of a queue with shards are: which shard a new one goes to, and in which one an id is found.

Each shard is a queue of its own as far as scripts go: its base has a hash tag of its own, and its counter begins at a
number of its own, so that an id that was given out tells its shard and no two shards give out the same. What must hold
over several jobs (an id of one's own, a unique key, the limits of a key) is kept by one shard, which a stable hash
picks. The number of shards is stored beside shard 0, and every process compares its own with it before its first call.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from streamq._engine import keys
from streamq._engine.adder import Adder
from streamq._engine.store import Store
from streamq._engine.transitions import Added, NewJob
from streamq.errors import DuplicateJob, PartlyAdded, StoreError, WrongShards

MOST = 64
SPAN = 10**14
"""Numbers that each shard's counter may give out: 64 times as many are still counted exactly by the scripts."""


def first_number(shard: int) -> int:
    """Return the number behind which a shard's counter begins."""
    return shard * SPAN


def shard_of_number(job_id: str) -> int | None:
    """Return the shard that gave out this id; None if it is an id of somebody's own."""
    return int(job_id) // SPAN if job_id.isascii() and job_id.isdigit() else None


def home(word: str, shards: int) -> int:
    """Return the shard of a word; the same in every process, for ever."""
    return zlib.crc32(word.encode()) % shards


def placed(word: str, shards: int) -> int:
    """Return the shard for a job of this word: any, if that is ""."""
    return home(word, shards) if word else random.randrange(shards)  # noqa: S311 - any spread will do


def word_of(*, key: str | None = None, unique: str | None = None, own_id: str | None = None) -> str:
    """Return by what a job is placed: its key before its unique key before its own id; "" if it may go anywhere."""
    if key is not None:
        return f"k:{key}"
    if unique is not None:
        return f"u:{unique}"
    return f"j:{own_id}" if own_id else ""


def word_of_job(job: NewJob) -> str:
    """Return by what an encoded job is placed."""
    if isinstance(job.start, bytes) and (packed := job.start.partition(b"|")[2]):
        bonds = msgspec.msgpack.decode(packed)
        return word_of(key=bonds.get("k"), unique=bonds.get("u", {}).get("k"), own_id=job.job_id)
    return word_of(own_id=job.job_id)


async def read_number(store: Store) -> int | None:
    """Read over how many shards a queue is spread; None if it has none. `store` is that of shard 0."""
    found = await store.command("GET", keys.shards(store.base))
    return None if found is None else int(found)


async def register(stores: Sequence[Store]) -> None:
    """Make sure that the queue has as many shards as there are stores, and that their counters are apart.

    Raises:
        WrongShards: It has another number, or was used without shards. Nothing was changed.
        StoreError: Redis did not answer; repeat it.
    """
    first, number = stores[0], len(stores)
    stored = await read_number(first)
    if stored is None:
        # A worker that was there before does not know that there are other shards now, and would leave them alone.
        if await first.command("EXISTS", keys.counter(first.base), keys.workers(first.base)):
            raise WrongShards(first.queue, 0, number)
        await first.command("SET", keys.shards(first.base), number, "NX")
        stored = await read_number(first)
    if stored != number:
        raise WrongShards(first.queue, stored or 0, number)
    await set_counters(stores)


async def store_number(store: Store, number: int) -> None:
    """Store over how many shards a queue is spread. `store` is that of shard 0."""
    await store.command("SET", keys.shards(store.base), number)


async def set_counters(stores: Sequence[Store]) -> None:
    """Begin the counters of shards that have none yet."""
    await asyncio.gather(
        *(
            store.command("SET", keys.counter(store.base), first_number(shard), "NX")
            for shard, store in enumerate(stores)
            if shard
        )
    )


class ShardAdder:
    """The adders of all shards, as one. Jobs that may go anywhere are spread evenly, from a shard at random on."""

    def __init__(self, queue: str, adders: Callable[[], Awaitable[Sequence[Adder]]]) -> None:
        self._queue, self._adders = queue, adders

    async def add(self, jobs: Sequence[NewJob], *, all_or_none: bool = False) -> list[Added]:
        """Add jobs, with one call to each shard that gets some; each shard takes all of its own or none.

        Raises:
            PartlyAdded: Some shards did, some did not: it says which jobs are there.
            DuplicateJob, InvalidInput, StoreError: As by the adder of one queue, if no shard took any.
        """
        adders = await self._adders()
        if len(jobs) == 1:
            return await adders[placed(word_of_job(jobs[0]), len(adders))].add(jobs, all_or_none=all_or_none)
        at = placed("", len(adders))
        parts: dict[int, list[int]] = {}
        for place, job in enumerate(jobs):
            if word := word_of_job(job):
                parts.setdefault(home(word, len(adders)), []).append(place)
            else:
                parts.setdefault(at % len(adders), []).append(place)
                at += 1
        calls = [adders[shard].add([jobs[i] for i in part], all_or_none=all_or_none) for shard, part in parts.items()]
        found: list[Added | None] = [None] * len(jobs)
        failed: list[BaseException] = []
        for part, done in zip(parts.values(), await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(done, BaseException):
                failed.append(done)
                continue
            for place, added in zip(part, done, strict=True):
                found[place] = added
        if not failed:
            return [added for added in found if added is not None]
        if len(failed) == len(calls) or not isinstance(failed[0], StoreError | DuplicateJob):
            raise failed[0]
        ids = tuple(None if added is None else added.job_id for added in found)
        raise PartlyAdded(self._queue, ids, str(failed[0])) from failed[0]

    async def close(self) -> None:
        """Do nothing: the adders are their shards' to close."""
