"""How fast are jobs added: one by one, concurrently, in bulk?

Beside XADD by redis-py: one by one, and in pipelines of 100. What streamq adds is encoded and checked on the
way.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

from benchmarks import harness, raw
from benchmarks.server import Server
from streamq import Queue


async def one_by_one(queue: Queue, jobs: int, data: Any) -> float:
    """Return the jobs per second of sequential `add` calls."""
    start = time.perf_counter()
    for _ in range(jobs):
        await queue.add("noop", data)
    return jobs / (time.perf_counter() - start)


async def concurrently(queue: Queue, jobs: int, data: Any, at_once: int = 100) -> float:
    """Return the jobs per second of `at_once` concurrent `add` calls."""
    start = time.perf_counter()
    for _ in range(0, jobs, at_once):
        await asyncio.gather(*(queue.add("noop", data) for _ in range(at_once)))
    return jobs / (time.perf_counter() - start)


async def in_bulk(queue: Queue, jobs: int, data: Any, batch: int = 1000) -> float:
    """Return the jobs per second of `add_many` calls."""
    specs = [("noop", data)] * batch
    start = time.perf_counter()
    for _ in range(0, jobs, batch):
        await queue.add_many(specs)
    return jobs / (time.perf_counter() - start)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    lone, many = options.jobs // 20, options.jobs
    data, body = harness.payload(options.size), harness.body(options.size)
    with Server(options.binary) as server:
        async with Queue(harness.QUEUE, server.url) as queue, raw.connect(server.url) as client:
            await queue.add("noop", data)
            await client.ping()

            async def cleared(rate: Any) -> float:
                found: float = await rate
                server.empty()
                return found

            found = await harness.interleave(
                options.reps,
                {
                    "raw bulk": lambda: cleared(raw.xadd_pipelined(client, body, many)),
                    "bulk": lambda: cleared(in_bulk(queue, many, data)),
                    "raw one by one": lambda: cleared(raw.xadd_each(client, body, lone)),
                    "one by one": lambda: cleared(one_by_one(queue, lone, data)),
                    "concurrently": lambda: cleared(concurrently(queue, lone * 5, data)),
                },
            )
    verdicts.rates("add_many of 1,000, beside pipelines of 100 XADDs", found["bulk"], found["raw bulk"], least=1.5)
    verdicts.rates("add one by one, beside XADD", found["one by one"], found["raw one by one"], least=0.7)
    verdicts.add(
        "100 concurrent adds, beside add one by one", statistics.median(found["concurrently"]), "jobs/s",
        ratio=harness.ratio(found["concurrently"], found["one by one"]), least=4,
    )  # fmt: skip
    return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=harness.PAYLOAD, help="bytes of the payload")
    harness.main(measure, parser.parse_args())
