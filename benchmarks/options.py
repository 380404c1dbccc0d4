"""What does each option cost a drain?

The usual drain (one worker, concurrency 100) with one thing changed at a time. Every variant is measured in turn with
the defaults, and set beside them: under 1 is slower.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks import harness
from benchmarks.drain import drain
from benchmarks.server import Server
from streamq import JobOptions, Retention

KEEP_NONE = JobOptions(keep_completed=Retention(count=0))
KEEP_MANY = JobOptions(keep_completed=Retention(count=100_000))
NO_EVENTS = "no events at all"
MOST_FOR_EVENTS = round(1 / 0.85, 3)
"""How much faster a drain without events may be: with them it reaches at least 0.85 of that."""
VARIANTS: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("nothing kept of completed jobs", (), {"options": KEEP_NONE}),
    ("all completed jobs kept", (), {"options": KEEP_MANY}),
    ("a result of 100 B, the last 100 kept", (), {"name": "result"}),
    (NO_EVENTS, (), {"STREAMQ_EVENTS_CAP": "0"}),
    ("appendonly, fsync every second", ("--appendonly", "yes", "--appendfsync", "everysec"), {}),
    ("appendonly, fsync always", ("--appendonly", "yes", "--appendfsync", "always"), {}),
]


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
    return verdicts.report(version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=3)
    parser.add_argument("--jobs", type=int, default=20_000)
    harness.main(measure, parser.parse_args())
