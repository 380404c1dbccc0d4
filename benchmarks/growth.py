"""Does it stay flat: with the jobs that wait, the number of workers, the number of queues?

The figures are the server's own (microseconds of a script by INFO commandstats), since its speed is what growth could
take away; rates of several workers and queues are by the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import Any

from benchmarks import harness, tally
from benchmarks.drain import drain
from benchmarks.server import Server
from streamq import Queue
from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.transitions import Outcome, TickArgs
from streamq._engine.wire import Wire

DAY_MS = 86_400_000
CALLS = 500
PER_TICK = 100


def _script_us(server: Server) -> float:
    stats = server.client.info("commandstats")
    return float(sum(stats[name]["usec"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats))


async def at_size(server: Server, queue: Queue, waiting: int, reps: int) -> dict[str, float]:
    """Fill up to `waiting` jobs; return the server's microseconds per add, per job claimed and settled, per count."""
    have = (await queue.stats()).waiting
    await harness.fill(queue, waiting - have)
    wire = Wire(Endpoint(server.url, 5.0))
    store = Store(harness.QUEUE, wire, queue.settings)
    args = TickArgs("growth", 15_000, 3, queue.settings.events_cap, queue.settings.dead_cap)
    found: dict[str, list[float]] = {"add": [], "claim and settle": [], "count": []}
    for _ in range(reps):
        before = _script_us(server)
        for _ in range(CALLS):
            await queue.add("noop", harness.payload())
        found["add"].append((_script_us(server) - before) / CALLS)
        before = _script_us(server)
        outcomes: list[Outcome] = []
        for want in [PER_TICK] * 10 + [0]:
            reply = await store.tick(args, want, outcomes)
            outcomes = [
                Outcome("done", claim.lane, claim.entry, claim.job_id, b"", 100, DAY_MS, reply.now_ms, 1)
                for claim in reply.claimed
            ]
        found["claim and settle"].append((_script_us(server) - before) / (PER_TICK * 10))
        before = _script_us(server)
        for _ in range(CALLS):
            await queue.stats()
        found["count"].append((_script_us(server) - before) / CALLS)
    await wire.close()
    return {what: statistics.median(values) for what, values in found.items()}


async def with_queues(server: Server, queues: int, jobs: int) -> dict[str, float]:
    """Spread `jobs` over `queues` queues that one worker process serves; return its rate, threads and memory."""
    server.empty()
    names = [f"bench{number}" for number in range(queues)]
    per_queue = max(jobs // queues, 1)
    shut = asyncio.Semaphore(50)

    async def fill(name: str) -> None:
        async with shut, Queue(name, server.url) as queue:
            await queue.pause()
            await queue.add_many([("noop", harness.payload())] * per_queue)

    async def resume(name: str) -> None:
        async with shut, Queue(name, server.url) as queue:
            await queue.resume()

    await asyncio.gather(*(fill(name) for name in names))
    async with harness.Workers(server, queues=names, concurrency=20) as running:
        await asyncio.sleep(1)
        cpu, server_cpu, start = running.cpu_seconds, server.work()["cpu"], time.perf_counter()
        await asyncio.sleep(3)
        idle = time.perf_counter() - start
        idle_worker, idle_server = (running.cpu_seconds - cpu) / idle, (server.work()["cpu"] - server_cpu) / idle
        start = time.perf_counter()
        await asyncio.gather(*(resume(name) for name in names))

        async def ran() -> bool:
            return tally.counted(server.folder) >= per_queue * queues

        await harness.until(ran, 120, "all queues drained")
        return {
            "rate": per_queue * queues / (time.perf_counter() - start),
            "idle worker CPU": idle_worker * 100,
            "idle server CPU": idle_server * 100,
            "MB": running.peak_memory / 1e6,
        }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    sizes = [1_000, 10_000, 100_000, 1_000_000] + ([10_000_000] if options.huge else [])
    with Server(options.binary) as server, Server(options.binary) as fresh:
        async with Queue(harness.QUEUE, server.url) as queue:
            first: dict[str, float] = {}
            for size in sizes:
                costs = await at_size(server, queue, size, options.reps)
                verdicts.more.setdefault("by_size", {})[size] = costs
                for what, us in costs.items():
                    verdicts.add(
                        f"{what}, {size:,} waiting", us, "µs", raw=first.setdefault(what, us),
                        ratio=us / first[what], most=1.5 if size > sizes[0] else None,
                    )  # fmt: skip
        for workers in (1, 2, 4, 8, 16) + ((64,) if options.huge else ()):
            rates = [
                (await drain(fresh, options.jobs, workers=workers, concurrency=20))["rate"] for _ in range(options.reps)
            ]
            verdicts.add(f"drain by {workers} workers, concurrency 20 each", statistics.median(rates), "jobs/s")
            verdicts.more.setdefault("by_workers", {})[workers] = statistics.median(rates)
        for queues in (1, 10, 100) + ((1_000,) if options.huge else ()):
            found = await with_queues(fresh, queues, options.jobs)
            verdicts.more.setdefault("by_queues", {})[queues] = found["rate"]
            verdicts.add(f"drain of {queues:,} queues by one process", found["rate"], "jobs/s")
            verdicts.add(f"idle with {queues:,} queues, its CPU", found["idle worker CPU"], "%")
            verdicts.add(f"idle with {queues:,} queues, the server's CPU", found["idle server CPU"], "%")
            verdicts.add(f"{queues:,} queues, its memory", found["MB"], "MB")
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.set_defaults(reps=3)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--huge", action="store_true", help="also 10,000,000 waiting jobs, 64 workers and 1,000 queues")
    harness.main(measure, parser.parse_args())
