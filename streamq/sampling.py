"""One queue, looked at once: the figures that the exporter shows. Each look costs the server a bounded amount.

Memory is an estimate: what is of bounded number is measured by Redis (`MEMORY USAGE`, which itself samples), records
and logs of jobs by a few of them times how many there are. It is measured anew only every `MEMORY_EVERY` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from streamq._engine import keys
from streamq.errors import StoreRefused
from streamq.policy import Priority
from streamq.queue import Queue, QueueStats
from streamq.sharding import ShardedQueue
from streamq.sharding.overview import sum_stats

MEMORY_EVERY = 30.0
RECORDS = 10
"""Records of jobs that are measured in each of the delayed, completed, failed and cancelled."""
LATE = 10.0
"""Seconds behind its time from which a schedule is late: any worker fires it within a moment."""


class QueueSample(msgspec.Struct, frozen=True, kw_only=True):
    """A queue at one moment. `memory` is bytes, None where Redis does not let this user measure it."""

    stats: QueueStats
    active: dict[Priority, int]
    leases: int
    schedules: int
    schedules_late: int
    cancelled_so_far: int
    memory: float | None


class Sampler:
    """Looks at a queue again and again. Belongs to the queue's event loop."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._store = queue._store
        self._shards: list[Sampler] = []
        self._memory: float | None = None
        self._measured_at = -MEMORY_EVERY

    async def sample(self) -> QueueSample:
        """Look at the queue now.

        Raises:
            StoreError: Redis is away or refused.
        """
        if isinstance(self.queue, ShardedQueue):
            return await self._sample_shards(await self.queue._open())
        stats, active, leases, schedules, late, cancelled = await asyncio.gather(
            self.queue.stats(), self._active(), self._store.command("ZCARD", keys.workers(self._store.base)),
            self._store.command("ZCARD", keys.schedules(self._store.base)), self._late(),
            self._store.command("HGET", keys.meta(self._store.base), "cancelled"),
        )  # fmt: skip
        if time.monotonic() - self._measured_at >= MEMORY_EVERY:
            self._memory = await self._measure(stats)
            self._measured_at = time.monotonic()
        return QueueSample(
            stats=stats,
            active=active,
            leases=leases,
            schedules=schedules,
            schedules_late=late,
            cancelled_so_far=int(cancelled or 0),
            memory=self._memory,
        )

    async def _sample_shards(self, shards: Sequence[Queue]) -> QueueSample:
        known = {sampler.queue: sampler for sampler in self._shards}
        self._shards = [known.get(shard) or Sampler(shard) for shard in shards]
        found = await asyncio.gather(*(sampler.sample() for sampler in self._shards))
        memory = [sample.memory for sample in found if sample.memory is not None]
        return QueueSample(
            stats=sum_stats([sample.stats for sample in found]),
            active={priority: sum(sample.active[priority] for sample in found) for priority in Priority},
            leases=max(sample.leases for sample in found),
            schedules=sum(sample.schedules for sample in found),
            schedules_late=sum(sample.schedules_late for sample in found),
            cancelled_so_far=sum(sample.cancelled_so_far for sample in found),
            memory=sum(memory) if len(memory) == len(found) else None,
        )

    async def _active(self) -> dict[Priority, int]:
        found = await asyncio.gather(*(self._pending(priority) for priority in Priority))
        return dict(zip(Priority, found, strict=True))

    async def _pending(self, priority: Priority) -> int:
        try:
            summary = await self._store.command("XPENDING", keys.lane(self._store.base, priority), keys.GROUP)
        except StoreRefused as error:
            if "NOGROUP" in str(error):
                return 0  # nothing was ever claimed from it
            raise
        return int(summary[0])

    async def _late(self) -> int:
        due = await self._store.now_ms() - LATE * 1000
        return int(await self._store.command("ZCOUNT", keys.schedules(self._store.base), "-inf", f"{due:.0f}"))

    # Memory -----------------------------------------------------------------------------------------------------------

    async def _measure(self, stats: QueueStats) -> float | None:
        base = self._store.base
        try:
            fixed = await asyncio.gather(*(self._bytes(key) for key in keys.of_a_queue(base)))
            counts = {keys.delayed(base): stats.delayed, keys.completed(base): stats.completed,
                      keys.failed(base): stats.failed, keys.cancelled(base): stats.cancelled}  # fmt: skip
            records = await asyncio.gather(*(self._records(key, count) for key, count in counts.items()))
        except StoreRefused as error:
            if "NOPERM" in str(error):
                return None
            raise
        return sum(fixed) + sum(records)

    async def _bytes(self, key: str) -> int:
        return int(await self._store.command("MEMORY", "USAGE", key) or 0)

    async def _records(self, key: str, count: int) -> float:
        """Estimate the records (and logs) of the jobs that a sorted set names."""
        if not count:
            return 0.0
        base = self._store.base
        ids = [job_id.decode() for job_id in await self._store.command("ZRANDMEMBER", key, RECORDS)]
        own = [self._bytes(name) for job_id in ids for name in (keys.record(base, job_id), keys.log(base, job_id))]
        return sum(await asyncio.gather(*own)) / max(len(ids), 1) * count
