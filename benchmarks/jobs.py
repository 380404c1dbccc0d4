"""The processors that the benchmarks' worker processes run: `python -m streamq.worker --processors benchmarks.jobs`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.tally import Tally
from streamq import ActiveJob, Processors

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
