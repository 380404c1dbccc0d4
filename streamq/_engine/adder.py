"""Adds of one process, gathered: what is asked for in one moment, or while a call is in flight, goes out together.

A call has a number, and the server remembers the last answer to each producer, so a call whose reply was lost is
repeated under its number and adds nothing twice. A lone `add` costs one round trip and no task.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence

from streamq._engine.durable import Confirmation
from streamq._engine.store import Store
from streamq._engine.transitions import Added, NewJob, added
from streamq.errors import DuplicateJob, InvalidInput, QueueFull, StoreError, StoreUnavailable

CALL_JOBS = 1_000
"""Jobs that one script call adds at most: a few milliseconds of the server's time."""
CALL_BYTES = 4 * 1_048_576
CONFIRM_TRIES = 3
LEAST_WAIT = 0.1
"""Seconds that a call gets even when those who wait for it have waited long."""


_TOO_MANY = (
    f"a batch of more than {CALL_JOBS:,} jobs or {CALL_BYTES // 1_048_576} MiB goes in parts, and can't be refused as "
    "a whole: its unique keys need on_conflict='return_existing'"
)


class _Unit:
    """The jobs of one caller: added by one script call, so all or none."""

    __slots__ = ("alone", "deadline", "done", "jobs", "size")

    def __init__(
        self, jobs: Sequence[NewJob], size: int, loop: asyncio.AbstractEventLoop, within: float, *, alone: bool
    ) -> None:
        self.jobs, self.size, self.deadline, self.alone = jobs, size, loop.time() + within, alone
        self.done: asyncio.Future[list[Added]] = loop.create_future()


class Adder:
    """A producer of a `Queue` object. With a confirmation, each call also waits until what it added is safe."""

    def __init__(self, store: Store, confirmation: Confirmation | None = None) -> None:
        self._store, self._confirmation = store, confirmation
        self._nonce = secrets.token_hex(8)
        self._number = 0
        self._busy = False
        self._pending: deque[_Unit] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._under_way = 0
        self._idle: asyncio.Event | None = None

    async def add(self, jobs: Sequence[NewJob], *, all_or_none: bool = False) -> list[Added]:
        """Add `jobs`; with `all_or_none` also none if one of them is refused its unique key, else told so as `instead`.

        Raises:
            DuplicateJob: One is refused; none was added.
            InvalidInput: All or none is asked of more than go in one call. Nothing was sent.
            StoreRefused: None was added.
            StoreUnavailable: Redis did not answer in time; whether they were added is unknown.
        """
        self._under_way += 1
        try:
            return await self._add(jobs, all_or_none)
        finally:
            self._under_way -= 1
            if self._idle is not None and not self._under_way:
                self._idle.set()

    async def _add(self, jobs: Sequence[NewJob], alone: bool) -> list[Added]:
        size = len(jobs[0].envelope) if len(jobs) == 1 else sum([len(job.envelope) for job in jobs])
        if len(jobs) > CALL_JOBS or size > CALL_BYTES:
            if alone:
                raise InvalidInput(_TOO_MANY)
            return await self._add_in_parts(jobs)
        if not self._busy:
            self._busy = True
            try:
                await asyncio.sleep(0)  # what is asked for in the same moment goes out in the same call
                if not self._pending:
                    return await self._call(jobs, self._store.settings.timeout, alone)
                unit = self._unit(jobs, size, alone)
                self._pending.appendleft(unit)
            finally:
                self._busy = False
                if self._pending:
                    self._start_flusher()
        else:
            unit = self._unit(jobs, size, alone)
            self._pending.append(unit)
        return await unit.done

    def _unit(self, jobs: Sequence[NewJob], size: int, alone: bool) -> _Unit:
        return _Unit(jobs, size, asyncio.get_running_loop(), self._store.settings.timeout, alone=alone)

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
                    self._give(units, await self._call(jobs, max(left, LEAST_WAIT), units[0].alone))
                except QueueFull as error:
                    # Together they are too many: those that fit one by one are taken.
                    await self._call_each(units, error)
                except (StoreError, DuplicateJob) as error:
                    _refuse(units, error)
        finally:
            self._busy = False
            for unit in self._pending:  # only if this task was cancelled
                unit.done.cancel()

    async def _call_each(self, units: list[_Unit], error: QueueFull) -> None:
        if len(units) == 1:
            _refuse(units, error)
            return
        for unit in units:
            if unit.done.done():
                continue
            left = unit.deadline - asyncio.get_running_loop().time()
            try:
                self._give([unit], await self._call(unit.jobs, max(left, LEAST_WAIT), unit.alone))
            except StoreError as its_own:
                _refuse([unit], its_own)

    def _give(self, units: list[_Unit], ids: list[Added]) -> None:
        at = 0
        for unit in units:
            if not unit.done.done():
                unit.done.set_result(ids[at : at + len(unit.jobs)])
            at += len(unit.jobs)

    def _take(self) -> list[_Unit]:
        units: list[_Unit] = []
        jobs = size = 0
        while self._pending:
            unit = self._pending[0]
            if unit.done.done():  # its caller gave up before it was sent
                self._pending.popleft()
                continue
            if units and (unit.alone or jobs + len(unit.jobs) > CALL_JOBS or size + unit.size > CALL_BYTES):
                break
            units.append(self._pending.popleft())
            jobs, size = jobs + len(unit.jobs), size + unit.size
            if unit.alone:
                break
        return units

    async def _call(self, jobs: Sequence[NewJob], within: float, all_or_none: bool) -> list[Added]:
        if not jobs:
            return []
        self._number += 1
        for _ in range(CONFIRM_TRIES):
            if self._confirmation is not None:
                await self._confirmation.prepare()
            connects = self._store.wire.connects
            reply = await self._store.add(self._nonce, self._number, jobs, within=within, all_or_none=all_or_none)
            if reply[0] == -1:
                raise StoreUnavailable("a later call of this producer overtook this one")
            if self._confirmation is None:
                return added(jobs, reply)
            await self._confirmation.confirm()
            if self._store.wire.connects == connects:
                return added(jobs, reply)
            # A connection was lost on the way, and the server behind the new one may know nothing of this: ask again.
        raise StoreUnavailable("the jobs were added, but Redis could not be asked whether they are safe")

    async def _add_in_parts(self, jobs: Sequence[NewJob]) -> list[Added]:
        """Stage a large batch where no worker sees it, then commit it: all or none, and no long script."""
        if self._confirmation is not None:
            await self._confirmation.prepare()
        batch = secrets.token_hex(8)
        parts = 0
        for part in parts_of(jobs):
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
            found += added(jobs[len(found) : len(found) + CALL_JOBS], reply)
        if self._confirmation is not None:
            await self._confirmation.confirm()
        return found

    async def close(self) -> None:
        """Wait for the adds that are under way."""
        if self._under_way:
            self._idle = asyncio.Event()
            await self._idle.wait()
        if self._flusher is not None:
            await asyncio.gather(self._flusher, return_exceptions=True)


def _refuse(units: list[_Unit], error: StoreError | DuplicateJob) -> None:
    for unit in units:
        if not unit.done.done():
            unit.done.set_exception(type(error)(*error.args))


def parts_of(jobs: Sequence[NewJob]) -> list[Sequence[NewJob]]:
    """Split a large batch into parts that one script call each can take."""
    parts, start, size = [], 0, 0
    for i, job in enumerate(jobs):
        if i > start and (i - start >= CALL_JOBS or size + len(job.envelope) > CALL_BYTES):
            parts.append(jobs[start:i])
            start, size = i, 0
        size += len(job.envelope)
    parts.append(jobs[start:])
    return parts
