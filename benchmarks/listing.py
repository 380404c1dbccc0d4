"""What do statistics, listings and bulk operations cost with a million waiting jobs and a million foreign keys?

Looks are timed from the caller's side, in rounds of which the quietest counts (the one with the lowest 95th
percentile); the server's own CPU time, which no neighbour disturbs, stands beside them. For bulk operations the longest
script counts, by the server's own clock (SLOWLOG): that is how long they keep anybody else waiting. No look may scan
keys; the server's own counts say so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks import harness
from benchmarks.script_time import SLOW_US, longest
from benchmarks.server import Server
from streamq import JobOptions, JobState, Queue, Retention, Settings

LOOKS, ROUNDS = 100, 5
KEPT = 100_000
KEEP = Retention(count=10_000_000)


async def furnish(server: Server, queue: Queue, jobs: int, foreign: int, kept: int) -> None:
    """Fill the database: foreign keys, ended and delayed jobs, then the waiting ones."""
    for start in range(0, foreign, 10_000):
        server.client.mset({f"foreign:{n}": "x" * 20 for n in range(start, min(start + 10_000, foreign))})
    for name, count in (("noop", kept), ("fail", 1_000)):
        await harness.fill(
            queue, count, name=name, options=JobOptions(keep_completed=KEEP, keep_failed=KEEP, attempts=1)
        )

    async def ended() -> bool:
        stats = await queue.stats()
        return stats.completed + stats.failed >= kept + 1_000

    async with harness.Workers(server, concurrency=500, STREAMQ_DEAD_CAP=str(KEPT)):
        await harness.until(ended, 120, "the end of what is kept")
    await harness.fill(queue, kept, options=JobOptions(delay=86_400))
    await harness.fill(queue, jobs)


async def timed(look: Callable[[], Awaitable[Any]]) -> list[float]:
    """Return the milliseconds of each look of the quietest round."""
    rounds = []
    for _ in range(ROUNDS):
        found = []
        for _ in range(LOOKS):
            start = time.perf_counter()
            await look()
            found.append((time.perf_counter() - start) * 1000)
        rounds.append(found)
    return min(rounds, key=p95)


def p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


async def looks(queue: Queue) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return what is looked at, by name."""
    second = (await queue.jobs(JobState.WAITING)).next
    deep = (await queue.jobs(JobState.WAITING, newest_first=True, count=10_000)).next
    (some, *_) = await queue.jobs(JobState.WAITING, newest_first=True, count=1)
    return {
        "stats": queue.stats,
        "get_job of a waiting job": lambda: queue.get_job(some.id),
        "jobs, first 50 waiting": lambda: queue.jobs(JobState.WAITING),
        "jobs, next 50 waiting": lambda: queue.jobs(JobState.WAITING, second or 0),
        "jobs, newest 50 waiting": lambda: queue.jobs(JobState.WAITING, newest_first=True),
        "jobs, 50 waiting behind 10,000": lambda: queue.jobs(JobState.WAITING, deep or 0, newest_first=True),
        "jobs, 50 active": lambda: queue.jobs(JobState.ACTIVE),
        "jobs, 50 delayed": lambda: queue.jobs(JobState.DELAYED),
        "jobs, 50 completed behind 50,000": lambda: queue.jobs(JobState.COMPLETED, KEPT // 2),
        "jobs, 50 failed": lambda: queue.jobs(JobState.FAILED, newest_first=True),
        "dead_letters, newest 50": lambda: queue.dead_letters(newest_first=True),
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n\n")[0])
    with Server(options.binary) as server:
        server.empty()
        async with Queue(harness.QUEUE, server.url, settings=Settings(redis_url=server.url, dead_cap=KEPT)) as queue:
            await furnish(server, queue, options.jobs, options.foreign, min(KEPT, options.jobs))
            server.client.config_resetstat()
            for name, look in (await looks(queue)).items():
                before = server.work()["cpu"]
                took = await timed(look)
                cpu = (server.work()["cpu"] - before) * 1000 / (LOOKS * ROUNDS)
                verdicts.add(f"{name}, median", statistics.median(took), "ms")
                verdicts.add(f"{name}, 95th percentile", p95(took), "ms", most=5, of="value")
                verdicts.add(f"{name}, the server's CPU", cpu, "ms")
            counted = server.client.info("commandstats")
            scans = sum(figures["calls"] for name, figures in counted.items() if name.endswith(("scan", "_keys")))
            verdicts.add("KEYS and SCAN during all looks", scans, "calls", most=0, of="value")

            server.client.config_set("slowlog-log-slower-than", SLOW_US)
            server.client.config_set("slowlog-max-len", 10_000)
            bulk: dict[str, Callable[[], Awaitable[Any]]] = {
                "retry_many of 1,000": queue.retry_many,
                f"clean of {KEPT:,} completed": lambda: queue.clean(0, None, JobState.COMPLETED),
                f"clean of {KEPT:,} delayed": lambda: queue.clean(0, None, JobState.DELAYED),
                f"clean of {KEPT:,} waiting": lambda: queue.clean(0, KEPT, JobState.WAITING),
                "drain of the rest": queue.drain,
                "obliterate": queue.obliterate,
            }
            for name, call in bulk.items():
                server.client.slowlog_reset()
                start, before = time.perf_counter(), server.work()["cpu"]
                server.client.config_resetstat()
                await call()
                verdicts.add(f"{name}, all of it", time.perf_counter() - start, "s")
                cpu = (
                    (server.work()["cpu"] - before)
                    * 1000
                    / server.client.info("commandstats")["cmdstat_evalsha"]["calls"]
                )
                verdicts.add(f"{name}, the server's CPU per script", cpu, "ms", most=5, of="value")
                verdicts.add(f"{name}, longest script", longest(server)[0], "ms", most=20, of="value")
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs that wait (default: a million)")
    parser.add_argument("--foreign", type=int, default=1_000_000, help="keys of somebody else (default: a million)")
    harness.main(measure, parser.parse_args())
