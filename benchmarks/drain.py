"""How fast does a worker drain a full queue of jobs that do nothing?

One worker process, all bookkeeping on (events, lease, retention of 100), beside a process that reads 100 entries a
turn with XREADGROUP and then sends XACK and XDEL in one pipeline. The clock runs from `resume` to the last outcome.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, NamedTuple

from benchmarks import harness, raw
from benchmarks.server import Server
from streamq import JobOptions, Queue


async def drain(server: Server, jobs: int, *, workers: int = 1, concurrency: int = 100, size: int = harness.PAYLOAD,
                name: str = "noop", options: JobOptions | None = None, **env: str) -> dict[str, float]:  # fmt: skip
    """Fill a queue, drain it and return the jobs per second, with what it cost the server and the workers."""
    server.empty()
    async with Queue(harness.QUEUE, server.url) as queue:
        await queue.pause()
        await harness.fill(queue, jobs, name=name, size=size, options=options)
        async with harness.Workers(server, count=workers, concurrency=concurrency, **env) as running:
            before, used, start = server.work(), running.cpu_seconds, time.perf_counter()
            await queue.resume()
            await harness.drained(queue, server, jobs)
            took = time.perf_counter() - start
            after = server.work()
            return {
                "rate": jobs / took,
                "redis_cpu_us": (after["cpu"] - before["cpu"]) / jobs * 1e6,
                "worker_cpu_us": (running.cpu_seconds - used) / jobs * 1e6,
                "commands": (after["commands"] - before["commands"]) / jobs,
                "received": (after["received"] - before["received"]) / jobs,
                "worker_mb": running.peak_memory / 1e6,
            }


async def drain_raw(server: Server, jobs: int, size: int = harness.PAYLOAD) -> dict[str, float]:
    """Return the same of the yardstick."""
    server.empty()
    await raw.fill(server.url, harness.body(size), jobs)
    before = server.work()
    found = await harness.run_raw(server, "drain", jobs)
    after = server.work()
    return {
        "rate": found["rate"],
        "redis_cpu_us": (after["cpu"] - before["cpu"]) / jobs * 1e6,
        "worker_cpu_us": found["cpu_us"],
        "commands": (after["commands"] - before["commands"]) / jobs,
    }


class Case(NamedTuple):
    """What is drained, by whom, and the bar on the ratio, if there is one."""

    workers: int = 1
    concurrency: int = 100
    size: int = harness.PAYLOAD
    least: float | None = None

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
        return f"{workers}, concurrency {self.concurrency}, {self.size:,} B"


WITH_BAR = [Case(least=0.25), Case(concurrency=5, least=0.1)]
MORE = [
    Case(concurrency=1), Case(concurrency=500), Case(workers=2), Case(workers=2, concurrency=500),
    Case(size=1_000), Case(size=10_000),
]  # fmt: skip


async def compare(server: Server, case: Case, jobs: int, reps: int) -> dict[str, list[dict[str, float]]]:
    """Drain as `case` says and as the yardstick does, in turn."""
    return await harness.interleave(
        reps,
        {
            "raw": lambda: drain_raw(server, jobs, case.size),
            "streamq": lambda: drain(server, jobs, workers=case.workers, concurrency=case.concurrency, size=case.size),
        },
    )


def cpu(of: list[dict[str, float]]) -> list[float]:
    """Return the microseconds of CPU per job, the server's and the workers' together."""
    return [one["redis_cpu_us"] + one["worker_cpu_us"] for one in of]


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    with Server(options.binary) as server:
        for case in WITH_BAR + (MORE if options.all else []):
            jobs = options.jobs // 4 if case.concurrency < 50 or case.size > 5_000 else options.jobs
            found = await compare(server, case, jobs, options.reps)
            us, them = found["streamq"], found["raw"]
            verdicts.rates(str(case), [one["rate"] for one in us], [one["rate"] for one in them], least=case.least)
            verdicts.add(
                f"CPU of both sides, {case}", statistics.median(cpu(us)), "µs/job", raw=statistics.median(cpu(them)),
                ratio=harness.ratio(cpu(us), cpu(them)),
            )  # fmt: skip
            parts = {key: statistics.median(one[key] for one in us) for key in us[0]}
            verdicts.more.setdefault("of_which", {})[str(case)] = {k: float(f"{v:.4g}") for k, v in parts.items()}
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=40_000)
    parser.add_argument("--all", action="store_true", help="also two workers, other concurrencies and payloads")
    harness.main(measure, parser.parse_args())
