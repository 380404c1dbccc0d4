"""Batches that fill up: claimed jobs of one name that wait to be given to their handler together.

Plain bookkeeping and a timer: it talks to nobody. A batch's life:
1. The first job of a name opens it. Gathered jobs are held like those that are claimed ahead, and take no slot.
2. Full, or `max_wait` seconds after the first job, it is due and takes no more. It needs one slot, and is before
   whatever else waits for one.
3. With a slot it is started, and its jobs run until its handler has ended.
A job that stalled before is a batch of its own, so that one which takes workers down takes no others with it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from streamq.batch import BatchJob
from streamq.worker.attempt import Attempt, Known
from streamq.worker.control import Control
from streamq.worker.verdict import Terms


class Member:
    """A job of a batch."""

    __slots__ = ("attempt", "control", "error", "job", "returned", "terms")

    def __init__(self, attempt: Attempt, job: BatchJob[Any], control: Control, terms: Terms) -> None:
        self.attempt, self.job, self.control, self.terms = attempt, job, control, terms
        self.error: BaseException | None = None
        """What it failed with: its time was up, its middleware refused it; in the end whatever it was."""
        self.returned: Any = None
        """What the handler returned for it."""


class JobBatch:
    """Jobs that are, or will be, given to one call of their handler."""

    __slots__ = ("due_at", "known", "members", "timer")

    def __init__(self, known: Known) -> None:
        self.known = known
        self.members: list[Member] = []
        self.timer: asyncio.TimerHandle | None = None
        self.due_at = 0.0
        """Since when it waits for a slot (monotonic seconds); 0 before."""

    @property
    def size(self) -> int:
        """How many jobs it may hold."""
        assert self.known.batch is not None  # noqa: S101 - it would not be gathered
        return self.known.batch.size

    @property
    def cancelled(self) -> bool:
        """Whether none of its jobs wants the handler to go on: each was cancelled, or its time is up."""
        return all(member.error is not None or member.attempt.cancelled is not None for member in self.members)


class Gathering:
    """All batches of one worker until they are started; `start` is called with each that has a slot."""

    def __init__(self, start: Callable[[JobBatch], None]) -> None:
        self.start = start
        self.filling: dict[str, JobBatch] = {}
        self.due: deque[JobBatch] = deque()
        self.closed = False
        """Whether the worker stops: a job whose data was being fetched until now is a batch of its own."""
        self.on_joined: Callable[[Attempt], None] = lambda attempt: None
        """Told of an attempt that was gathered instead of run: it needs its slot no more."""
        self.on_due: Callable[[], None] = lambda: None
        """Told when a batch has become due."""
        self.on_ended: Callable[[], None] = lambda: None
        """Told when a batch's handler has ended: its slot is free."""

    def join(self, member: Member, known: Known) -> None:
        """Gather an attempt that has a slot; one that stalled before, or comes late, is started in it."""
        if member.attempt.claim.stalls or self.closed:
            alone = JobBatch(known)
            self._put(member, alone)
            self.start(alone)
            return
        name, rule = known.processor.name, known.batch
        assert rule is not None  # noqa: S101 - the caller looked
        batch = self.filling.get(name)
        if batch is None:
            batch = self.filling[name] = JobBatch(known)
            batch.timer = asyncio.get_running_loop().call_later(rule.max_wait, self._close, batch)
        self._put(member, batch)
        self.on_joined(member.attempt)
        if len(batch.members) >= rule.size:
            self._close(batch)

    def _put(self, member: Member, batch: JobBatch) -> None:
        batch.members.append(member)
        member.attempt.batch = batch

    def missing(self) -> int:
        """Return how many more jobs the batches that fill up would take."""
        return sum(batch.size - len(batch.members) for batch in self.filling.values())

    def flush(self) -> None:
        """Wait for no more jobs."""
        for batch in list(self.filling.values()):
            self._close(batch)

    def _close(self, batch: JobBatch) -> None:
        self._drop(batch)
        batch.due_at = time.monotonic()
        self.due.append(batch)
        self.on_due()

    def _drop(self, batch: JobBatch) -> None:
        del self.filling[batch.known.processor.name]
        if batch.timer is not None:
            batch.timer.cancel()

    # Taken back -------------------------------------------------------------------------------------------------------

    def withdraw(self, attempt: Attempt) -> bool:
        """Take out an attempt of a batch that has not started; False if it is in none."""
        batch = attempt.batch
        if batch is None or attempt.started_at:
            return False
        batch.members = [member for member in batch.members if member.attempt is not attempt]
        attempt.batch = None
        if not batch.members:
            if batch.due_at:
                self.due.remove(batch)
            else:
                self._drop(batch)
        return True

    def idle(self) -> list[Attempt]:
        """Take out all attempts: none of their batches has started."""
        for batch in list(self.filling.values()):
            self._drop(batch)
            self.due.append(batch)
        return self.take_due()

    def take_due(self) -> list[Attempt]:
        """Take out the attempts of those batches that wait for a slot."""
        found = list(self._attempts())
        self.due.clear()
        return found

    def _attempts(self) -> Iterator[Attempt]:
        for batch in self.due:
            for member in batch.members:
                member.attempt.batch = None
                yield member.attempt
