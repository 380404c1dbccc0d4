"""The processors that the benchmarks' worker processes run: `python -m streamq.worker --processors benchmarks.jobs`."""

from __future__ import annotations

import asyncio
import functools
import os
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.tally import Tally
from streamq import ActiveJob, Batch, BatchJob, Processors

processors = Processors()
tally = Tally()


@processors.register("noop")
async def noop(job: ActiveJob[Any]) -> None:
    """Do nothing: what is measured is the engine."""
    tally.count()


@processors.register("result")
async def result(job: ActiveJob[Any]) -> str:
    """Return 100 characters."""
    tally.count()
    return "x" * 100


@processors.register("sleep")
async def sleep(job: ActiveJob[Any]) -> None:
    """Wait as a call to some service would, for 10 ms."""
    await asyncio.sleep(0.01)
    tally.count()


def spin(rounds: int) -> int:
    """Keep a core busy: some milliseconds for 100,000 rounds."""
    total = 0
    for number in range(rounds):
        total += number * number % 7
    return total


@processors.register("spin", run_in="process")
def spin_in_a_process(job: ActiveJob[Any]) -> None:
    """Do what needs a core of its own."""
    spin(job.data["number"])
    tally.count()


@processors.register("noop-batch", batch=Batch(100))
async def noop_batch(jobs: list[BatchJob[Any]]) -> None:
    """Do nothing, for a hundred jobs at once."""
    tally.count(len(jobs))


@processors.register("sleep-batch", batch=Batch(100))
async def sleep_batch(jobs: list[BatchJob[Any]]) -> None:
    """Wait as a call for a hundred jobs would, for 10 ms."""
    await asyncio.sleep(0.01)
    tally.count(len(jobs))


@functools.cache
def database() -> sqlite3.Connection:
    """Return this process's connection to a table, on disk, as durable as SQLite makes it by default."""
    connection = sqlite3.connect(os.environ["STREAMQ_BENCH_DATABASE"], check_same_thread=False)
    connection.execute("CREATE TABLE IF NOT EXISTS payments (job TEXT PRIMARY KEY, body TEXT)")
    return connection


def insert(jobs: Sequence[ActiveJob[Any]]) -> None:
    """Insert a row for each job, in one transaction."""
    with database() as transaction:
        rows = [(job.id, str(job.data)) for job in jobs]
        transaction.executemany("INSERT OR REPLACE INTO payments VALUES (?, ?)", rows)
    tally.count(len(jobs))


@processors.register("insert")
async def insert_one(job: ActiveJob[Any]) -> None:
    """Insert a row on the loop: SQLite has one writer anyway."""
    insert([job])


@processors.register("insert-batch", batch=Batch(100))
async def insert_many(jobs: list[BatchJob[Any]]) -> None:
    """Insert a hundred rows."""
    insert(jobs)


@processors.register("stamp")
async def stamp(job: ActiveJob[Any]) -> None:
    """Report the seconds since the job's producer read the monotonic clock, which all processes of a machine share."""
    tally.sample(time.monotonic() - job.data["t"])


@processors.register("due")
async def due(job: ActiveJob[Any]) -> None:
    """Report the seconds since the job was due."""
    tally.sample(time.time() - job.data["t"])


@processors.register("fail-once", attempts=2)
async def fail_once(job: ActiveJob[Any]) -> None:
    """Fail the first time, so that the job makes the whole way round: retry, delay, promotion."""
    if job.attempt == 1:
        raise RuntimeError("the first attempt fails")
    tally.count()


@processors.register("fail", attempts=1)
async def fail(job: ActiveJob[Any]) -> None:
    """Fail for good."""
    tally.count()
    raise RuntimeError("it fails")


@processors.register("hold")
async def hold(job: ActiveJob[Any]) -> None:
    """Stay active until the worker stops."""
    tally.count()
    await asyncio.Event().wait()
