"""What does a batch gain?

A full queue is drained by one worker whose handler takes one job, and by one whose handler takes up to a hundred: of
jobs that do nothing, that insert a row into SQLite (a file, committed as durably as by default), and that wait 10 ms
for a service which takes one or a hundred at a time.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness
from benchmarks.drain import drain
from benchmarks.server import Server


class Work(NamedTuple):
    """What jobs do: the name of those that are run one by one, how many of them, and how many handlers at once."""

    text: str
    name: str
    share: float
    concurrency: int


WORK = [
    Work("jobs that do nothing", "noop", 1.0, 100),
    Work("a row into SQLite", "insert", 0.05, 4),
    Work("a call of 10 ms", "sleep", 0.5, 20),
]


async def one_by_one(server: Server, work: Work, jobs: int, suffix: str = "") -> dict[str, float]:
    """Drain jobs, one a call unless the suffix says otherwise."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # a disk: the server's folder may be in memory
        return await drain(
            server, jobs, name=work.name + suffix, concurrency=work.concurrency,
            STREAMQ_BENCH_DATABASE=str(Path(folder) / "rows.db"),
        )  # fmt: skip


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    with Server(options.binary) as server:
        for work in WORK:
            jobs = round(options.jobs * work.share)
            found = await harness.interleave(
                options.reps,
                {
                    "one": functools.partial(one_by_one, server, work, jobs),
                    "many": functools.partial(one_by_one, server, work, jobs, "-batch"),
                },
            )
            for key, unit, text in (("rate", "jobs/s", ""), ("worker_cpu_us", "µs/job", ", the worker's CPU")):
                many, one = ([each[key] for each in found[which]] for which in ("many", "one"))
                verdicts.add(
                    f"{work.text}, a hundred a call beside one{text}", statistics.median(many), unit,
                    raw=statistics.median(one), ratio=harness.ratio(many, one),
                )  # fmt: skip
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=3)
    parser.add_argument("--jobs", type=int, default=40_000)
    harness.main(measure, parser.parse_args())
