"""What the pages read: one look at each queue at a time, shared by all who watch.

However many browsers are open, a queue is asked once a second at the most.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from streamq.events import Event
from streamq.job import JobSnapshot
from streamq.minutes import Minute
from streamq.overview import Limits, Tally, WorkerList
from streamq.queue import Queue, QueueStats

FRESH = 1.0
"""Seconds for which a look is as good as a new one."""
RATE_SECONDS = 10.0
MINUTES_FRESH = 10.0
MOST_TIMELINES = 64
SPEEDS = {"added": ("added", "delayed"), "started": ("active",), "completed": ("completed",), "failed": ("failed",)}


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A queue at one moment. `rates` are per second, over the last ten seconds or so."""

    name: str
    stats: QueueStats
    workers: WorkerList
    limits: Limits
    rates: dict[str, float]
    rates_complete: bool
    at: datetime


class Desk:
    """The queues that the dashboard shows, and what was last seen of them."""

    def __init__(self, queues: Iterable[Queue]) -> None:
        self.queues = {queue.name: queue for queue in queues}
        self._corners = {name: _Corner(queue) for name, queue in self.queues.items()}

    async def look(self, name: str) -> Look:
        """Return how a queue is now."""
        return await self._corners[name].look()

    async def looks(self) -> list[Look]:
        """Return how all queues are now."""
        return list(await asyncio.gather(*(corner.look() for corner in self._corners.values())))

    def forget(self, name: str) -> None:
        """Look anew next time: somebody has just done something to this queue."""
        self._corners[name].forget()

    async def minutes(self, name: str, over: float) -> list[Minute]:
        """Return a queue's last minutes."""
        return await self._corners[name].minutes(over)

    async def timeline(self, job: JobSnapshot) -> list[Event]:
        """Return what has happened to a job, as far as the event stream goes back."""
        return await self._corners[job.queue].timeline(job)


class _Corner:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._lock = asyncio.Lock()
        self._look: tuple[float, Look] | None = None
        self._tallies: deque[Tally] = deque()
        self._minutes: dict[float, tuple[float, list[Minute]]] = {}
        self._timelines: OrderedDict[str, tuple[JobSnapshot, list[Event]]] = OrderedDict()

    async def look(self) -> Look:
        async with self._lock:
            known = self._look
            if known is None or time.monotonic() - known[0] > FRESH:
                known = self._look = time.monotonic(), await self._take()
            return known[1]

    def forget(self) -> None:
        self._look = None

    async def _take(self) -> Look:
        queue = self._queue
        stats, workers, limits = await asyncio.gather(queue.stats(), queue.workers(100), queue.limits())
        await self._count()
        span = sum((tally.until - tally.since).total_seconds() for tally in self._tallies)
        counts = {
            speed: sum(tally.counts.get(kind, 0) for tally in self._tallies for kind in kinds)
            for speed, kinds in SPEEDS.items()
        }
        return Look(
            name=queue.name,
            stats=stats,
            workers=workers,
            limits=limits,
            rates={speed: count / span if span > 0 else 0.0 for speed, count in counts.items()},
            rates_complete=all(tally.complete for tally in self._tallies),
            at=self._tallies[-1].until,
        )

    async def _count(self) -> None:
        """Count what has happened since the last look, so that each event is read once."""
        last = self._tallies[-1] if self._tallies else None
        if last is None or datetime.now(UTC) - last.until > timedelta(seconds=RATE_SECONDS):
            self._tallies = deque([await self._queue.tally(over=RATE_SECONDS)])
            return
        self._tallies.append(await self._queue.tally(last.until))
        oldest = self._tallies[-1].until - timedelta(seconds=RATE_SECONDS)
        while len(self._tallies) > 1 and self._tallies[0].until < oldest:
            self._tallies.popleft()

    async def minutes(self, over: float) -> list[Minute]:
        async with self._lock:
            found = self._minutes.get(over)
            if found is None or time.monotonic() - found[0] > MINUTES_FRESH:
                found = self._minutes[over] = time.monotonic(), await self._queue.minutes(over)
            return found[1]

    async def timeline(self, job: JobSnapshot) -> list[Event]:
        known = self._timelines.get(job.id)
        if known is not None and known[0] == job:
            return known[1]
        since = None if job.created_at is None else job.created_at - timedelta(seconds=1)
        events = await self._queue.history(job.id, since)
        self._timelines[job.id] = job, events
        if len(self._timelines) > MOST_TIMELINES:
            self._timelines.popitem(last=False)
        return events
