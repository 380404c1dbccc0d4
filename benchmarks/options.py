"""What does each option cost a drain?

The usual drain (one worker, concurrency 100) with one thing changed at a time. Every variant is measured in turn with
the defaults, and set beside them: under 1 is slower. Where a variant costs an add more, that is measured as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks import harness
from benchmarks.drain import drain
from benchmarks.server import Server
from streamq import JobOptions, Queue, Retention, Unique

KEEP_NONE = JobOptions(keep_completed=Retention(count=0))
KEEP_MANY = JobOptions(keep_completed=Retention(count=100_000))
NO_EVENTS = "no events at all"
MOST_FOR_EVENTS = round(1 / 0.85, 3)
"""How much faster a drain without events may be: with them it reaches at least 0.85 of that."""


def unique(number: int) -> JobOptions:
    """Give each job a key of its own, until it has ended."""
    return JobOptions(unique=Unique(f"key-{number}"))


def unique_while_pending(number: int) -> JobOptions:
    """Give each job a key of its own, until it starts."""
    return JobOptions(unique=Unique(f"key-{number}", "pending"))


def once_unique(number: int) -> JobOptions | None:
    """Give only the first job a key."""
    return unique(number) if number == 0 else None


VARIANTS: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("nothing kept of completed jobs", (), {"options": KEEP_NONE}),
    ("all completed jobs kept", (), {"options": KEEP_MANY}),
    ("a result of 100 B, the last 100 kept", (), {"name": "result"}),
    ("a unique key each", (), {"options": unique}),
    ("a unique key each, while pending", (), {"options": unique_while_pending}),
    ("plain jobs of a queue that has had a unique one", (), {"options": once_unique}),
    (NO_EVENTS, (), {"STREAMQ_EVENTS_CAP": "0"}),
    ("appendonly, fsync every second", ("--appendonly", "yes", "--appendfsync", "everysec"), {}),
    ("appendonly, fsync always", ("--appendonly", "yes", "--appendfsync", "always"), {}),
]


async def adding(server: Server, jobs: int, options: Any = None) -> dict[str, float]:
    """Add jobs, a thousand a call, and return the jobs per second and what they cost the server."""
    server.empty()
    async with Queue(harness.QUEUE, server.url) as queue:
        before, start = server.work(), time.perf_counter()
        await harness.fill(queue, jobs, options=options)
        took = time.perf_counter() - start
        return {"rate": jobs / took, "redis_cpu_us": (server.work()["cpu"] - before["cpu"]) / jobs * 1e6}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    for what, arguments, changes in VARIANTS:
        with Server(options.binary) as plain, Server(options.binary, arguments=arguments) as other:
            usual, changed = [], []
            for _ in range(options.reps):
                usual.append(await drain(plain, options.jobs))
                changed.append(await drain(other, options.jobs, **changes))
            rates, base = [one["rate"] for one in changed], [one["rate"] for one in usual]
            verdicts.add(
                f"{what}, beside the defaults", statistics.median(rates), "jobs/s", raw=statistics.median(base),
                ratio=harness.ratio(rates, base), most=MOST_FOR_EVENTS if what == NO_EVENTS else None,
            )  # fmt: skip
            spent, usually = [one["redis_cpu_us"] for one in changed], [one["redis_cpu_us"] for one in usual]
            verdicts.add(
                f"the server's CPU: {what}", statistics.median(spent), "µs/job", raw=statistics.median(usually),
                ratio=harness.ratio(spent, usually),
            )  # fmt: skip
            version = plain.version
    with Server(options.binary) as server:
        plainly, uniquely = [], []
        for _ in range(options.reps):
            plainly.append(await adding(server, options.jobs))
            uniquely.append(await adding(server, options.jobs, unique))
        for what, key, unit in (
            ("add_many", "rate", "jobs/s"),
            ("the server's CPU: add_many", "redis_cpu_us", "µs/job"),
        ):
            with_key, without = [one[key] for one in uniquely], [one[key] for one in plainly]
            verdicts.add(
                f"{what}, a unique key each", statistics.median(with_key), unit, raw=statistics.median(without),
                ratio=harness.ratio(with_key, without),
            )  # fmt: skip
    return verdicts.report(version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=3)
    parser.add_argument("--jobs", type=int, default=20_000)
    harness.main(measure, parser.parse_args())
