"""What is going on in a queue with shards: what each of them says, added up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from streamq.minutes import Minute, Minutes
from streamq.overview import Limits, Overview, Tally, WorkerList, WorkerSnapshot, tally_start
from streamq.policy import Priority, RateLimit, Seconds
from streamq.sharding.parts import ShardParts

if TYPE_CHECKING:
    from streamq.queue import QueueStats


class ShardedOverview(ShardParts, Overview, Minutes):
    """Looks at what is going on."""

    async def stats(self) -> QueueStats:
        return sum_stats(await self._of_all(lambda shard: shard.stats()))

    async def workers(self, count: int = 100, *, jobs_each: int = 20) -> WorkerList:
        lists = await self._of_all(lambda shard: shard.workers(count, jobs_each=jobs_each))
        found: dict[str, WorkerSnapshot] = {}
        for worker in (worker for workers in lists for worker in workers):
            known = found.get(worker.id)
            found[worker.id] = worker if known is None else _together(known, worker, jobs_each)
        total = max(len(found), *(workers.total for workers in lists))
        return WorkerList(sorted(found.values(), key=lambda worker: -worker.lease_left)[:count], total)

    async def limits(self) -> Limits:
        return sum_limits(await self._of_all(lambda shard: shard.limits()))

    async def tally(self, since: datetime | None = None, *, over: Seconds = 5.0) -> Tally:
        shards = await self._open()
        until = min(await asyncio.gather(*(shard._store.now_ms() for shard in shards)))
        start = tally_start(since, over, until)
        found = await asyncio.gather(*(shard._tally(start, until) for shard in shards))
        counts: Counter[str] = Counter()
        for tally in found:
            counts.update(tally.counts)
        return Tally(
            counts=counts,
            since=max(tally.since for tally in found),
            until=found[0].until,
            complete=all(tally.complete for tally in found),
        )

    async def minutes(self, over: Seconds = 3_600.0) -> list[Minute]:
        found: dict[datetime, Minute] = {}
        for minute in (m for minutes in await self._of_all(lambda shard: shard.minutes(over)) for m in minutes):
            known = found.get(minute.at)
            found[minute.at] = minute if known is None else _added(known, minute)
        return [found[at] for at in sorted(found)]


def sum_stats(found: Sequence[QueueStats]) -> QueueStats:
    """Add up what shards count. Each worker serves all of them, so workers are as many as the shard with most has."""
    from streamq.queue import QueueStats

    oldest = {p: _longest([stats.oldest_by_priority[p] for stats in found]) for p in Priority}
    return QueueStats(
        waiting=sum(stats.waiting for stats in found),
        active=sum(stats.active for stats in found),
        completed=sum(stats.completed for stats in found),
        failed=sum(stats.failed for stats in found),
        delayed=sum(stats.delayed for stats in found),
        cancelled=sum(stats.cancelled for stats in found),
        dead=sum(stats.dead for stats in found),
        paused=all(stats.paused for stats in found),
        oldest_waiting_age=_longest(list(oldest.values())),
        workers=max(stats.workers for stats in found),
        waiting_children=sum(stats.waiting_children for stats in found),
        waiting_by_priority={p: sum(stats.waiting_by_priority[p] for stats in found) for p in Priority},
        oldest_by_priority=oldest,
    )


def sum_limits(found: Sequence[Limits]) -> Limits:
    """Put the shares of shards together again."""
    rates = [limits.rate for limits in found if limits.rate is not None]
    holds = [limits.held_for for limits in found if limits.held_for is not None]
    return Limits(
        paused=all(limits.paused for limits in found),
        rate=RateLimit(sum(rate.max for rate in rates), rates[0].per) if len(rates) == len(found) else None,
        concurrency=_sum([limits.concurrency for limits in found]),
        max_size=_sum([limits.max_size for limits in found]),
        held_for=max(holds, default=None),
    )


def _longest(ages: Sequence[float | None]) -> float | None:
    return max((age for age in ages if age is not None), default=None)


def _sum(limits: Sequence[int | None]) -> int | None:
    given = [limit for limit in limits if limit is not None]
    return sum(given) if len(given) == len(limits) else None


def _together(one: WorkerSnapshot, other: WorkerSnapshot, jobs_each: int) -> WorkerSnapshot:
    return WorkerSnapshot(
        id=one.id,
        lease_left=max(one.lease_left, other.lease_left),
        held={priority: one.held[priority] + other.held[priority] for priority in Priority},
        jobs=sorted([*one.jobs, *other.jobs], key=lambda job: (job.priority, -job.seconds))[:jobs_each],
    )


def _added(one: Minute, other: Minute) -> Minute:
    return Minute(
        at=one.at,
        completed=one.completed + other.completed,
        failed=one.failed + other.failed,
        retried=one.retried + other.retried,
        stalled=one.stalled + other.stalled,
        held=None if one.held is None or other.held is None else one.held + other.held,
        delayed=None if one.delayed is None or other.delayed is None else one.delayed + other.delayed,
    )
