"""How fast does a worker drain a full queue of jobs that do nothing?

One worker process, all bookkeeping on (events, lease, retention of 100), beside a process that reads 100 entries a
turn with XREADGROUP and then sends XACK and XDEL in one pipeline. The clock runs from `resume` to the last outcome.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks import harness, raw
from benchmarks.server import Server
from streamq import Queue


async def drain(server: Server, jobs: int, *, workers: int = 1, concurrency: int = 100, size: int = harness.PAYLOAD,
                name: str = "noop", **env: str) -> dict[str, float]:  # fmt: skip
    """Fill a queue, drain it and return the jobs per second, with what it cost the server and the workers."""
    server.empty()
    async with Queue(harness.QUEUE, server.url) as queue:
        await queue.pause()
        await harness.fill(queue, jobs, name=name, size=size)
        async with harness.Workers(server, count=workers, concurrency=concurrency, **env) as running:
            before, cpu, start = server.work(), running.cpu_seconds, time.perf_counter()
            await queue.resume()
            await harness.drained(queue, server, jobs)
            took = time.perf_counter() - start
            after = server.work()
            return {
                "rate": jobs / took,
                "redis_cpu_us": (after["cpu"] - before["cpu"]) / jobs * 1e6,
                "worker_cpu_us": (running.cpu_seconds - cpu) / jobs * 1e6,
                "commands": (after["commands"] - before["commands"]) / jobs,
                "received": (after["received"] - before["received"]) / jobs,
                "worker_mb": running.peak_memory / 1e6,
            }


async def drain_raw(server: Server, jobs: int, size: int = harness.PAYLOAD) -> float:
    """Return the entries per second of the yardstick."""
    server.empty()
    await raw.fill(server.url, harness.body(size), jobs)
    return (await harness.run_raw(server, "drain", jobs))["rate"]


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    cases: list[tuple[int, int, int, float | None]] = [(1, 100, harness.PAYLOAD, 0.25), (1, 5, harness.PAYLOAD, 0.1)]
    if options.all:
        cases += [(1, 500, harness.PAYLOAD, None), (2, 100, harness.PAYLOAD, None), (2, 500, harness.PAYLOAD, None)]
        cases += [(1, 100, 1_000, None), (1, 100, 10_000, None)]
    with Server(options.binary) as server:
        for workers, concurrency, size, least in cases:
            jobs = options.jobs // 4 if concurrency < 50 or size > 5_000 else options.jobs

            async def ours(workers: int = workers, concurrency: int = concurrency, size: int = size,
                           jobs: int = jobs) -> float:  # fmt: skip
                return (await drain(server, jobs, workers=workers, concurrency=concurrency, size=size))["rate"]

            async def theirs(size: int = size, jobs: int = jobs) -> float:
                return await drain_raw(server, jobs, size)

            found = await harness.interleave(options.reps, {"raw": theirs, "streamq": ours})
            what = f"{workers} worker{'s' * (workers > 1)}, concurrency {concurrency}, {size} B"
            verdicts.rates(what, found["streamq"], found["raw"], least=least)
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=40_000)
    parser.add_argument("--all", action="store_true", help="also two workers, concurrency 500, 1 kB and 10 kB payloads")
    harness.main(measure, parser.parse_args())
