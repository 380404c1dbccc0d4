"""How much of Redis' memory does a job take, and what stays when all have run?

Bytes per job are the growth of `used_memory` divided by the jobs: the event stream and all that a queue
keeps are in it.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from benchmarks import harness
from benchmarks.server import Server, binaries, keys_left
from streamq import JobOptions, Queue, Retention, Settings

NEVER = datetime(2100, 1, 1, tzinfo=UTC)


async def waiting(server: Server, jobs: int, options: JobOptions | None = None) -> float:
    """Return the bytes per job that waits (or, with a delay among its options, is delayed)."""
    server.empty()
    before = server.memory()
    async with Queue(harness.QUEUE, server.url) as queue:
        await harness.fill(queue, jobs, options=options)
    return (server.memory() - before) / jobs


async def ended(server: Server, jobs: int, name: str, keep: Retention) -> float:
    """Return the bytes per job that has ended as `name`'s jobs do, all of them kept if `keep` says so."""
    server.empty()
    before = server.memory()
    async with Queue(harness.QUEUE, server.url) as queue:
        await queue.pause()
        await harness.fill(queue, jobs, name=name, options=JobOptions(keep_completed=keep, keep_failed=keep))
        async with harness.Workers(server, STREAMQ_DEAD_CAP=str(jobs)):
            await queue.resume()
            await harness.drained(queue, server, jobs)
    return (server.memory() - before) / jobs


async def active(server: Server, jobs: int) -> float:
    """Return the bytes per job that a worker holds."""
    server.empty()
    before = server.memory()
    async with Queue(harness.QUEUE, server.url) as queue:
        await harness.fill(queue, jobs, name="hold")
        async with harness.Workers(server, concurrency=jobs):

            async def held() -> bool:
                return (await queue.stats()).active >= jobs

            await harness.until(held, 60, f"{jobs} active jobs")
            return (server.memory() - before) / jobs


async def after_a_drain(server: Server, jobs: int) -> dict[str, Any]:
    """Return what is left when jobs that keep nothing have all run and their worker has gone."""
    server.empty()
    before = server.memory()
    async with Queue(harness.QUEUE, server.url, settings=Settings(events_cap=1_000)) as queue:
        await queue.pause()
        await harness.fill(queue, jobs, options=JobOptions(keep_completed=Retention(count=0)))
        async with harness.Workers(server, STREAMQ_EVENTS_CAP="1000"):
            await queue.resume()
            await harness.drained(queue, server, jobs)
    left = keys_left(server.client)
    return {"jobs": jobs, "bytes": server.memory() - before, "keys": left}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    jobs, versions = options.jobs, []
    for binary in [options.binary] if options.binary else binaries():
        with Server(binary) as server:
            versions.append(server.version)

            def add(what: str, value: float, unit: str = "B/job", version: str = server.version, **bar: Any) -> None:
                verdicts.add(f"{what}, {version}", value, unit, of="value", **bar)

            add("waiting", await waiting(server, jobs), most=140)
            add("delayed", await waiting(server, jobs, JobOptions(run_at=NEVER)), most=420)
            left = await after_a_drain(server, jobs)
            names = [key["key"] for key in left["keys"]]
            jobs_left = [name for name in names if ":job:" in name or ":log:" in name or name.endswith(":completed")]
            add("left of jobs after a drain with count=0", len(jobs_left), "keys", most=0)
            verdicts.more.setdefault("left_after_a_drain", {})[server.version] = left
            if options.all:
                add("waiting, own id", await with_own_ids(server, jobs // 5))
                add("active", await active(server, min(jobs, 5_000)))
                add("completed", await ended(server, jobs // 5, "noop", Retention(count=jobs)))
                add("failed, with its dead letter", await ended(server, jobs // 5, "fail", Retention(count=jobs)))
                add("dead letter alone", await ended(server, jobs // 5, "fail", Retention(count=0)))
    return verdicts.report(", ".join(versions))


async def with_own_ids(server: Server, jobs: int) -> float:
    """Return the bytes per waiting job that has an id of its own."""
    server.empty()
    before, data = server.memory(), harness.payload()
    async with Queue(harness.QUEUE, server.url) as queue:
        for at in range(0, jobs, 1000):
            await queue.add_many([("noop", data, JobOptions(job_id=f"order-{at + i:08}")) for i in range(1000)])
    return (server.memory() - before) / jobs


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--all", action="store_true", help="every state, not only those with a bar")
    harness.main(measure, parser.parse_args())
