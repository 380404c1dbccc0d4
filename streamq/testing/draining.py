"""Run what a queue holds until nothing is left to do: a real worker, and an end that is known rather than waited for.

Its life: a worker starts; after each of its ticks the queue is asked whether anything waits, runs or is due; when
nothing does, the worker stops.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from streamq.job import JobState
from streamq.observer import Observer
from streamq.policy import Seconds, seconds
from streamq.processor import Processors
from streamq.queue import Queue, QueueStats
from streamq.worker import Worker

PATIENCE = 30.0
"""Seconds that a queue may take to become idle unless the caller says otherwise."""
MOST_KEYS = 10_000


class Drained(msgspec.Struct, frozen=True):
    """How the attempts of a `drain` ended: `done`, `failed` for good, to be `retried`, `put_off`, or `cancelled`."""

    done: int
    failed: int
    retried: int
    put_off: int
    """Snoozed, rate limited, handed back, waiting for children that they added, or of a name that no processor has."""
    cancelled: int = 0

    @property
    def total(self) -> int:
        """All attempts."""
        return self.done + self.failed + self.retried + self.put_off + self.cancelled


class _Ticks(Observer):
    """Counts a worker's ticks and how its attempts end."""

    def __init__(self) -> None:
        self.count = 0
        self.outcomes: Counter[str] = Counter()
        self._more = asyncio.Event()

    def ticked(self, queue: str, settled: int, claimed: int) -> None:
        self.count += 1
        self._more.set()

    def ended(self, queue: str, processor: str, outcome: str, ran: float, waited: float, attempt: int) -> None:
        self.outcomes[outcome] += 1

    async def after(self, count: int) -> None:
        """Wait for a tick later than this one."""
        while self.count <= count:
            self._more.clear()
            await self._more.wait()


async def drain(
    queue: Queue,
    processors: Processors | Mapping[str, Callable[..., Any]] | Callable[..., Any],
    *,
    concurrency: int = 1,
    timeout: Seconds = PATIENCE,
) -> Drained:
    """Run the queue's jobs until none waits, runs or is due, and return how their attempts ended.

    Jobs run one at a time and in order unless `concurrency` says otherwise; what they add runs too. Jobs that are
    delayed stay so, retries with a backoff included: move the clock (`time_travel`) and drain again. A paused queue
    is idle when nothing runs, and so is one of which only paused keys' jobs wait. Batches that are not full run as soon
    as nothing waits. Failures raise nothing: look at the
    jobs, or at `Drained.failed`.

    Raises:
        TimeoutError: It was not idle in time; what still ran was handed back.
    """
    limit = seconds("timeout", timeout)
    ticks = _Ticks()
    worker = Worker(
        queue.name, processors, redis=queue.redis, shards=queue.shards, settings=queue.settings,
        concurrency=concurrency, observer=ticks,
    )  # fmt: skip
    async with worker:
        try:
            async with asyncio.timeout(limit):
                await _until_idle(queue, ticks, worker)
        except TimeoutError:
            stats = await queue.stats()
            await worker.stop(grace=0)
            raise TimeoutError(
                f"queue {queue.name} was not idle within {limit:g} s: {stats.waiting} jobs waited, "
                f"{stats.active} ran, {stats.delayed} were delayed"
            ) from None
    told = ticks.outcomes
    put_off = told["release"] + told["hold"] + told["wait"]
    return Drained(told["done"], told["fail"], told["retry"], put_off, told["cancel"])


async def _until_idle(queue: Queue, ticks: _Ticks, worker: Worker) -> None:
    while True:
        seen = ticks.count
        if await _is_idle(queue, worker):
            return
        await ticks.after(seen)


async def _is_idle(queue: Queue, worker: Worker) -> bool:
    # Asked in the order in which jobs move on: what is no longer due when asked first waits or runs when asked later.
    due = await _is_due(queue)
    stats = await queue.stats()
    if stats.active:
        if not due and stats.active == worker.running and (stats.paused or await _none_waits(queue, stats)):
            worker.flush_batches()
        return False
    return bool(stats.paused) or (await _none_waits(queue, stats) and not due)


async def _is_due(queue: Queue) -> bool:
    now = await queue._store.now_ms() / 1000
    slots = [s.next_at for s in await queue.schedules() if s.next_at is not None and not s.paused]
    starts = [job.run_at for job in await queue.jobs(JobState.DELAYED, count=1) if job.run_at is not None]
    return any(at.timestamp() <= now for at in (*slots, *starts))


async def _none_waits(queue: Queue, stats: QueueStats) -> bool:
    """Whether no job waits but those of paused keys."""
    if not stats.waiting:
        return True
    return stats.waiting <= sum(key.jobs for key in await queue.keys(MOST_KEYS) if key.paused)
