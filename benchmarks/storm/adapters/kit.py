"""What all adapters share: the job, the lines in the ledger, and the command line.

An adapter defines a class with `connect`, `add`, `close` and `worker`, and calls `main`. It runs in its queue's own
environment, so nothing but the standard library is imported here. The lines are those of tests/faults/ledger.py.

    with_x.py produce NUMBER COUNT PER_SECOND SEED FIRST    adds jobs FIRST to COUNT, then one a second, unnoted
    with_x.py worker 0                                      runs jobs until killed
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import sys
import time
from typing import Any

URL = os.environ.get("STORM_URL", "")
CONCURRENCY = 10
LEASE = 5
"""Seconds of silence after which a worker counts as dead, wherever the queue lets one say so."""
MANY = 1_000_000
"""For limits of how often a job may be taken back: the storm hits some jobs many times."""
SHORT, LONG, SHARE_OF_LONG = (0.0, 0.05), (0.2, 0.6), 0.3
LULL = 1.0
"""Seconds between the jobs that keep a queue moving when all have been added: some only look for dead workers then."""


@functools.cache
def _ledger() -> int:
    return os.open(os.environ["FAULTS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def write(kind: str, job: str = "", outcome: str = "", **more: Any) -> None:
    """Append a line to the ledger."""
    line = {"kind": kind, "at": time.monotonic(), "pid": os.getpid(), "job": job, "outcome": outcome, "more": more}
    os.write(_ledger(), json.dumps(line).encode() + b"\n")


def ready() -> None:
    """Say that this worker is about to serve."""
    write("note", outcome="ready")


class _Noted:
    """Notes a run's start and its end, however it ends. Jobs without an id leave no trace."""

    def __init__(self, job: str) -> None:
        self._job = job

    def __enter__(self) -> None:
        if self._job:
            write("start", self._job)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._job:
            write("end", self._job, kind.__name__ if kind else "returned")


async def job(data: dict[str, Any]) -> None:
    """Run one job on an event loop."""
    with _Noted(data["id"]):
        await asyncio.sleep(data["seconds"])


def blocking_job(data: dict[str, Any]) -> None:
    """Run one job in a thread or a process."""
    with _Noted(data["id"]):
        time.sleep(data["seconds"])


class Adapter:
    """One queue. `blocking` clients have plain methods, the others coroutines."""

    blocking = False


def payload(number: str, job: int, seed: str) -> dict[str, Any]:
    """Return the data of a producer's job: always the same for the same seed."""
    chance = random.Random(f"{seed} {number} {job}")  # noqa: S311
    return {"id": f"{number}-{job}", "seconds": chance.uniform(*(LONG if chance.random() < SHARE_OF_LONG else SHORT))}


LAST = {"id": "", "seconds": 0.0}


async def _produce(adapter: Any, number: str, count: int, per_second: float, seed: str, first: int) -> None:
    await adapter.connect()
    since = time.monotonic()
    for at in range(first, count):
        await asyncio.sleep(max(0.0, since + (at - first) / per_second - time.monotonic()))
        data = payload(number, at, seed)
        try:
            await adapter.add(data)
        except Exception as error:
            write("note", data["id"], "refused", error=type(error).__name__)
        else:
            write("accepted", data["id"])
    write("note", outcome="done", producer=number)
    while True:
        await asyncio.sleep(LULL)
        await adapter.add(LAST)


def _produce_blocking(adapter: Any, number: str, count: int, per_second: float, seed: str, first: int) -> None:
    adapter.connect()
    since = time.monotonic()
    for at in range(first, count):
        time.sleep(max(0.0, since + (at - first) / per_second - time.monotonic()))
        data = payload(number, at, seed)
        try:
            adapter.add(data)
        except Exception as error:
            write("note", data["id"], "refused", error=type(error).__name__)
        else:
            write("accepted", data["id"])
    write("note", outcome="done", producer=number)
    while True:
        time.sleep(LULL)
        adapter.add(LAST)


def main(kind: type[Adapter]) -> None:
    """Run the command."""
    mode, *words = sys.argv[1:]
    adapter: Any = kind()
    if mode == "worker":
        adapter.worker()
        return
    number, count, per_second, seed, first = words
    arguments = (adapter, number, int(count), float(per_second), seed, int(first))
    if adapter.blocking:
        _produce_blocking(*arguments)
    else:
        asyncio.run(_produce(*arguments))
