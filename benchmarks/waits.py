"""What do jobs cost that wait or compute: for a service, for a core, for their time, for another attempt?

I/O-bound: jobs that sleep 10 ms, so that `concurrency` x 100 a second is the limit. CPU-bound: jobs of some
milliseconds in processes, one for each core, beside `concurrent.futures` with as many. Lateness: from the moment a
delayed job is due to its handler's start. Storms: every job fails once, after 100 ms goes the whole way round, and
completes; or every job fails for good.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from typing import Any

from benchmarks import harness, tally
from benchmarks.drain import drain
from benchmarks.jobs import spin
from benchmarks.server import Server
from streamq import Backoff, JobOptions, Queue

CORES = os.cpu_count() or 1
ROUNDS, SPINS = 100_000, 400
STORMS = {
    "fail-once": "retry storm of 10,000, two attempts each",
    "fail": "10,000 jobs that fail for good",
}
AHEAD = 1.5
"""Seconds from adding the delayed jobs to the first one's time: the adding must be over by then."""


async def lateness(server: Server, jobs: int, spread: float) -> list[float]:
    """Return the milliseconds that jobs, due evenly over `spread` seconds, started late."""
    server.empty()
    async with harness.Workers(server), Queue(harness.QUEUE, server.url) as queue:
        first = time.time() + AHEAD
        specs = []
        for number in range(jobs):
            due = round(first + spread * number / jobs, 3)
            specs.append(("due", {"t": due}, JobOptions(run_at=datetime.fromtimestamp(due, UTC))))
        await queue.add_many(specs)

        async def started() -> bool:
            return tally.counted(server.folder) >= jobs

        await harness.until(started, AHEAD + spread + 30, f"{jobs} delayed jobs")
        return [late * 1000 for late in tally.samples(server.folder)]


async def spins(server: Server, jobs: int) -> float:
    """Return the jobs per second that compute, in as many processes as there are cores."""
    server.empty()
    async with Queue(harness.QUEUE, server.url) as queue:
        data = {"number": ROUNDS}
        await queue.add_many([("spin", data)] * CORES)  # the first ones start the processes
        async with harness.Workers(server, concurrency=CORES):
            await harness.drained(queue, server, CORES)
            start = time.perf_counter()
            await queue.add_many([("spin", data)] * jobs)
            await harness.drained(queue, server, CORES + jobs)
            return jobs / (time.perf_counter() - start)


def spins_alone(jobs: int) -> float:
    """Return the same of the standard library's pool of processes."""
    with ProcessPoolExecutor(CORES, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(spin, [ROUNDS] * CORES))
        start = time.perf_counter()
        list(pool.map(spin, [ROUNDS] * jobs))
        return jobs / (time.perf_counter() - start)


async def storm(server: Server, jobs: int, name: str) -> dict[str, float]:
    """Return the jobs per second that fail, once or for good, and what each costs the server and the worker."""
    server.empty()
    async with Queue(harness.QUEUE, server.url) as queue:
        await queue.pause()
        await harness.fill(queue, jobs, name=name, options=JobOptions(backoff=Backoff.fixed(0.1)))
        async with harness.Workers(server) as running:
            before, used, start = server.work()["cpu"], running.cpu_seconds, time.perf_counter()
            await queue.resume()
            await harness.drained(queue, server, jobs)
            return {
                "rate": jobs / (time.perf_counter() - start),
                "redis_cpu_us": (server.work()["cpu"] - before) / jobs * 1e6,
                "worker_cpu_us": (running.cpu_seconds - used) / jobs * 1e6,
            }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    with Server(options.binary) as server:
        for concurrency in (100, 500):
            limit = concurrency * 100
            rates = [
                (await drain(server, limit, concurrency=concurrency, name="sleep"))["rate"] for _ in range(options.reps)
            ]
            rate = statistics.median(rates)
            verdicts.add(
                f"10 ms sleeps, concurrency {concurrency}, beside the limit", rate, "jobs/s", raw=limit,
                ratio=rate / limit,
            )  # fmt: skip
        pools = [(await spins(server, SPINS), spins_alone(SPINS)) for _ in range(options.reps)]
        verdicts.rates(
            "CPU-bound, a process for each core, beside concurrent.futures",
            [ours for ours, _ in pools], [theirs for _, theirs in pools],
        )  # fmt: skip
        for what, jobs, spread in (("one a time, 50 a second", 150, 3.0), ("2,000 due in one moment", 2_000, 0.0)):
            late = [ms for _ in range(options.reps) for ms in await lateness(server, jobs, spread)]
            for share in (0.5, 0.95, 0.99):
                verdicts.add(f"late, {what}, p{share * 100:.0f}", harness.percentile(late, share), "ms")
            verdicts.add(f"late, {what}, earliest", min(late), "ms")
        for name, what in STORMS.items():
            storms = [await storm(server, 10_000, name) for _ in range(options.reps)]
            for key, of, unit in (
                ("rate", "", "jobs/s"),
                ("redis_cpu_us", ", the server's CPU", "µs/job"),
                ("worker_cpu_us", ", the worker's CPU", "µs/job"),
            ):
                verdicts.add(what + of, statistics.median(one[key] for one in storms), unit)
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=3)
    harness.main(measure, parser.parse_args())
