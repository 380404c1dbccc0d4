"""The threads that plain functions run in.

No thread can be stopped from outside. One whose handler outlives its time keeps its thread until it returns, and is
left behind: it must never take a place from those that come after it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

SPARE = 100
"""Threads beside those that have a slot: so many may be left behind before there is a new pool."""
NAME = "streamq-job"


class Cancellable(Protocol):
    """What a plain function is called with: a job, or the jobs of a batch."""

    @property
    def cancelled(self) -> bool: ...


class Threads:
    """Threads for as many handlers as run at once, and `SPARE` more unless a number is given."""

    def __init__(self, concurrency: int, number: int | None) -> None:
        self._size, self._spare = (concurrency + SPARE, SPARE) if number is None else (number, 0)
        self._left = 0
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._size, NAME)

    async def run(self, handler: Callable[..., Any], job: Cancellable) -> Any:
        """Call a plain function in a thread, and return or raise what it does. Cancelling this leaves it behind."""
        context = contextvars.copy_context()
        call = asyncio.get_running_loop().run_in_executor(self._pool, context.run, _call, handler, job)
        raised, value = await call
        if raised is not None:
            raise raised
        return value

    def leave_one(self) -> None:
        """Note that a thread was left behind with a handler that goes on."""
        self._left += 1
        if self._left > self._spare:
            self._pool.shutdown(wait=False)  # what it runs, or is still to run, goes on
            self._pool, self._left = self._new_pool(), 0

    def close(self) -> None:
        """Let go of all threads; one that still runs a handler is left to end by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _call(handler: Callable[..., Any], job: Cancellable) -> tuple[BaseException | None, Any]:
    """Call a plain handler. Its exception is returned: a future can't carry every kind (StopIteration, for one)."""
    if job.cancelled:
        return asyncio.CancelledError(), None
    try:
        return None, handler(job)
    except BaseException as error:
        return error, None
