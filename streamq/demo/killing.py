"""Kill the worker that runs a job, while it runs it: frozen first, so that what it held is known for sure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streamq.demo.errors import DemoFailed
from streamq.demo.watch import Key, Watch
from streamq.demo.worker import DemoWorker
from streamq.queue import Queue

FROM_PERCENT = 20
"""How far the job has come when its worker is killed."""


class Killed(NamedTuple):
    """Which process was killed, when (by `time.monotonic`), and the jobs that it held, with their names."""

    pid: int
    at: float
    held: dict[Key, str]


async def kill_the_worker_of(
    key: Key, workers: Sequence[DemoWorker], queues: Mapping[str, Queue], watch: Watch
) -> Killed:
    """Wait until the job is some way on, and kill the process that runs it.

    Raises:
        DemoFailed: The job ended before its worker could be caught with it.
    """
    while await watch.progressed(key, FROM_PERCENT):
        for worker in workers:
            if key not in await _held(worker, queues):
                continue
            worker.freeze()
            held = await _held(worker, queues)
            if key in held:
                worker.kill()
                return Killed(worker.pid, time.monotonic(), held)
            worker.thaw()
    raise DemoFailed(f"job {key[1]} of {key[0]} ended before its worker could be killed")


async def _held(worker: DemoWorker, queues: Mapping[str, Queue]) -> dict[Key, str]:
    """Return the jobs that the process holds, with their names."""
    pages = await asyncio.gather(*(queue.workers() for queue in queues.values()))
    return {
        (name, job.id): job.name
        for name, page in zip(queues, pages, strict=True)
        for found in page
        if worker.runs(found.id)
        for job in found.jobs
    }
