"""Adds of one process, gathered: what is asked for while a call is in flight goes out together in the next one.

A call has a number, and the server remembers the last answer to each producer, so a call whose reply was lost is
repeated under its number and adds nothing twice. A lone `add` costs one round trip and no task.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence

from streamq._engine.store import Store
from streamq._engine.transitions import Added, NewJob, added
from streamq.errors import StoreError, StoreUnavailable

CALL_JOBS = 1_000
"""Jobs that one script call adds at most: a few milliseconds of the server's time."""
CALL_BYTES = 4 * 1_048_576
LEAST_WAIT = 0.1
"""Seconds that a call gets even when those who wait for it have waited long."""


class _Unit:
    """The jobs of one caller: added by one script call, so all or none."""

    __slots__ = ("deadline", "done", "jobs", "size")

    def __init__(self, jobs: Sequence[NewJob], deadline: float) -> None:
        self.jobs, self.deadline = jobs, deadline
        self.size = sum(len(job.envelope) for job in jobs)
        self.done: asyncio.Future[list[Added]] = asyncio.get_running_loop().create_future()


class Adder:
    """The one producer of a `Queue` object."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nonce = secrets.token_hex(8)
        self._number = 0
        self._busy = False
        self._pending: deque[_Unit] = deque()
        self._flusher: asyncio.Task[None] | None = None

    async def add(self, jobs: Sequence[NewJob]) -> list[Added]:
        """Add `jobs`, all or none.

        Raises:
            StoreRefused: None was added.
            StoreUnavailable: Redis did not answer in time; whether they were added is unknown.
        """
        if len(jobs) > CALL_JOBS or sum(len(job.envelope) for job in jobs) > CALL_BYTES:
            return await self._add_in_parts(jobs)
        if not self._busy:
            self._busy = True
            try:
                return await self._call(jobs, self._store.settings.timeout)
            finally:
                self._busy = False
                if self._pending:
                    self._start_flusher()
        unit = _Unit(jobs, asyncio.get_running_loop().time() + self._store.settings.timeout)
        self._pending.append(unit)
        return await unit.done

    def _start_flusher(self) -> None:
        self._busy = True
        self._flusher = asyncio.get_running_loop().create_task(self._flush(), name="streamq-adder")

    async def _flush(self) -> None:
        """Send what is pending until nothing is."""
        try:
            while self._pending:
                units = self._take()
                jobs = [job for unit in units for job in unit.jobs]
                left = units[0].deadline - asyncio.get_running_loop().time()
                try:
                    ids = await self._call(jobs, max(left, LEAST_WAIT))
                except StoreError as error:
                    for unit in units:
                        if not unit.done.done():
                            unit.done.set_exception(type(error)(*error.args))
                    continue
                at = 0
                for unit in units:
                    if not unit.done.done():
                        unit.done.set_result(ids[at : at + len(unit.jobs)])
                    at += len(unit.jobs)
        finally:
            self._busy = False
            for unit in self._pending:  # only if this task was cancelled
                unit.done.cancel()

    def _take(self) -> list[_Unit]:
        units: list[_Unit] = []
        jobs = size = 0
        while self._pending:
            unit = self._pending[0]
            if unit.done.done():  # its caller gave up before it was sent
                self._pending.popleft()
                continue
            if units and (jobs + len(unit.jobs) > CALL_JOBS or size + unit.size > CALL_BYTES):
                break
            units.append(self._pending.popleft())
            jobs, size = jobs + len(unit.jobs), size + unit.size
        return units

    async def _call(self, jobs: Sequence[NewJob], within: float) -> list[Added]:
        if not jobs:
            return []
        self._number += 1
        reply = await self._store.add(self._nonce, self._number, jobs, within=within)
        if reply[0] == -1:
            raise StoreUnavailable("a later call of this producer overtook this one")
        return added(jobs, reply)

    async def _add_in_parts(self, jobs: Sequence[NewJob]) -> list[Added]:
        """Stage a large batch where no worker sees it, then commit it: all or none, and no long script."""
        batch = secrets.token_hex(8)
        parts = 0
        for part in _parts(jobs):
            await self._store.stage(batch, parts, part)
            parts += 1
        found: list[Added] = []
        number, more = 0, 1
        while more:
            number += 1
            more, *reply = await self._store.commit(batch, number, batch, parts if number == 1 else None)
            if more < 0:
                if number == 1:
                    raise StoreUnavailable("the batch was lost before it was committed; nothing was added")
                raise StoreUnavailable(
                    "the batch is committed, and is being added by the workers; its ids are not known"
                )
            first, known = reply[0], set(reply[1:])
            count = min(CALL_JOBS, len(jobs) - len(found))
            for i, job in enumerate(jobs[len(found) : len(found) + count]):
                found.append(Added(job.job_id or str(first + i), i + 1 not in known))
        return found

    async def close(self) -> None:
        """Wait for what is pending."""
        if self._flusher is not None:
            await asyncio.gather(self._flusher, return_exceptions=True)


def _parts(jobs: Sequence[NewJob]) -> list[Sequence[NewJob]]:
    parts, start, size = [], 0, 0
    for i, job in enumerate(jobs):
        if i > start and (i - start >= CALL_JOBS or size + len(job.envelope) > CALL_BYTES):
            parts.append(jobs[start:i])
            start, size = i, 0
        size += len(job.envelope)
    parts.append(jobs[start:])
    return parts
