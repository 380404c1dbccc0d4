"""Waiting for a job's end and its result. `Queue` inherits this; nothing here changes anything."""

from __future__ import annotations

import asyncio
from typing import Any

from streamq._engine import codec
from streamq._engine.snapshots import readable
from streamq._engine.transitions import StoredJob
from streamq.errors import JobCancelled, JobFailed, JobNotFound, ResultNotKept
from streamq.events import Endings
from streamq.job import JobState
from streamq.operations import QueueParts, known_id
from streamq.payload import aside
from streamq.policy import Seconds, seconds

LOOK_AGAIN = 5.0
"""Seconds after which a wait for a result looks at the job itself, in case an event was missed."""


class Results(QueueParts):
    """Waits for results."""

    _endings: Endings

    async def result(self, job_id: str, timeout: Seconds | None = None) -> Any:
        """Wait until a job has ended and return its result; waits through outages of Redis.

        Raises:
            JobFailed: It ended as failed.
            JobCancelled: It was cancelled (`.reason` says why) or removed.
            JobNotFound: There is no such job.
            UnreadablePayload: It completed, and its result is sealed by what this queue's `codec` can't open.
            ResultNotKept: It completed, but its retention keeps no result.
            TimeoutError: `timeout` seconds went by; the job goes on.
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        known_id(job_id)
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                return await self._wait_for_the_end(job_id)
        except TimeoutError:
            if clock.expired():
                raise TimeoutError(f"no end of job {job_id} was seen within {limit:g} s; it goes on") from None
            raise

    async def _wait_for_the_end(self, job_id: str) -> Any:
        known = False
        waiter = await self._endings.watch(job_id)
        try:
            while True:
                stored = await self._store.get(job_id)
                if stored is not None and JobState(stored.state).ended:
                    return await self._ending(job_id, stored)
                if stored is None:
                    raise (ResultNotKept if known else JobNotFound)(job_id)
                known = True
                await asyncio.wait((waiter,), timeout=LOOK_AGAIN)
                if not waiter.done():
                    continue
                kind = waiter.result()
                # An earlier job of this id may be the one whose end was told.
                if kind in ("removed", "cancelled") and await self._store.get(job_id) is None:
                    raise JobCancelled(job_id)
                told, waiter = waiter, await self._endings.watch(job_id)
                self._endings.forget(job_id, told)  # only now, or the reader would stop and connect anew
        finally:
            self._endings.forget(job_id, waiter)

    async def _ending(self, job_id: str, stored: StoredJob) -> Any:
        """Return the result of a job that has ended, and open nothing else of it; raise if it did not complete."""
        record, opener = stored.record, self._store.codec
        if stored.state == JobState.FAILED:
            raise JobFailed(
                job_id, str(codec.decode_error(record["x"])) if record.get("x") else "no error was recorded"
            )
        if stored.state == JobState.CANCELLED:
            raise JobCancelled(job_id, record.get("w", b"").decode("utf-8", "replace"))
        body = record.get("r", b"")
        return readable(await aside(opener, opener.open, body)) if body else None
