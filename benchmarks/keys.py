"""What do keys cost, and how fair are they?

Drains of jobs with keys beside the usual one, measured in turn; the memory of a job that is parked; and how many jobs
of a tenant with very many start before the first one of another tenant, which is added while the worker is at it.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks import harness, memory
from benchmarks.drain import drain
from benchmarks.server import Server
from streamq import JobOptions, Queue

LONE = JobOptions(key="tenant-1")
HUNDRED = [JobOptions(key=f"tenant-{n}") for n in range(100)]
CONCURRENCY = 10
EVENTS = "100000"
"""Entries of the event stream: it has to tell of all that happens while the other tenant waits."""


def of_a_hundred(number: int) -> JobOptions:
    """Return the options of one job: a hundred keys in turn."""
    return HUNDRED[number % len(HUNDRED)]


async def starts_before(server: Server, backlog: int) -> int:
    """Return how many jobs of a tenant with `backlog` jobs start before one of another tenant, once that is there."""
    server.empty()
    async with Queue(harness.QUEUE, server.url) as queue:
        await harness.fill(queue, backlog, options=JobOptions(key="big"))
        async with harness.Workers(server, count=1, concurrency=CONCURRENCY, STREAMQ_EVENTS_CAP=EVENTS):
            events = queue.events(after="0-0")
            async for event in events:
                if event.kind == "active":
                    break
            job = await queue.add("noop", None, options=JobOptions(key="small"))
            starts, added = 0, False
            async for event in events:
                added = added or (event.job_id == job.id and event.kind == "added")
                if event.kind == "active" and event.job_id == job.id:
                    return starts
                starts += int(added and event.kind == "active")
    raise RuntimeError("the events ended before the job had started")


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    with Server(options.binary) as server:
        found = await harness.interleave(
            options.reps,
            {
                "plain": lambda: drain(server, options.jobs),
                "one key": lambda: drain(server, options.jobs, options=LONE),
                "a hundred keys": lambda: drain(server, options.jobs, options=of_a_hundred),  # type: ignore[arg-type]
            },
        )
        base = found.pop("plain")
        for what, runs in found.items():
            for figure, of, unit in (("", "rate", "jobs/s"), ("the server's CPU: ", "redis_cpu_us", "µs/job")):
                ours, theirs = [one[of] for one in runs], [one[of] for one in base]
                verdicts.add(
                    f"{figure}drain of {what}, beside jobs without a key", statistics.median(ours), unit,
                    raw=statistics.median(theirs), ratio=harness.ratio(ours, theirs),
                )  # fmt: skip
        plain = await memory.waiting(server, options.jobs)
        for what, chosen in (("parked", LONE), ("one of a hundred keys", of_a_hundred)):
            bytes_each = await memory.waiting(server, options.jobs, chosen)  # type: ignore[arg-type]
            verdicts.add(f"memory of a job that waits, {what}", bytes_each, "B", raw=plain, ratio=bytes_each / plain)
        starts = [await starts_before(server, options.backlog) for _ in range(options.reps)]
        verdicts.add(
            f"starts of a tenant with {options.backlog:,} jobs before the first one of another, at most",
            max(starts), "jobs", most=CONCURRENCY + 1, of="value",
        )  # fmt: skip
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=3)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--backlog", type=int, default=100_000)
    harness.main(measure, parser.parse_args())
