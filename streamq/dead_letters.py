"""Dead letters: what is kept of jobs that failed for good, beyond the retention of the jobs themselves.

`Queue` inherits these. A letter holds the job and its last error. `redrive` makes jobs of letters again, `purge_dead`
deletes them, and `on_dead` tells of each new one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, Protocol

import msgspec

from streamq._engine import codec
from streamq._engine.letters import LetterReader
from streamq._engine.pages import Step, StoredLetter
from streamq._engine.snapshots import moment, readable
from streamq._engine.transitions import Added, NewJob
from streamq.bulk import Progress, match
from streamq.errors import InvalidInput
from streamq.job import JobError
from streamq.operations import QueueParts
from streamq.payload import Codec, aside
from streamq.policy import Priority, whole

log = logging.getLogger("streamq.queue")

STEP_LETTERS = 200
MOST_PER_PAGE = 10_000
_LETTER = re.compile(r"[0-9]{1,20}-[0-9]{1,20}\Z")


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed for good.

    Attributes:
        id: The letter's own id; give it to `redrive`, `purge_dead`, or as `start` of the next page.
        job_id, queue, name, data, priority: The job.
        error: Its last error.
        failed_at: When it failed, by the server's clock.
        is_kept: Whether the failed job itself is still there (`get_job` finds it).
    """

    id: str
    job_id: str
    queue: str
    name: str
    data: Any
    priority: Priority
    error: JobError
    failed_at: datetime | None
    is_kept: bool


class LetterPage(list[DeadLetter]):
    """A list of dead letters that knows where the next page starts. None: that was all."""

    def __init__(self, letters: Iterable[DeadLetter], following: str | None) -> None:
        super().__init__(letters)
        self.next = following


class Redriven(msgspec.Struct, frozen=True):
    """What a redrive did: the ids of the jobs that run again, and how many letters stayed where they were."""

    job_ids: list[str]
    stayed: int


class Target(Protocol):
    """What a redrive needs of the queue that jobs go to."""

    @property
    def name(self) -> str: ...
    async def _add_encoded(self, jobs: list[NewJob]) -> list[Added]: ...


DeadHandler = Callable[[DeadLetter], Awaitable[None] | None]


class Watch:
    """A handler that is being told of new dead letters, until `stop` or the queue's `close`."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def stop(self) -> None:
        """End it; a handler that is running is cancelled."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class DeadLetters(QueueParts):
    """Operations on dead letters."""

    _watches: list[Watch]

    async def dead_letters(
        self, start: str | None = None, count: int = 50, *, newest_first: bool = False
    ) -> LetterPage:
        """Return up to `count` dead letters behind the letter `start`, and where the next page starts (`page.next`).

        Raises:
            InvalidInput: `start` is no letter's id, or `count` makes no sense.
        """
        whole("count", count, low=1, high=MOST_PER_PAGE)
        cursor = "" if start is None else letter_id(start)
        found: list[DeadLetter] = []
        while True:
            wanted = min(count - len(found), STEP_LETTERS)
            page = await self._store.dead_letters(cursor, wanted, newest_first=newest_first)
            cursor = page.cursor
            for stored in page.letters:
                found.append(await aside(self._store.codec, _letter, self.name, stored, self._store.codec))
            if not cursor or len(found) >= count:
                return LetterPage(found, cursor or None)

    async def redrive(
        self,
        letter: str | DeadLetter | None = None,
        *,
        everything: bool = False,
        name: str | None = None,
        error_type: str | None = None,
        to: Target | None = None,
        on_progress: Progress | None = None,
    ) -> Redriven:
        """Make jobs of dead letters again: of one, of those of a name or an error's type, or of all (`everything`).

        If the failed job is still kept, it is retried. If not, it is added again with its old data and options, under
        its old id when that is free. A letter goes in the very call that makes its job wait; one whose id or unique key
        is taken by another job stays. Letters that are written meanwhile are left for the next time.

        With `to` the jobs go to another queue, under their own id if that was a custom one, else as `<queue>:<id>`; the
        letter is deleted afterwards, so a crash in between leaves the letter and never loses the job. The failed job
        here stays as it is, for its retention.

        Raises:
            InvalidInput: Nothing was picked, or the letter's id makes no sense.
            QueueFull, StoreError: Of the target; its letters stay.
        """
        step = _first_step(letter, everything, name, error_type)
        named, kind = match(name), match(error_type, "error_type")
        if to is not None:
            return await self._redrive_to(to, step, named, kind, on_progress)
        ids: list[str] = []
        stayed = 0
        while not step.done:
            step = await self._store.redrive(step, STEP_LETTERS, named, kind)
            ids.extend(step.ids)
            stayed += step.counted
            if on_progress is not None:
                on_progress(len(ids) + stayed, None)
        return Redriven(ids, stayed)

    async def purge_dead(
        self,
        letter: str | DeadLetter | None = None,
        *,
        everything: bool = False,
        name: str | None = None,
        error_type: str | None = None,
        on_progress: Progress | None = None,
    ) -> int:
        """Delete dead letters, picked as by `redrive`; return how many. Failed jobs that are still kept stay.

        Raises:
            InvalidInput: Nothing was picked, or the letter's id makes no sense.
        """
        step = _first_step(letter, everything, name, error_type)
        named, kind = match(name), match(error_type, "error_type")
        gone = 0
        while not step.done:
            step = await self._store.purge_dead(step, STEP_LETTERS, named, kind)
            gone += step.counted
            if on_progress is not None:
                on_progress(gone, None)
        return gone

    async def on_dead(self, handler: DeadHandler, after: str | None = None) -> Watch:
        """Call `handler` (async or plain) with each dead letter that is written from now on, or behind letter `after`.

        Letters come in order, one at a time, over reconnects, on a connection of its own. A handler that raises is
        logged, and the next letter comes all the same. Every process that calls this is told of every letter.

        Raises:
            InvalidInput: `after` is no letter's id, or the queue has shards: their letters have no common order.
        """
        wire = self._new_wire()
        reader = LetterReader(self._store, wire, None if after is None else letter_id(after))
        try:
            await reader.start()
        except BaseException:
            await wire.close()
            raise

        async def tell() -> None:
            try:
                while True:
                    for stored in await reader.read_on():
                        try:
                            letter = await aside(self._store.codec, _letter, self.name, stored, self._store.codec)
                            answer = handler(letter)
                            if inspect.isawaitable(answer):
                                await answer
                        except Exception as error:
                            log.exception("the handler of dead letters failed on %s", stored.letter)
                            self._store.on_error(error)
            finally:
                await wire.close()

        watch = Watch(asyncio.create_task(tell(), name=f"streamq-dead-{self.name}"))
        self._watches.append(watch)
        return watch

    async def _redrive_to(
        self, to: Target, step: Step, name: bytes, kind: bytes, on_progress: Progress | None
    ) -> Redriven:
        ids: list[str] = []
        stayed = 0
        cursor, last = "" if step.cursor in ("", "-") else _before(step.cursor), step.bound
        if not last:
            newest = await self._store.dead_letters("", 1, newest_first=True)
            last = newest.letters[0].letter if newest.letters else "0-0"
        while True:
            page = await self._store.dead_letters(cursor, STEP_LETTERS)
            for stored in page.letters:
                if _order(stored.letter) > _order(last):
                    return Redriven(ids, stayed)
                if not codec.matches(stored.envelope, name, stored.error, kind):
                    continue
                job_id = f"{self.name}:{stored.job_id}" if stored.job_id.isdigit() else stored.job_id
                added = stored.envelope and await to._add_encoded([NewJob(stored.lane, "0", job_id, stored.envelope)])
                if added and added[0].is_new:
                    ids.append(job_id)
                    await self._store.purge_dead(Step(stored.letter, stored.letter), 1, b"", b"")
                else:
                    stayed += 1
                if on_progress is not None:
                    on_progress(len(ids) + stayed, None)
            cursor = page.cursor
            if not cursor:
                return Redriven(ids, stayed)


def letter_id(value: str) -> str:
    """Return `value` if it can be a letter's id; raise InvalidInput if not."""
    if not isinstance(value, str) or not _LETTER.match(value):
        raise InvalidInput(f"a dead letter's id looks like 1790000000000-0, not {value!r}")
    return value


def _first_step(letter: str | DeadLetter | None, everything: bool, name: str | None, error_type: str | None) -> Step:
    if (letter is not None) + everything + (name is not None or error_type is not None) != 1:
        raise InvalidInput("say which dead letters: one, or name= and error_type=, or everything=True")
    if letter is None:
        return Step()
    at = letter.id if isinstance(letter, DeadLetter) else letter_id(letter)
    return Step(at, at)


def _letter(queue: str, stored: StoredLetter, opener: Codec) -> DeadLetter:
    try:
        envelope = codec.decode_envelope(stored.envelope)
        name, data = envelope.name, readable(bytes(envelope.data), opener)
    except codec.BadEnvelope:
        name, data = "", None
    return DeadLetter(
        id=stored.letter, job_id=stored.job_id, queue=queue, name=name, data=data, priority=Priority(stored.lane),
        error=codec.decode_error(stored.error), failed_at=moment(_order(stored.letter)[0]), is_kept=stored.is_kept,
    )  # fmt: skip


def _order(letter: str) -> tuple[int, int]:
    ms, _, number = letter.partition("-")
    return int(ms), int(number)


def _before(letter: str) -> str:
    ms, number = _order(letter)
    return f"{ms}-{number - 1}" if number else f"{max(ms - 1, 0)}-18446744073709551615"
