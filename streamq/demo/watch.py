"""Follow the demo's queues by their events: move the bars, remember each job's endings, and wait for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from streamq.demo.show import Bars
from streamq.events import Event
from streamq.job import JobSnapshot
from streamq.queue import Queue

Key = tuple[str, str]
"""A job: its queue and its id."""
_ENDS = ("completed", "failed", "removed", "cancelled")


class Watch:
    """What the events have told so far.

    Attributes:
        endings: Each job's terminal events; more than one would be a job that ended twice.
        stalled_at: When a job was first taken from a dead worker, by `time.monotonic`.
    """

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        self._queues = queues
        self.endings: dict[Key, list[str]] = {}
        self.stalled_at: float | None = None
        self._lines: dict[str, set[Key]] = {}
        self._line_of: dict[Key, str] = {}
        self._bars: Bars | None = None
        self._changed, self._events = asyncio.Condition(), 0

    def show_on(self, bars: Bars | None, lines: Mapping[str, Iterable[Key]] | None = None) -> None:
        """Move these bars from now on: each title stands for one job or for several."""
        self._bars = bars
        self._lines = {title: set(keys) for title, keys in (lines or {}).items()}
        self._line_of = {key: title for title, keys in self._lines.items() for key in keys}

    async def ended(self, keys: Iterable[Key]) -> None:
        """Wait until each of the jobs has ended."""
        wanted = set(keys)
        async with self._changed:
            await self._changed.wait_for(lambda: wanted <= self.endings.keys())

    async def progressed(self, key: Key, percent: int) -> bool:
        """Wait until the job is that far; False if it has ended instead."""
        while key not in self.endings:
            seen = self._events
            job = await self.snapshot(key)
            if job is not None and _percent(job) >= percent:
                return True
            async with self._changed:
                await self._changed.wait_for(lambda seen=seen: self._events != seen)  # type: ignore[misc]
        return False

    async def snapshot(self, key: Key) -> JobSnapshot | None:
        """Read a job."""
        return await self._queues[key[0]].get_job(key[1])

    async def refresh(self) -> None:
        """Move every bar to where its jobs are now."""
        for title in self._lines:
            await self._move(title)

    async def follow(self, queue: Queue) -> None:
        """Take in one queue's events, for ever."""
        async for event in queue.events(after="0-0"):
            key = (queue.name, event.job_id)
            self._note(key, event)
            if (title := self._line_of.get(key)) is not None:
                await self._move(title)
            async with self._changed:
                self._events += 1
                self._changed.notify_all()

    def _note(self, key: Key, event: Event) -> None:
        if event.kind in _ENDS:
            self.endings.setdefault(key, []).append(event.kind)
        elif event.kind == "stalled" and self.stalled_at is None:
            self.stalled_at = time.monotonic()

    async def _move(self, title: str) -> None:
        keys = self._lines.get(title)
        if self._bars is None or not keys:
            return
        if len(keys) > 1:
            self._bars.move_group(title, sum(key in self.endings for key in keys), len(keys))
            return
        (key,) = keys
        if (job := await self.snapshot(key)) is not None and self._bars is not None:
            self._bars.move(title, job)


@asynccontextmanager
async def watching(queues: Mapping[str, Queue]) -> AsyncIterator[Watch]:
    """Follow the queues while the block runs."""
    watch = Watch(queues)
    tasks = [asyncio.ensure_future(watch.follow(queue)) for queue in queues.values()]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _percent(job: JobSnapshot) -> int:
    value = job.progress.get("percent", 0) if isinstance(job.progress, dict) else job.progress
    return int(value) if isinstance(value, int | float) else 0
