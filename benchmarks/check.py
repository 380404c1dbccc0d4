"""Has it become slower? Compares this tree with the committed baseline, by ratios to redis-py in the same run.

CPU time per job (both sides together) stands for speed wherever it can: neighbours on the machine change it little. A
figure that is more than 15 % worse than the baseline is measured again, twice, and its best try counts.
Ends with 1 if one is still worse. `--update` writes a new baseline.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from benchmarks import harness, latency, memory, raw
from benchmarks.drain import cpu, drain, drain_raw
from benchmarks.server import Server
from streamq import JobOptions, Queue

BASELINE = Path(__file__).parent / "baseline.json"
LOSS = 0.15
TRIES = 3


class Check(NamedTuple):
    """A ratio to the yardstick, and whether less of it is better."""

    measure: Callable[[Server], Awaitable[float]]
    less: bool = True


async def _cost(server: Server, jobs: int, work: Callable[[], Awaitable[object]]) -> float:
    """Return the microseconds of CPU per job that this process and the server spend on `work`."""
    server.empty()
    before, mine = server.work()["cpu"], time.process_time()
    await work()
    return (time.process_time() - mine + server.work()["cpu"] - before) / jobs * 1e6


async def adding(server: Server, how: str) -> float:
    """Compare what it costs to add jobs, `how` saying in which way."""
    jobs = {"bulk": 20_000, "concurrently": 10_000, "one by one": 3_000}[how]
    data, body = harness.payload(), harness.body()
    async with Queue(harness.QUEUE, server.url) as queue, raw.connect(server.url) as client:
        await queue.add("noop", data)
        await client.ping()

        async def ours() -> None:
            if how == "bulk":
                await harness.fill(queue, jobs)
            elif how == "concurrently":
                for _ in range(0, jobs, 100):
                    await asyncio.gather(*(queue.add("noop", data) for _ in range(100)))
            else:
                for _ in range(jobs):
                    await queue.add("noop", data)

        async def theirs() -> None:
            if how == "one by one":
                await raw.xadd_each(client, body, jobs)
            else:
                await raw.xadd_pipelined(client, body, jobs)

        ratios = [await _cost(server, jobs, ours) / await _cost(server, jobs, theirs) for _ in range(5)]
    return statistics.median(ratios)


async def draining(server: Server, concurrency: int, figure: str) -> float:
    """Compare a drain: its CPU time, or the best rate of three."""
    us, them = [], []
    for _ in range(3):
        them.append(await drain_raw(server, 20_000))
        us.append(await drain(server, 20_000, concurrency=concurrency))
    if figure == "rate":
        return max(one["rate"] for one in us) / max(one["rate"] for one in them)
    return min(cpu(us)) / min(cpu(them))


async def handing_over(server: Server) -> float:
    """Compare the median latency on an idle worker."""
    us, them = await latency.ours(server, 150, None), await latency.theirs(server, 150, None)
    return statistics.median(us) / statistics.median(them)


async def holding(server: Server, options: JobOptions | None) -> float:
    """Compare the memory of a job that waits (or is delayed) with that of a bare stream entry."""
    jobs = 20_000
    ours = await memory.waiting(server, jobs, options)
    server.empty()
    before = server.memory()
    await raw.fill(server.url, harness.body(), jobs)
    return ours / ((server.memory() - before) / jobs)


CHECKS = {
    "add_many of 1,000, CPU per job": Check(functools.partial(adding, how="bulk")),
    "100 concurrent adds, CPU per job": Check(functools.partial(adding, how="concurrently")),
    "add one by one, CPU per job": Check(functools.partial(adding, how="one by one")),
    "drain, concurrency 100, CPU per job": Check(functools.partial(draining, concurrency=100, figure="CPU")),
    "drain, concurrency 5, CPU per job": Check(functools.partial(draining, concurrency=5, figure="CPU")),
    "drain, concurrency 100, best rate": Check(functools.partial(draining, concurrency=100, figure="rate"), less=False),
    "idle latency, p50": Check(handing_over),
    "memory per waiting job": Check(functools.partial(holding, options=None)),
    "memory per delayed job": Check(functools.partial(holding, options=JobOptions(run_at=memory.NEVER))),
}


def loss(check: Check, now: float, base: float) -> float:
    """Return by what share a figure is worse than the baseline; below zero is better."""
    return now / base - 1 if check.less else 1 - now / base


async def run(options: argparse.Namespace) -> int:
    """Measure, compare, print; return the exit code."""
    base: dict[str, float] = {} if options.update else json.loads(BASELINE.read_text())["ratios"]
    found: dict[str, float] = {}
    worse = []
    with Server(options.binary) as server:
        print(f"{'ratio to redis-py':45} {'baseline':>9} {'now':>9} {'worse by':>9}   ({server.version})")
        for name, check in CHECKS.items():
            tries = [await check.measure(server) for _ in range(TRIES if options.update else 1)]
            while name in base and loss(check, tries[-1], base[name]) > LOSS and len(tries) < TRIES:
                tries.append(await check.measure(server))
            found[name] = statistics.median(tries) if options.update else (min if check.less else max)(tries)
            lost = loss(check, found[name], base[name]) if name in base else 0.0
            said = f"{base[name]:9.3f}" if name in base else f"{'new':>9}"
            mark = "  WORSE" if lost > LOSS else f"  (try {len(tries)})" if len(tries) > 1 else ""
            print(f"{name:45} {said} {found[name]:9.3f} {lost:9.1%}{mark}", flush=True)
            if lost > LOSS:
                worse.append(name)
        if options.update:
            kept: dict[str, Any] = {"server": server.version, **harness.machine()}
            kept["ratios"] = {name: round(ratio, 4) for name, ratio in found.items()}
            BASELINE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    if worse:
        print(f"worse than the baseline by more than {LOSS:.0%}: {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, help="the server's program")
    parser.add_argument("--update", action="store_true", help="write benchmarks/baseline.json instead of comparing")
    sys.exit(uvloop.run(run(parser.parse_args())))
