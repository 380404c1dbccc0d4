"""Inline mode: what is added runs before `add` returns, on the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from streamq._engine.adder import Adder
from streamq._engine.transitions import Added, NewJob
from streamq.errors import JobFailed
from streamq.log import inside_a_handler
from streamq.processor import Processors
from streamq.queue import Queue
from streamq.testing.draining import drain


@asynccontextmanager
async def inline(
    queue: Queue,
    processors: Processors | Mapping[str, Callable[..., Any]] | Callable[..., Any],
    *,
    raise_failures: bool = True,
) -> AsyncIterator[Queue]:
    """Have each add on this `Queue` object drain the queue before it returns, until the block ends.

    What a handler adds runs before the outermost add returns. Delayed jobs stay delayed. With `raise_failures` an add
    whose job failed an attempt, for good or to be retried, raises.

    Raises:
        JobFailed: By `add` and `add_many`: a job failed; it is in Redis all the same, as are the others.
    """
    adder_for = queue._adder_for

    def draining(durable: bool) -> Any:
        return _Draining(adder_for(durable), queue, processors, raise_failures)

    queue._adder_for = draining  # type: ignore[method-assign]
    try:
        yield queue
    finally:
        queue._adder_for = adder_for  # type: ignore[method-assign]


class _Draining:
    """An adder that drains after each add."""

    def __init__(self, adder: Adder, queue: Queue, processors: Any, raise_failures: bool) -> None:
        self._adder, self._queue, self._processors, self._raise = adder, queue, processors, raise_failures

    async def add(self, jobs: Sequence[NewJob], *, all_or_none: bool = False) -> list[Added]:
        added = await self._adder.add(jobs, all_or_none=all_or_none)
        if inside_a_handler():
            return added  # inside a handler: the drain that runs it takes these too
        await drain(self._queue, self._processors)
        for job_id in dict.fromkeys(job.job_id for job in added) if self._raise else ():
            job = await self._queue.get_job(job_id)
            if job is not None and job.errors:
                raise JobFailed(job_id, str(job.errors[max(job.errors)]))
        return added
