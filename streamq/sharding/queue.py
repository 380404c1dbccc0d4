"""A queue with shards as its producers and operators use it: the same calls as of any queue.

Its life: the first call compares the number of shards with the one that Redis has stored. From then on an add goes to
one shard, a call about a job to the shard of that job, and any other call to all of them. Commands to shards of one
server share a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from streamq._engine.adder import Adder
from streamq._engine.shards import MOST, ShardAdder, placed, read_number, register, word_of
from streamq.errors import InvalidInput
from streamq.events import Event
from streamq.flow import FlowJob, ordered
from streamq.job import Job, JobOptions
from streamq.middleware import Middleware
from streamq.observer import NOBODY, ErrorHandler, Observer, careful
from streamq.payload import Codec
from streamq.policy import whole
from streamq.queue import Queue, Shards
from streamq.settings import Settings
from streamq.sharding.bulk import ShardedBulk
from streamq.sharding.events import merged
from streamq.sharding.letters import ShardedLetters
from streamq.sharding.listing import ShardedListings
from streamq.sharding.number import change_number
from streamq.sharding.operations import ShardedFairness, ShardedFlows, ShardedOperations
from streamq.sharding.overview import ShardedOverview
from streamq.sharding.schedules import ShardedSchedules
from streamq.sharding.shares import settings_share

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

READ_AGAIN = 5.0
"""Seconds for which a number that was read from Redis is good, where it was not given."""


class _Shard(Queue):
    """One shard: a queue of the same name with keys of its own."""

    def __init__(self, whole: ShardedQueue, shard: int) -> None:
        self._shard, self._shared_wire = shard, whole._wire
        super().__init__(
            whole.name, whole.redis, defaults=whole.defaults, settings=whole.settings, observer=whole._store.observer,
            on_error=whole.on_error, middleware=whole._middleware, codec=whole._store.codec,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<shard {self._shard} of queue {self.name} at {self._endpoint!r}>"


class ShardedQueue(
    ShardedOperations, ShardedBulk, ShardedListings, ShardedOverview, ShardedLetters, ShardedSchedules, ShardedFlows,
    ShardedFairness, Queue,
):  # fmt: skip
    """A queue that is spread over `shards`: 1 to 64, or "stored" for as many as Redis says (without any: one)."""

    _may_have_shards = True

    def __init__(
        self,
        name: str,
        redis: str | Redis | RedisCluster | None = None,
        *,
        shards: Shards = "stored",
        defaults: JobOptions | None = None,
        settings: Settings | None = None,
        observer: Observer = NOBODY,
        on_error: ErrorHandler | None = None,
        middleware: Sequence[Middleware] = (),
        codec: Codec | None = None,
    ) -> None:
        self._shards: list[Queue] = []
        self._number = check_shards(shards)
        self._checked = False
        self._read_at = -READ_AGAIN
        super().__init__(
            name, redis, shards=shards, defaults=defaults, settings=settings, observer=observer, on_error=on_error,
            middleware=middleware, codec=codec,
        )  # fmt: skip
        self._spread = ShardAdder(self.name, self._adders), ShardAdder(self.name, self._durable_adders)
        self._make_shards(self._number or 1)

    def __repr__(self) -> str:
        return f"<Queue {self.name}, {self._number or 'stored'} shards, at {self._endpoint!r}>"

    @property
    def shards(self) -> Shards:
        """Over how many shards it is spread, as it was given."""
        return self._number or "stored"

    @property
    def on_error(self) -> ErrorHandler | None:
        return self._on_error

    @on_error.setter
    def on_error(self, handler: ErrorHandler | None) -> None:
        self._on_error = handler
        self._store.on_error = careful(handler)
        for shard in self._shards:
            shard.on_error = handler

    def _make_shards(self, number: int) -> Sequence[Queue]:
        """Have so many shards; return those that are too many, for the caller to close."""
        kept, spare = self._shards[:number], self._shards[number:]
        # Another list: whoever works with the one of before does so to the end.
        self._shards = kept + [_Shard(self, at) for at in range(len(kept), number)]
        own = settings_share(self.settings, number)
        for at, shard in enumerate(self._shards):
            shard.settings = shard._store.settings = own
            # One alone is a queue like any other, whose flows may have jobs in others.
            shard._store.shard = None if number == 1 else at
        return spare

    async def _open(self) -> Sequence[Queue]:
        if self._checked:
            return self._shards
        if self._number is not None:
            await register([shard._store for shard in self._shards])
            self._checked = True
            return self._shards
        now = asyncio.get_running_loop().time()
        if now - self._read_at >= READ_AGAIN:
            spare = self._make_shards(await read_number(self._store) or 1)
            self._read_at = now
            await _close(spare)
        return self._shards

    async def set_shards(self, shards: int, *, grow: bool = False) -> None:
        whole("shards", shards, low=1, high=MOST)
        stored = await read_number(self._store) or 1
        others = [_Shard(self, at) for at in range(len(self._shards), max(stored, shards))]
        # If this fails half-way, only Redis can say which number holds.
        self._checked, self._read_at = False, -READ_AGAIN
        try:
            await change_number([*self._shards, *others], stored, shards, grow=grow)
        finally:
            await _close(others)
        if self._number is not None:
            self._number = shards
        await _close(self._make_shards(shards))

    # Adding -----------------------------------------------------------------------------------------------------------

    def _adder_for(self, durable: bool) -> Adder:
        return self._spread[durable]  # type: ignore[return-value]  # it is called as one is

    async def _adders(self) -> Sequence[Adder]:
        return [shard._adder for shard in await self._open()]

    async def _durable_adders(self) -> Sequence[Adder]:
        return [shard._adder_for(True) for shard in await self._open()]

    async def _add_encoded(self, jobs: list[Any]) -> list[Any]:
        return await self._spread[False].add(jobs)

    async def add_flow(self, flow: FlowJob, *, durable: bool = False) -> Job:
        shards = await self._open()
        if not isinstance(flow, FlowJob):
            return await shards[0].add_flow(flow, durable=durable)  # which says what is wrong
        jobs = ordered(flow)
        shards[0]._store.check_alone(job.queue for job in jobs)
        top = None
        for job in jobs:
            said = self._options(job.options, {})
            word = word_of(key=said.key, unique=None if said.unique is None else said.unique.key, own_id=said.job_id)
            if top is None:
                top = word
            elif word not in ("", top) and len(shards) > 1:
                raise InvalidInput(
                    f"a flow is in one shard of queue {self.name}, the one of its top job: job {job.name!r} below "
                    "can't have a job_id, unique or key of its own"
                )
        return await shards[placed(top or "", len(shards))].add_flow(flow, durable=durable)

    # Events -----------------------------------------------------------------------------------------------------------

    async def _events_from(self, begun: asyncio.Event, after: str | None = None) -> AsyncGenerator[Event, None]:
        async with aclosing(merged(await self._open(), begun, after)) as events:
            async for event in events:
                yield event

    # Closing ----------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        await _close(self._shards)
        await super().close()


async def _close(shards: Sequence[Queue]) -> None:
    await asyncio.gather(*(shard.close() for shard in shards))


def check_shards(shards: Any) -> int | None:
    """Return the number of shards; None if it is the stored one.

    Raises:
        InvalidInput: It is neither.
    """
    if shards == "stored":
        return None
    if isinstance(shards, str):
        raise InvalidInput(f'shards must be 1 to {MOST} or "stored", not {shards[:60]!r}')
    return whole("shards", shards, low=1, high=MOST)
