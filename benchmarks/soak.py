"""Does anything grow while millions of jobs run?

    python -m benchmarks.soak [--jobs 2000000 | --huge]

One worker runs from the first job to the last, and is looked at from outside a hundred times: memory, descriptors,
threads. A producer adds jobs in bulk and keeps some ten thousands of them waiting; one in twenty has a result, one in
two hundred fails for good, as many fail once. At half of the jobs a second worker joins, is then stopped, a third one
takes its place, and that one is killed: consumers must be those of live workers each time. What has ended is kept as
by default, so the server's memory is compared without the keys that are left, and each of these must be one that
`docs/keys.md` says stays.

A worker's growth is the slope of a least-squares line through the second half of its samples, per million jobs that
it ran itself; its bar needs a million jobs to mean anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import statistics
import time
from collections import Counter
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from benchmarks import harness, tally
from benchmarks.server import Server, keys_left
from streamq import Queue
from streamq._engine import keys

BATCH, BACKLOG, SAMPLES, WARM_UP = 5_000, 50_000, 100, 1_000
LEASE_MS = 15_000
BASE = keys.base(harness.QUEUE)
STAYS = re.compile(
    re.escape(BASE) + r":(id|lane:[1-4]|meta|minutes|events|workers|wake|completed|failed|dead|producer:.+|job:.+)"
)
"""The keys that a queue may have in which nothing waits, runs or is delayed. Records are those of the kept jobs."""


class Sample(NamedTuple):
    """How things stood when the first worker had run `jobs` jobs; memory in bytes."""

    jobs: int
    rss: int
    uss: int
    descriptors: int
    threads: int
    producer_uss: int
    server: int
    keys: int


def slope(samples: list[Sample], field: str) -> float:
    """Return how many MB a million jobs add."""
    jobs = [one.jobs for one in samples]
    return statistics.linear_regression(jobs, [getattr(one, field) for one in samples]).slope


def chosen(count: int) -> list[tuple[str, Any]]:
    """Return a batch of all kinds of jobs."""
    data = harness.payload()
    kinds = {0: "fail", 100: "fail-once"}
    return [(kinds.get(n % 200, "result" if n % 20 == 10 else "noop"), data) for n in range(count)]


class Soak:
    """A run: the producer, and who looks on."""

    def __init__(self, server: Server, queue: Queue, workers: harness.Workers, jobs: int) -> None:
        self._server, self._queue, self._workers, self._jobs = server, queue, workers, jobs
        self._pid = workers.pids[0]
        self._worker, self._producer = psutil.Process(self._pid), psutil.Process(os.getpid())
        self.samples: list[Sample] = []
        self.consumers: list[dict[str, Any]] = []

    async def run(self) -> float:
        """Add all jobs while they are drained, until the last has ended; return the jobs per second."""
        start, added, batch = time.perf_counter(), 0, chosen(BATCH)
        guests: asyncio.Task[None] | None = None
        look_at = 0.0
        while added < self._jobs or not await self._ended():
            if added < self._jobs and (await self._queue.stats()).waiting < BACKLOG:
                added += len(await self._queue.add_many(batch[: self._jobs - added]))
            else:
                await asyncio.sleep(0.02)
            if (ran := tally.counted(self._server.folder)) >= look_at:
                self._look()
                look_at = ran + self._jobs / SAMPLES
            if guests is None and added >= self._jobs / 2:
                guests = asyncio.create_task(self._guests())
        rate = self._jobs / (time.perf_counter() - start)
        if guests is not None:
            await guests
        return rate

    async def _ended(self) -> bool:
        stats = await self._queue.stats()
        return not (stats.waiting or stats.active or stats.delayed)

    def _look(self) -> None:
        with self._worker.oneshot():
            memory = self._worker.memory_full_info()
            sample = Sample(
                jobs=tally.counted(self._server.folder, self._pid), rss=memory.rss, uss=memory.uss,
                descriptors=self._worker.num_fds(), threads=self._worker.num_threads(),
                producer_uss=self._producer.memory_full_info().uss,
                server=self._server.memory(), keys=int(self._server.client.dbsize()),
            )  # fmt: skip
        self.samples.append(sample)

    async def _guests(self) -> None:
        """Let a worker join and stop, and another one join and die."""
        (second,) = await self._workers.start()
        await self.count_consumers("a second one has joined")
        await self._workers.stop(second)
        await self.count_consumers("it was stopped")
        (third,) = await self._workers.start()
        await self.count_consumers("a third one has joined")
        await self._workers.stop(third, signal.SIGKILL)
        await self.count_consumers("it was killed")

    async def count_consumers(self, when: str) -> None:
        """Note how many there are; a dead worker's may stay for a lease and a sweep."""
        live = len(self._workers.pids)

        async def agree() -> bool:
            return len(self._consumers()) == live == (await self._queue.stats()).workers

        start = time.perf_counter()
        with contextlib.suppress(TimeoutError):
            await harness.until(agree, 2 * LEASE_MS / 1000, when, every=0.05)
        found = {"when": when, "consumers": len(self._consumers()), "live": live}
        self.consumers.append({**found, "seconds": round(time.perf_counter() - start, 2)})

    def _consumers(self) -> set[bytes]:
        found: set[bytes] = set()
        for lane in keys.lanes(BASE):
            if self._server.client.exists(lane):
                found |= {one["name"] for one in self._server.client.xinfo_consumers(lane, keys.GROUP)}
        return found - {b"spare"}


async def at_rest(server: Server) -> tuple[int, list[dict[str, Any]]]:
    """Return the bytes that the server uses beside its keys, and the keys."""
    await asyncio.sleep(3)  # the server gives back the buffers of quiet clients within two seconds
    found = [key for key in keys_left(server.client) if key["bytes"] is not None]  # None: it ended while we looked
    return server.memory() - sum(key["bytes"] for key in found), found


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    jobs = 10_000_000 if options.huge else options.jobs
    with Server(options.binary) as server:
        neighbours = harness.Neighbours()
        async with harness.Workers(server) as workers, Queue(harness.QUEUE, server.url) as queue:
            await harness.fill(queue, WARM_UP)
            await harness.drained(queue, server, WARM_UP)
            memory, _ = await at_rest(server)
            soak = Soak(server, queue, workers, jobs)
            rate = await soak.run()
            await soak.count_consumers("the end")
            memory_after, left = await at_rest(server)
        harness.disturbances.append(neighbours.share())
    judge(verdicts, soak, memory_after - memory, left)
    verdicts.add("jobs", jobs, "jobs")
    verdicts.add("rate, with the producer and two guests", rate, "jobs/s")
    verdicts.more.update(samples=[one._asdict() for one in soak.samples], consumers=soak.consumers)
    verdicts.more["keys_left"] = Counter(key["key"].removeprefix(BASE).split(":")[1] for key in left)
    return verdicts.report(server.version)


def judge(verdicts: harness.Verdicts, soak: Soak, server_growth: int, left: list[dict[str, Any]]) -> None:
    """Note each figure beside its bar."""
    half = len(soak.samples) // 2
    early, late = soak.samples[:half], soak.samples[half:]
    for what, field in (("worker, RSS", "rss"), ("worker, USS", "uss"), ("producer, USS", "producer_uss")):
        verdicts.add(f"{what}, growth per million jobs", slope(late, field), "MB", most=1, of="value")
    verdicts.add("worker, RSS at the end", late[-1].rss / 1e6, "MB", raw=early[0].rss / 1e6)
    for field in ("descriptors", "threads"):
        most, before = (max(getattr(one, field) for one in part) for part in (late, early))
        verdicts.add(f"worker, {field} more than in the first half", most - before, "", most=0, of="value")
        verdicts.add(f"worker, {field}", most, "", raw=before)
    verdicts.add(
        "server, memory beside its keys, more than at the start", server_growth / 1e6, "MB", most=1, of="value"
    )
    verdicts.add("server, memory of the keys that stay", sum(key["bytes"] for key in left) / 1e6, "MB")
    unknown = [key["key"] for key in left if not STAYS.fullmatch(key["key"])]
    records = sum(":job:" in key["key"] for key in left)
    verdicts.add("keys left that are to go", len(unknown), "keys", most=0, of="value")
    verdicts.add("records left (100 completed, 500 failed)", records, "keys", most=600, of="value")
    off = max(abs(one["consumers"] - one["live"]) for one in soak.consumers)
    verdicts.add("consumers beside live workers, largest difference", off, "", most=0, of="value")


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=2_000_000)
    parser.add_argument("--huge", action="store_true", help="10,000,000 jobs")
    harness.main(measure, parser.parse_args())
