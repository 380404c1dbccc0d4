"""Run the workers of one process: until a signal, the end of the parent, or a limit; with metrics and health beside.

Who starts it: `python -m streamq.worker`, in a process of its own or as a child of `Processes`.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
import threading
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streamq.worker.processes import watch_lifeline
from streamq.worker.systemd import notify, watchdog_seconds
from streamq.worker.worker import Worker

if TYPE_CHECKING:  # prometheus-client is imported only where metrics are asked for
    from streamq.metrics import Metrics
    from streamq.worker.health import HealthServer

log = logging.getLogger("streamq.worker")

LOOK = 0.5
"""Seconds between looks at what a process has used up."""
GAUGES_EVERY = 1.0
"""Seconds between readings of the gauges where a parent serves them."""


class Limits(msgspec.Struct, frozen=True):
    """After what a process is recycled: so many attempts, or so many megabytes."""

    max_jobs: int | None = None
    max_memory: int | None = None

    def spent(self, workers: Sequence[Worker]) -> str:
        """Say what is used up; "" if nothing is."""
        ended = sum(worker.ended for worker in workers)
        if self.max_jobs is not None and ended >= self.max_jobs:
            return f"{ended:,} jobs"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1_048_576)
        if self.max_memory is not None and peak >= self.max_memory:
            return f"{peak:,.0f} MB"
        return ""


class Serving:
    """The workers of this process and all that goes on beside them."""

    def __init__(self, workers: Sequence[Worker], limits: Limits, metrics: Metrics | None) -> None:
        self._workers, self._limits, self._metrics = workers, limits, metrics
        self._signals = 0
        self._ended = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # Health -----------------------------------------------------------------------------------------------------------

    def alive(self) -> str:
        """Say which worker's loop stands still; "" if all turn. May be called from any thread."""
        return ", ".join(f"the loop of queue {w.queue} stands still" for w in self._workers if not w.alive)

    def ready(self) -> str:
        """Say why this process takes no jobs; "" if it does."""
        if self._signals:
            return "stopping"
        return ", ".join(f"no tick of queue {w.queue} within its lease" for w in self._workers if not w.healthy)

    def read_gauges(self) -> None:
        """Set the gauges of all workers."""
        if self._metrics is not None:
            for worker in self._workers:
                self._metrics.read(worker)

    # Running ----------------------------------------------------------------------------------------------------------

    async def run(self, health: HealthServer | None) -> int:
        """Run until stopped; return the exit code: 1 if a worker could not stop cleanly."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number.name)
        watch_lifeline(lambda: loop.call_soon_threadsafe(self._on_signal, "the parent process is gone"))
        self._begin(self._recycle(), self._limits != Limits())
        if self._metrics is not None and health is None:
            # A thread, so that the gauges tell of a loop that stands still.
            threading.Thread(target=self._read_gauges_for_ever, name="streamq-gauges", daemon=True).start()
        self._begin(self._tell_systemd(), notify("STATUS=starting"))
        try:
            ends = await asyncio.gather(*(worker.run() for worker in self._workers), return_exceptions=True)
        finally:
            self._ended.set()
            for task in self._tasks:
                task.cancel()
            if health is not None:
                await asyncio.to_thread(health.close)
        failed = [end for end in ends if isinstance(end, BaseException)]
        for error in failed:
            log.error("a worker did not stop cleanly: %s", error)
        return 1 if failed else 0

    def _begin(self, role: Coroutine[Any, Any, None], wanted: bool) -> None:
        if wanted:
            self._tasks.add(asyncio.create_task(role))
        else:
            role.close()

    def _on_signal(self, name: str) -> None:
        self._signals += 1
        log.info("%s: %s", name, "stopping" if self._signals == 1 else "stopping at once")
        notify("STOPPING=1")
        for worker in self._workers:
            self._tasks.add(asyncio.ensure_future(worker.stop(grace=None if self._signals == 1 else 0)))

    async def _recycle(self) -> None:
        # A process's memory tells nobody when it grows.
        while not (spent := self._limits.spent(self._workers)):  # noqa: ASYNC110
            await asyncio.sleep(LOOK)
        self._on_signal(f"recycled: {spent}")

    def _read_gauges_for_ever(self) -> None:
        while not self._ended.wait(GAUGES_EVERY):
            self.read_gauges()

    async def _tell_systemd(self) -> None:
        for worker in self._workers:
            await worker.ready()
        notify("READY=1\nSTATUS=running")
        beat = watchdog_seconds()
        while beat is not None:
            if not self.alive():
                notify("WATCHDOG=1")
            await asyncio.sleep(beat)
