"""One test's stage: a queue, the workers that serve it, the ledger of what they did, and how it must all end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any, cast

import redis

from streamq import Job, JobOptions, Queue, Retention, Settings
from tests.faults.checker import Verdict, Window, check
from tests.faults.ledger import Ledger
from tests.faults.state import base_of, clean_state, counts_of, is_idle
from tests.faults.workers import Fleet, WorkerProcess, eventually
from tests.servers import RedisServer

LONG = os.environ.get("STREAMQ_LONG") == "1"
"""Whether the tests run with the full figures of the incidents instead of the short ones."""

LEASE = 3.0
SWEEP = 0.5
KEEP = Retention(count=1_000_000, age=86_400)
KEEP_ALL = JobOptions(keep_completed=KEEP, keep_failed=KEEP)


def scaled(short: Any, full: Any) -> Any:
    """Return the figure for this run."""
    return full if LONG else short


class Scene:
    """A queue called `faults` on a server of its own, with everything that a test asks of it."""

    def __init__(self, server: RedisServer, direct: redis.Redis, ledger: Ledger, fleet: Fleet) -> None:
        self.server, self.direct, self.ledger, self.fleet = server, direct, ledger, fleet
        self.name = "faults"
        self.base = base_of(self.name)
        self.accepted: list[str] = []
        self._queues: list[Queue] = []
        self.queue = self.open_queue()

    def open_queue(
        self, url: str | redis.asyncio.Redis | None = None, *, timeout: float = 2.0, **options: Any
    ) -> Queue:
        """Return another client of the queue; it is closed with the test."""
        settings = Settings(redis_url=self.server.url, timeout=timeout)
        options.setdefault("defaults", KEEP_ALL)
        queue = Queue(self.name, url or self.server.url, settings=settings, **options)
        self._queues.append(queue)
        return queue

    async def close(self) -> None:
        """Close all clients."""
        for queue in self._queues:
            await queue.close()

    async def add(self, name: str, data: Any = None, *, via: Queue | None = None, **options: Any) -> Job:
        """Add a job and note that it was accepted."""
        job = await (via or self.queue).add(name, data, **options)
        self.note([job.id])
        return job

    async def add_many(self, jobs: Iterable[tuple[str, Any]], *, via: Queue | None = None) -> list[Job]:
        """Add jobs and note that they were accepted."""
        added = await (via or self.queue).add_many(jobs)
        self.note([job.id for job in added])
        return added

    def note(self, job_ids: list[str]) -> None:
        """Note that these were accepted."""
        self.ledger.accept(job_ids)
        self.accepted += job_ids

    async def workers_ready(self, workers: list[WorkerProcess], timeout: float = 15) -> None:
        """Wait until each of these has a lease."""

        def leased() -> int:
            names = cast("list[bytes]", self.direct.zrange(f"{self.base}:workers", 0, -1))
            return sum(any(f"-{worker.pid}-".encode() in name for name in names) for worker in workers)

        await eventually(
            lambda: leased() == len(workers),
            timeout,
            lambda: f"{len(workers)} workers are up: {leased()}; " + "\n".join(w.log_tail(5) for w in workers),
        )

    async def start(self, count: int = 1, **options: Any) -> list[WorkerProcess]:
        """Start worker processes and wait until they are at work."""
        workers = self.fleet.start_many(count, self.name, **options)
        await self.workers_ready(workers)
        return workers

    def now_ms(self) -> int:
        """Return the server's time."""
        seconds, micros = self.direct.time()
        return seconds * 1000 + micros // 1000

    def live_workers(self) -> int:
        """Return how many workers hold a lease now."""
        return self.direct.zcount(f"{self.base}:workers", self.now_ms(), "+inf")

    def starts(self) -> int:
        """Return how many runs have started so far."""
        return self.ledger.count("start")

    def ends(self) -> int:
        """Return how many runs have ended so far."""
        return self.ledger.count("end")

    async def started(self, job: Job, runs: int = 1, timeout: float = 10) -> float:
        """Wait until a job has started so many times; return the monotonic time of that start."""
        await eventually(
            lambda: len(self.ledger.lines("start", job=job.id)) >= runs, timeout, f"job {job.id} starts {runs} times"
        )
        return self.ledger.lines("start", job=job.id)[runs - 1].at

    async def idle(self, timeout: float) -> float:
        """Wait until nothing waits, runs or is delayed; return how long that took."""
        return await eventually(
            lambda: is_idle(self.direct, self.name), timeout, lambda: f"the queue drains; it holds {self.remains()}"
        )

    def remains(self) -> str:
        """Say what is left, for messages."""
        logs = "\n".join(f"--- {w.name}\n{w.log_tail(12)}" for w in self.fleet.workers)
        return f"{counts_of(self.direct, self.name)}\n{logs}"

    def verdict(self) -> Verdict:
        """Judge the ledger."""
        return check(self.ledger.lines())

    def clean(self, *, removed: bool = False) -> None:
        """Assert the clean state that every incident must end in."""
        clean_state(self.server.url, self.name, self.accepted, removed=removed)

    def each_ran_once(self) -> None:
        """Assert that every accepted job ran exactly once, and nothing else did."""
        verdict = self.verdict()
        assert not verdict.lost, f"{len(verdict.lost)} lost: {sorted(verdict.lost)[:10]}"
        assert not verdict.repeated, f"{len(verdict.repeated)} ran again: {list(verdict.repeated.items())[:10]}"
        assert not verdict.unknown, f"{len(verdict.unknown)} nobody asked for: {sorted(verdict.unknown)[:10]}"
        assert not verdict.unfinished, f"{len(verdict.unfinished)} did not end"

    def nothing_lost(self, windows: Iterable[Window] = ()) -> Verdict:
        """Assert that every accepted job came to an end, never by two at once, twice only where a fault explains it."""
        verdict = self.verdict()
        assert not verdict.lost, f"{len(verdict.lost)} lost: {sorted(verdict.lost)[:10]}"
        assert not verdict.overlapping, verdict.overlapping[:5]
        unexplained = verdict.duplicates_outside(list(windows))
        assert not unexplained, f"{len(unexplained)} ran again for no reason: {unexplained[:5]}"
        return verdict

    def orphan(self, count: int, *, lane: int = 3, worker: str = "lost-worker", expired_ms: int = 1) -> int:
        """Have a worker that does not exist claim up to `count` waiting jobs, and its lease lapse."""
        key = f"{self.base}:lane:{lane}"
        try:
            self.direct.xgroup_create(key, "w", "0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        pipe = self.direct.pipeline(transaction=True)
        pipe.xreadgroup("w", worker, {key: ">"}, count=count)
        pipe.zadd(f"{self.base}:workers", {worker: self.now_ms() - expired_ms})
        found = pipe.execute()[0]
        return len(found[0][1]) if found else 0


async def gather_within(timeout: float, *calls: Any) -> list[Any]:
    """Await all calls together and return results and exceptions; fail the test if they take longer than `timeout`."""
    async with asyncio.timeout(timeout):
        return await asyncio.gather(*calls, return_exceptions=True)
