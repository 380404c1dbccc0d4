"""What does a job of a flow cost beside a plain one?

Flows of ten children and a parent that does nothing with their results, beside as many plain jobs: added (a flow a
call, a hundred calls at once, for both), and drained by one worker at concurrency 100. A third measure drains plain
jobs in a queue that has had a flow.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

from benchmarks import harness
from benchmarks.server import Server
from streamq import FlowJob, Queue

CHILDREN = 10
AT_ONCE = 100


def one_flow(data: Any) -> FlowJob:
    """Return a parent and its children."""
    return FlowJob("noop", data, children=[FlowJob("noop", data) for _ in range(CHILDREN)])


async def add_flows(queue: Queue, flows: int) -> None:
    """Add flows, many at once."""
    data = harness.payload(harness.PAYLOAD)
    for at in range(0, flows, AT_ONCE):
        await asyncio.gather(*(queue.add_flow(one_flow(data)) for _ in range(min(AT_ONCE, flows - at))))


async def add_plain(queue: Queue, flows: int) -> None:
    """Add as many plain jobs in as many calls."""
    data = harness.payload(harness.PAYLOAD)
    for at in range(0, flows, AT_ONCE):
        calls = min(AT_ONCE, flows - at)
        await asyncio.gather(*(queue.add_many([("noop", data)] * (CHILDREN + 1)) for _ in range(calls)))


async def add_plain_beside_a_flow(queue: Queue, flows: int) -> None:
    """Add one flow, and plain jobs."""
    await add_flows(queue, 1)
    await add_plain(queue, flows - 1)


async def run(server: Server, flows: int, add: Any) -> dict[str, float]:
    """Add and drain; return the rates per job and what a job costs both sides."""
    server.empty()
    jobs = flows * (CHILDREN + 1)
    async with Queue(harness.QUEUE, server.url) as queue:
        await queue.pause()
        before, start = server.work(), time.perf_counter()
        await add(queue, flows)
        added, between = time.perf_counter() - start, server.work()
        async with harness.Workers(server, count=1, concurrency=100) as running:
            used, start = running.cpu_seconds, time.perf_counter()
            await queue.resume()
            await harness.drained(queue, server, jobs)
            took, after = time.perf_counter() - start, server.work()
            return {
                "added": jobs / added,
                "add_cpu_us": (between["cpu"] - before["cpu"]) / jobs * 1e6,
                "drained": jobs / took,
                "drain_cpu_us": (after["cpu"] - between["cpu"]) / jobs * 1e6,
                "worker_cpu_us": (running.cpu_seconds - used) / jobs * 1e6,
            }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    with Server(options.binary) as server:
        found = await harness.interleave(
            options.reps,
            {
                "plain": lambda: run(server, options.flows, add_plain),
                "flows": lambda: run(server, options.flows, add_flows),
                "beside": lambda: run(server, options.flows, add_plain_beside_a_flow),
            },
        )
        for what, which in (("flows of 10 children", "flows"), ("plain jobs of a queue that has had a flow", "beside")):
            for key, unit, text in (
                ("added", "jobs/s", "added"),
                ("add_cpu_us", "µs/job", "the server's CPU, added"),
                ("drained", "jobs/s", "drained"),
                ("drain_cpu_us", "µs/job", "the server's CPU, drained"),
                ("worker_cpu_us", "µs/job", "the worker's CPU, drained"),
            ):
                ours, plain = [one[key] for one in found[which]], [one[key] for one in found["plain"]]
                verdicts.add(
                    f"{what}: {text}", statistics.median(ours), unit, raw=statistics.median(plain),
                    ratio=harness.ratio(ours, plain),
                )  # fmt: skip
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=3)
    parser.add_argument("--flows", type=int, default=2_000)
    harness.main(measure, parser.parse_args())
