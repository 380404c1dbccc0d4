"""Where does the time of a drain go: in the worker, and in the server?

The worker runs under cProfile (its functions by their own time), or is watched by py-spy if `--py-spy` names one (its
lines by samples, which costs it next to nothing). The server tells by INFO commandstats what each command took, inside
scripts too, and by LATENCY what stood out.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import pstats
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import harness
from benchmarks.server import Server
from streamq import Queue


def worker_command(server: Server, concurrency: int, profile: Path | None) -> list[str]:
    """Return how the worker is started: under cProfile if `profile` is where its figures go."""
    under = [] if profile is None else ["-m", "cProfile", "-o", str(profile)]
    return [
        *(sys.executable, *under, "-m", "streamq.worker", "--queues", harness.QUEUE, "--processors", "benchmarks.jobs"),
        *("--concurrency", str(concurrency), "--redis", server.url, "--log-level", "error"),
    ]


def show_functions(profile: Path, jobs: int, rows: int) -> None:
    """Print the functions that took most themselves, in microseconds per job."""
    found: dict[Any, Any] = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    print(f"\nThe worker's functions by their own time (cProfile slows it down)\n{'µs/job':>8} {'calls/job':>10}")
    for (file, line, name), figures in sorted(found.items(), key=lambda item: -item[1][2])[:rows]:
        calls, own = figures[1], figures[2]
        where = f"{Path(file).parent.name}/{Path(file).name}:{line}" if line else ""
        print(f"{own / jobs * 1e6:8.2f} {calls / jobs:10.2f}  {name} {where}")


def show_lines(samples: Path, rows: int) -> None:
    """Print the lines in which the main thread was met most often."""
    own: collections.Counter[str] = collections.Counter()
    for sample in samples.read_text().splitlines():
        stack, _, met = sample.rpartition(" ")
        if "lease.py" not in stack and "threading.py" not in stack:
            own[stack.rpartition(";")[2]] += int(met)
    total = sum(own.values())
    print(f"\nThe worker's lines by samples ({total} of them)")
    for line, count in own.most_common(rows):
        print(f"{count / total:8.1%}  {line}")


def show_server(server: Server, jobs: int, rows: int) -> None:
    """Print what the server says of its commands."""
    stats: dict[str, Any] = server.client.info("commandstats")
    print(f"\nThe server's commands\n{'µs/job':>8} {'calls/job':>10} {'µs/call':>8}")
    for command, of in sorted(stats.items(), key=lambda item: -item[1]["usec"])[:rows]:
        each = of["usec_per_call"]
        print(f"{of['usec'] / jobs:8.2f} {of['calls'] / jobs:10.2f} {each:8.2f}  {command.removeprefix('cmdstat_')}")
    inside = sum(of["usec"] for name, of in stats.items() if "eval" not in name)
    scripts = sum(of["usec"] for name, of in stats.items() if "eval" in name)
    print(f"{(scripts - inside) / jobs:8.2f} {'':10} {'':8}  Lua itself: the scripts less what they call")
    latest: Any = server.client.latency_latest()
    for event, _, last, longest in latest:
        print(f"LATENCY {event.decode()}: last {last} ms, longest {longest} ms")


def watch(py_spy: str, worker: int, out: Path) -> subprocess.Popen[bytes]:
    """Have py-spy sample a worker for five seconds."""
    command = [py_spy, "record", "-p", str(worker), "-d", "5", "-r", "400", "-f", "raw", "-o", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def drain(server: Server, queue: Queue, options: argparse.Namespace) -> None:
    """Resume the queue, wait until it is empty, and print what that cost the server."""
    server.client.config_set("latency-monitor-threshold", 5)
    server.client.config_resetstat()
    start, before = time.perf_counter(), server.work()["cpu"]
    await queue.resume()
    await harness.drained(queue, server, options.jobs)
    rate = options.jobs / (time.perf_counter() - start)
    server_us = (server.work()["cpu"] - before) / options.jobs * 1e6
    print(f"{options.jobs:,} jobs, concurrency {options.concurrency}: {rate:,.0f} jobs/s, ", end="")
    print(f"the server's CPU {server_us:.1f} µs/job, {server.version}")
    show_server(server, options.jobs, options.rows)


async def run(options: argparse.Namespace) -> None:
    """Drain a queue and print where the time went."""
    with Server(options.binary) as server:
        async with Queue(harness.QUEUE, server.url) as queue:
            await queue.pause()
            await harness.fill(queue, options.jobs)
            profile = None if options.py_spy else server.folder / "worker.profile"
            command = worker_command(server, options.concurrency, profile)
            worker = subprocess.Popen(command, env=harness.environment(server), cwd=harness.ROOT)
            try:
                await harness.until(lambda: harness._has_workers(queue, 1), 30, "the worker's first tick")
                samples = server.folder / "samples"
                watching = watch(options.py_spy, worker.pid, samples) if options.py_spy else None
                await asyncio.sleep(0.5 if watching else 0)  # until it samples
                await drain(server, queue, options)
                if watching is not None:
                    watching.wait(30)
                    show_lines(samples, options.rows)
                worker.send_signal(signal.SIGTERM)
                worker.wait(30)
            finally:
                worker.kill()
                worker.wait(10)
            if profile is not None:
                show_functions(profile, options.jobs, options.rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--py-spy", help="the py-spy program")
    parser.add_argument("--binary", type=Path, help="the server's program")
    uvloop.run(run(parser.parse_args()))
