"""How long does the longest script keep the server to itself?

Read from SLOWLOG, whose times are the server's own, after what a queue goes through at its worst: a backlog, many jobs
due at once, a worker lost with all that it held. A preempted server counts its own absence, so a case is repeated and
judged by the quietest repetition's longest script: what is really long is long in each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks import harness
from benchmarks.server import Server
from streamq import JobOptions, Queue, Settings
from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.transitions import TickArgs
from streamq._engine.wire import Wire

SLOW_US = 1_000
LEASE = 1.0


def longest(server: Server) -> tuple[float, str]:
    """Return the milliseconds of the longest script since the last look, and how it begins."""
    slow = [entry for entry in server.client.slowlog_get(10_000) if entry["command"][:4] in (b"EVAL", b"eval")]
    server.client.slowlog_reset()
    if not slow:
        return 0.0, f"none over {SLOW_US / 1000:g} ms"
    worst = max(slow, key=lambda entry: entry["duration"])
    return worst["duration"] / 1000, worst["command"][:60].decode(errors="replace")


async def backlog(server: Server, queue: Queue, jobs: int) -> None:
    """Fill a queue, look at it, and drain a part of it at concurrency 500."""
    await queue.pause()
    await harness.fill(queue, jobs)
    await queue.stats()
    async with harness.Workers(server, concurrency=500):
        await queue.resume()

        async def enough() -> bool:
            return (await queue.stats()).waiting < jobs // 2

        await harness.until(enough, 120, "half of the backlog", every=0.02)


async def due_at_once(server: Server, queue: Queue, jobs: int) -> None:
    """Let a worker meet jobs that all come due in one moment."""
    at = datetime.now(UTC) + timedelta(seconds=1 + jobs / 10_000)
    await harness.fill(queue, jobs, options=JobOptions(run_at=at))
    async with harness.Workers(server, concurrency=500):
        await harness.drained(queue, server, jobs, 120)


async def orphans(server: Server, queue: Queue, jobs: int) -> None:
    """Let a worker meet what another one held when its lease lapsed."""
    await harness.fill(queue, jobs)
    wire = Wire(Endpoint(server.url, 5.0))
    lost = Store(harness.QUEUE, wire, queue.settings)
    args = TickArgs("lost", round(LEASE * 1000), 5, queue.settings.events_cap, queue.settings.dead_cap)
    held = 0
    while held < jobs:
        held += len((await lost.tick(args, 500, ())).claimed)
    await wire.close()
    longest(server)  # what the lost worker took is the backlog's case
    time.sleep(LEASE)
    async with harness.Workers(server, concurrency=500, STREAMQ_MAX_STALLS="5"):

        async def swept() -> bool:
            return bool(server.client.zscore("sq:{bench}:workers", "lost") is None)

        await harness.until(swept, 120, "the sweep", every=0.02)


async def in_one_call(server: Server, queue: Queue, jobs: int) -> None:
    """Add all of a large batch by one `add_many`."""
    await queue.add_many([("noop", harness.payload())] * jobs)


async def less_kept(server: Server, queue: Queue, jobs: int) -> None:
    """Lower the retention of a queue that keeps many completed jobs, by the next job that completes."""
    from streamq import Retention

    await queue.pause()
    await harness.fill(queue, jobs, options=JobOptions(keep_completed=Retention(count=jobs)))
    await queue.add("noop", options=JobOptions(keep_completed=Retention(count=10)))
    async with harness.Workers(server, concurrency=500):
        await queue.resume()
        await harness.drained(queue, server, jobs + 1)


Case = Callable[[Server, Queue, int], Awaitable[None]]
CASES: list[tuple[str, Case, int]] = [
    ("a backlog of {:,}", backlog, 100_000),
    ("{:,} due at once", due_at_once, 20_000),
    ("{:,} orphans", orphans, 20_000),
    ("add_many of {:,}", in_one_call, 20_000),
    ("{:,} kept, then 10", less_kept, 20_000),
]


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    worst: dict[str, Any] = {}
    with Server(options.binary) as server:
        server.client.config_set("slowlog-log-slower-than", SLOW_US)
        server.client.config_set("slowlog-max-len", 10_000)
        for name, case, jobs in CASES:
            maxima = []
            for _ in range(options.reps):
                server.empty()
                server.client.slowlog_reset()
                async with Queue(harness.QUEUE, server.url, settings=Settings(redis_url=server.url)) as queue:
                    await case(server, queue, jobs)
                maxima.append(longest(server))
            what = name.format(jobs)
            worst[what] = {"all_ms": [round(ms, 2) for ms, _ in maxima], "longest": max(maxima)[1]}
            verdicts.add(what, min(ms for ms, _ in maxima), "ms", most=20, of="value")
        verdicts.more["maxima"] = worst
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=4)
    harness.main(measure, parser.parse_args())
