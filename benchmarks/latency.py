"""How long is it from `add` to the handler's start?

Producer and consumer are processes of their own; both read the monotonic clock that a machine's processes share. Beside
it: XADD to a process that waits in XREADGROUP BLOCK. Idle means a job every 10 ms; half load means half of the rate
that producer and worker reach together when the producer adds ten jobs at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from benchmarks import harness, raw, tally
from benchmarks.server import Server
from streamq import Queue

PAUSE = 0.01
BURST = 10
Send = Callable[[], Awaitable[object]]


async def paced(send: Send, jobs: int, rate: float | None) -> None:
    """Call `send` `jobs` times: every 10 ms, or ten at a time, at `rate` a second."""
    due, burst = time.perf_counter(), 1 if rate is None else BURST
    for at in range(0, jobs, burst):
        await asyncio.gather(*(send() for _ in range(min(burst, jobs - at))))
        due += PAUSE if rate is None else burst / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def ages(server: Server, jobs: int) -> list[float]:
    """Wait for `jobs` samples; return them in milliseconds."""

    async def all_there() -> bool:
        return tally.counted(server.folder) >= jobs

    await harness.until(all_there, 60, f"{jobs} hand-overs")
    return [age * 1000 for age in tally.samples(server.folder)]


async def ours(server: Server, jobs: int, rate: float | None) -> list[float]:
    """Return the milliseconds from `add` to the handler's start, one of each job."""
    server.empty()
    async with harness.Workers(server), Queue(harness.QUEUE, server.url) as queue:
        await paced(lambda: queue.add("stamp", {"t": time.monotonic()}), jobs, rate)
        return await ages(server, jobs)


@contextlib.asynccontextmanager
async def raw_consumer(server: Server) -> AsyncIterator[None]:
    """Run the yardstick's consumer; ready when entered."""
    tally.clear(server.folder)
    await raw.fill(server.url, b"", 0)
    command = [sys.executable, "-m", "benchmarks.raw", "consume", server.url]
    process = subprocess.Popen(command, env=harness.environment(server), cwd=harness.ROOT)
    try:
        async with raw.connect(server.url) as client:

            async def ready() -> bool:
                return bool(await client.exists(raw.READY))

            await harness.until(ready, 30, "the yardstick's consumer")
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


async def theirs(server: Server, jobs: int, rate: float | None) -> list[float]:
    """Return the yardstick's milliseconds, one of each entry."""
    server.empty()
    async with raw_consumer(server), raw.connect(server.url) as client:
        await paced(
            lambda: client.xadd(raw.STREAM, {"d": struct.pack("<d", time.monotonic()) + harness.body()}), jobs, rate
        )
        return await ages(server, jobs)


async def throughput(server: Server, jobs: int) -> float:
    """Return the jobs per second that one producer, adding without a pause, and one worker reach together."""
    server.empty()
    async with harness.Workers(server), Queue(harness.QUEUE, server.url) as queue:
        start = time.perf_counter()
        for _ in range(0, jobs, BURST):
            await asyncio.gather(*(queue.add("noop", {"t": time.monotonic()}) for _ in range(BURST)))
        await harness.drained(queue, server, jobs)
        return jobs / (time.perf_counter() - start)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    with Server(options.binary) as server:
        idle = await harness.interleave(
            options.reps,
            {
                "raw": lambda: theirs(server, options.jobs, None),
                "streamq": lambda: ours(server, options.jobs, None),
            },
        )
        for share, most in ((0.5, 1.6), (0.95, None), (0.99, None)):
            us = [harness.percentile(ages, share) for ages in idle["streamq"]]
            them = [harness.percentile(ages, share) for ages in idle["raw"]]
            verdicts.add(
                f"idle, p{share * 100:.0f}", statistics.median(us), "ms", raw=statistics.median(them),
                ratio=harness.ratio(us, them), most=most,
            )  # fmt: skip
        # Beside the idle figures only: the yardstick's client, which takes a connection per concurrent XADD, can't
        # send at this rate.
        half = await throughput(server, 20_000) / 2
        loaded = [await ours(server, int(half * 2), half) for _ in range(max(options.reps // 2, 1))]
        for share in (0.5, 0.95, 0.99):
            value = statistics.median(harness.percentile(ages, share) for ages in loaded)
            verdicts.add(f"half load ({half:,.0f} jobs/s), p{share * 100:.0f}", value, "ms")
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="hand-overs per repetition on an idle worker")
    harness.main(measure, parser.parse_args())
