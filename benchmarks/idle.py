"""What does a worker cost while it has nothing to do or is held back, and how soon is it there?

The idle worker and the one that a rate limit holds back are watched for some seconds each: their CPU time, and how
often they ask the server. The start is the time from starting the process to the first handler, beside an interpreter
that does nothing; the import is that of `streamq` alone.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import harness, tally
from benchmarks.server import Server
from streamq import Queue, RateLimit


async def watch(server: Server, running: harness.Workers, seconds: float) -> dict[str, float]:
    """Return what the workers and the server use meanwhile: percent of a core, and commands per second."""
    cpu, before, start = running.cpu_seconds, server.work(), time.perf_counter()
    await asyncio.sleep(seconds)
    took, after = time.perf_counter() - start, server.work()
    return {
        "worker": (running.cpu_seconds - cpu) / took * 100,
        "server": (after["cpu"] - before["cpu"]) / took * 100,
        "received": (after["received"] - before["received"]) / took,
    }


async def idle(server: Server, seconds: float) -> dict[str, float]:
    """Watch a worker whose queue is empty."""
    server.empty()
    async with harness.Workers(server) as running:
        await asyncio.sleep(1)  # the start is no part of it
        return await watch(server, running, seconds)


async def limited(server: Server, seconds: float) -> dict[str, float]:
    """Watch a worker that may start 20 of a backlog's jobs a second."""
    server.empty()
    async with Queue(harness.QUEUE, server.url) as queue:
        await queue.set_rate_limit(RateLimit(20, per=1.0))
        await harness.fill(queue, 10_000)
        async with harness.Workers(server) as running:
            await asyncio.sleep(2)  # the first may start at once
            before = tally.counted(server.folder)
            found = await watch(server, running, seconds)
            return {**found, "rate": (tally.counted(server.folder) - before) / seconds}


def run(*command: str) -> float:
    """Return the milliseconds that an interpreter with these arguments takes from start to end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, cwd=harness.ROOT)
    return (time.perf_counter() - start) * 1000


async def first_job(server: Server) -> float:
    """Return the milliseconds from starting a worker's process to the first handler."""
    server.empty()
    tally.clear(server.folder)
    async with Queue(harness.QUEUE, server.url) as queue:
        await queue.add("stamp", {"t": time.monotonic()})
        async with harness.Workers(server):

            async def ran() -> bool:
                return tally.counted(server.folder) > 0

            await harness.until(ran, 30, "the first job")
        (age,) = tally.samples(server.folder)
        return age * 1000


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    with Server(options.binary) as server:
        quiet = await idle(server, options.seconds)
        verdicts.add("an idle worker's CPU", quiet["worker"], "% of a core", most=0.2, of="value")
        verdicts.add("the server's, for it", quiet["server"], "% of a core")
        verdicts.add("an idle worker asks", quiet["received"], "times a second", most=1, of="value")
        held = await limited(server, options.seconds)
        verdicts.add("a limited worker's CPU", held["worker"], "% of a core", most=2, of="value")
        verdicts.add("a limited worker's rate, of 20 allowed", held["rate"], "jobs/s")
        bare = [run("-c", "pass") for _ in range(options.reps)]
        imports = [run("-c", "import streamq") for _ in range(options.reps)]
        own = statistics.median(imports) - statistics.median(bare)
        verdicts.add("import streamq", own, "ms", raw=statistics.median(bare), most=150, of="value")
        starts = [await first_job(server) for _ in range(options.reps)]
        verdicts.add(
            "start of a worker to its first job", statistics.median(starts), "ms", raw=statistics.median(bare),
            most=400, of="value",
        )  # fmt: skip
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    harness.main(measure, parser.parse_args())
