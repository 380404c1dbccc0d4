"""What all adapters share: the jobs, the way a worker reports, and the command line.

An adapter defines a class with `connect`, `add`, `add_delayed` (by an hour), `close`, `worker` (and `add_many`, if its
queue can) and calls `main`.
It runs in its queue's own environment, so nothing but the standard library is imported here.

    with_x.py enqueue --how "one by one" | concurrently | bulk | delayed --jobs N    prints {"rate": …}
    with_x.py produce --jobs N                                                       a job every 10 ms
    with_x.py worker                                             waits for the gate, runs until killed
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.tally import FOLDER, Tally

AT_ONCE, BATCH, PAUSE = 100, 1000, 0.01
HOUR = 3600
KIND = os.environ.get("BENCH_KIND", "noop")
"""noop | sleep (10 ms) | stamp (report the age)"""
tally = Tally()
_lock = threading.Lock()


def payload(number: int) -> dict[str, Any]:
    """Return the data of a job: about 93 bytes of text, as JSON."""
    return {"t": time.monotonic(), "number": number + 100_000, "note": "x" * 44}


async def job(data: dict[str, Any]) -> None:
    """Run one job on an event loop."""
    if KIND == "sleep":
        await asyncio.sleep(0.01)
    _report(data)


def blocking_job(data: dict[str, Any]) -> None:
    """Run one job in a thread or a process."""
    if KIND == "sleep":
        time.sleep(0.01)
    with _lock:
        _report(data)


def _report(data: dict[str, Any]) -> None:
    if KIND == "stamp":
        tally.sample(time.monotonic() - data["t"])
    else:
        tally.count()


def gate() -> None:
    """Say that all is imported, and wait until the measurement begins."""
    folder = Path(os.environ[FOLDER])
    (folder / f"ready.{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.002)


def run(coroutine: Any) -> Any:
    """Run on uvloop."""
    import uvloop

    return uvloop.run(coroutine)


class Adapter:
    """One queue. `blocking` clients have plain methods, the others coroutines."""

    blocking = False

    def __init__(self, url: str, concurrency: int) -> None:
        self.url, self.concurrency = url, concurrency


async def _enqueue(adapter: Any, how: str, jobs: int) -> float:
    await adapter.connect()
    await adapter.add(payload(0))  # opens the connection and loads scripts
    start = time.perf_counter()
    if how == "bulk":
        for at in range(0, jobs, BATCH):
            await adapter.add_many([payload(i) for i in range(at, min(at + BATCH, jobs))])
    elif how == "concurrently":
        for at in range(0, jobs, AT_ONCE):
            await asyncio.gather(*(adapter.add(payload(i)) for i in range(at, min(at + AT_ONCE, jobs))))
    else:
        add = adapter.add_delayed if how == "delayed" else adapter.add
        for i in range(jobs):
            await add(payload(i))
    took = time.perf_counter() - start
    await adapter.close()
    return jobs / took


def _enqueue_blocking(adapter: Any, how: str, jobs: int) -> float:
    adapter.connect()
    adapter.add(payload(0))
    start = time.perf_counter()
    if how == "bulk":
        for at in range(0, jobs, BATCH):
            adapter.add_many([payload(i) for i in range(at, min(at + BATCH, jobs))])
    else:
        add = adapter.add_delayed if how == "delayed" else adapter.add
        for i in range(jobs):
            add(payload(i))
    took = time.perf_counter() - start
    adapter.close()
    return jobs / took


async def _produce(adapter: Any, jobs: int) -> None:
    await adapter.connect()
    for i in range(jobs):
        await adapter.add(payload(i))
        await asyncio.sleep(PAUSE)
    await adapter.close()


def _produce_blocking(adapter: Any, jobs: int) -> None:
    adapter.connect()
    for i in range(jobs):
        adapter.add(payload(i))
        time.sleep(PAUSE)
    adapter.close()


def main(kind: type[Adapter]) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["enqueue", "produce", "worker"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--how", default="one by one")
    options = parser.parse_args()
    adapter: Any = kind(options.url, options.concurrency)
    if options.mode == "worker":
        adapter.worker()
    elif options.mode == "enqueue":
        if adapter.blocking:
            rate = _enqueue_blocking(adapter, options.how, options.jobs)
        else:
            rate = run(_enqueue(adapter, options.how, options.jobs))
        print(json.dumps({"rate": rate}))
    elif adapter.blocking:
        _produce_blocking(adapter, options.jobs)
    else:
        run(_produce(adapter, options.jobs))
