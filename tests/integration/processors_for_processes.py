"""Processors that tests run in real worker processes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, NoReturn

from streamq import ActiveJob, Processors, Snooze, Unrecoverable

processors = Processors()


@processors.register("compute", queue="processes", run_in="process", attempts=1)
def compute(job: ActiveJob[Any]) -> dict[str, Any]:
    job.progress(50)
    job.log("half way")
    return {"pid": os.getpid(), "data": job.data, "attempt": job.attempt}


@processors.register("compute-async", queue="processes", run_in="process", attempts=1)
async def compute_async(job: ActiveJob[Any]) -> int:
    await asyncio.sleep(0)
    await job.progress({"done": True})
    return job.data * 2


@processors.register("crash", queue="processes", run_in="process", attempts=1)
def crash(job: ActiveJob[Any]) -> NoReturn:
    os._exit(9)


@processors.register("instant", queue="processes", run_in="process", attempts=1, timeout=0.1)
def instant(job: ActiveJob[Any]) -> str:
    return "in time"


@processors.register("spin", queue="processes", run_in="process", attempts=1, timeout=0.5)
def spin(job: ActiveJob[Any]) -> NoReturn:
    with open(job.data, "w") as file:
        file.write(str(os.getpid()))
    while True:
        pass


@processors.register("raise", queue="processes", run_in="process", attempts=1)
def raises(job: ActiveJob[Any]) -> NoReturn:
    raise KeyError(job.data)


@processors.register("refuse", queue="processes", run_in="process", attempts=3)
def refuses(job: ActiveJob[Any]) -> NoReturn:
    raise Unrecoverable(job.data)


@processors.register("nap", queue="processes", run_in="process", attempts=1)
def naps(job: ActiveJob[Any]) -> str:
    if not os.path.exists(job.data):
        open(job.data, "w").close()
        raise Snooze(0.05)
    return "rested"


@processors.register("pid", queue="processes")
async def pid(job: ActiveJob[None]) -> int:
    return os.getpid()


@processors.register("extend", queue="processes", run_in="process", attempts=1)
def extends(job: ActiveJob[Any]) -> str:
    for _ in range(job.data["steps"]):
        job.extend_timeout(10)
        time.sleep(job.data["each"])
    return "made it"


@processors.register("steps", queue="processes", run_in="process", attempts=2)
def steps(job: ActiveJob[Any]) -> dict[str, Any]:
    first = job.step("pid", os.getpid)
    job.save_cursor([job.attempt, job.cursor])
    if job.attempt == 1:
        raise OSError("later")
    return {"first": first, "cursor": job.cursor, "pair": job.step("pair", lambda: (1, 2))}


@processors.register("steps-async", queue="processes", run_in="process", attempts=2)
async def steps_async(job: ActiveJob[Any]) -> list[int]:
    found = await job.step("attempt", asyncio.sleep, 0, job.attempt)
    await job.save_cursor(found)
    if job.attempt == 1:
        raise OSError("later")
    return [found, job.cursor]
