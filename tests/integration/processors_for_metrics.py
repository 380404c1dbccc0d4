"""Processors whose ends can be counted; run in real worker processes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any, Literal, NoReturn

import msgspec

from streamq import ActiveJob, Processors, Unrecoverable

processors = Processors()
log = logging.getLogger("bank.letters")


@processors.register("pid", queue="m")
async def pid(job: ActiveJob[Any]) -> int:
    return os.getpid()


@processors.register("fails", queue="m", attempts=2)
async def fails(job: ActiveJob[Any]) -> NoReturn:
    raise ValueError(job.data)


@processors.register("refuses", queue="m")
async def refuses(job: ActiveJob[Any]) -> NoReturn:
    raise Unrecoverable("never")


@processors.register("counts", queue="m", data=int)
async def counts(job: ActiveJob[int]) -> int:
    return job.data


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    colour: Literal["red", "green"]


@processors.register("chooses", queue="m", data=Choice)
async def chooses(job: ActiveJob[Choice]) -> str:
    return job.data.colour


@processors.register("blocks", queue="m")
async def blocks(job: ActiveJob[str]) -> None:
    """Hold the event loop, as no handler should, until a file is there."""
    while not os.path.exists(job.data):  # noqa: ASYNC240
        time.sleep(0.02)  # noqa: ASYNC251 - that is the point


@processors.register("waits", queue="m")
async def waits(job: ActiveJob[str]) -> None:
    """Hold a slot until a file is there."""
    while not os.path.exists(job.data):  # noqa: ASYNC110, ASYNC240 - the file is another process's
        await asyncio.sleep(0.02)


def write(job: ActiveJob[Any]) -> int:
    log.warning("a letter for %s", "the bank")
    logging.getLogger().error("by way of the root logger")
    return os.getpid()


@processors.register("writes", queue="m")
async def writes(job: ActiveJob[Any]) -> int:
    log.warning("before")
    await asyncio.sleep(0)  # others run in between
    return write(job)


@processors.register("writes-in-a-thread", queue="m")
def writes_in_a_thread(job: ActiveJob[Any]) -> int:
    return write(job)


@processors.register("writes-in-a-process", queue="m", run_in="process")
def writes_in_a_process(job: ActiveJob[Any]) -> int:
    return write(job)


@processors.register("dies", queue="m")
async def dies(job: ActiveJob[Any]) -> NoReturn:
    os._exit(1)
