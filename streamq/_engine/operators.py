"""The operators' transitions: a method per script, as in `store`, which inherits them.

Those that may concern many jobs take one bounded step per call: the reply says where the next one goes on.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from streamq._engine.pages import JobsPage, LettersPage, LogPage, Step, WorkersPage
from streamq._engine.transitions import Arg, QueueCounts, StoredJob
from streamq._engine.wire import Wire
from streamq.errors import DuplicateJob
from streamq.policy import RateLimit
from streamq.settings import Settings


class Unchanged(enum.Enum):
    """Stands for a limit that is left as it is, where None would lift it."""

    UNCHANGED = enum.auto()


UNCHANGED = Unchanged.UNCHANGED


class OperatorTransitions:
    """What operators do to a queue. `Store` gives it the one point that all calls pass."""

    settings: Settings
    wire: Wire

    async def _repeat(self, name: str, args: Sequence[Arg], *, within: float | None = None) -> Any:
        raise NotImplementedError

    async def _once(self, name: str, args: Sequence[Arg], wire: Wire) -> Any:
        raise NotImplementedError

    async def _persist(self, attempt: Callable[[], Coroutine[Any, Any, Any]], within: float) -> Any:
        raise NotImplementedError

    async def _observed(self, name: str, call: Coroutine[Any, Any, Any]) -> Any:
        raise NotImplementedError

    @property
    def _keep_cancelled(self) -> tuple[int, int]:
        keep = self.settings.keep_cancelled
        return keep.count, keep.age_ms

    async def _move(self, name: str, done: str, after: str | tuple[str, ...], *args: Arg) -> str:
        """Run a script that moves one job and answers with a word: `done` if this call moved it.

        A move whose reply was lost is repeated and finds the job moved, as it is `after` its own move: that is `done`
        too.

        Raises:
            DuplicateJob: Another job holds this one's unique key. Nothing was changed.
        """
        tries = 0

        def attempt() -> Coroutine[Any, Any, Any]:
            nonlocal tries
            tries += 1
            return self._once(name, [*args, self.settings.events_cap], self.wire)

        reply = await self._observed(name, self._persist(attempt, self.settings.timeout))
        if isinstance(reply, list):
            _, holder, key = (part.decode() for part in reply)
            raise DuplicateJob(holder, key)
        word: str = reply.decode()
        return done if tries > 1 and word in ((after,) if isinstance(after, str) else after) else word

    # The queue --------------------------------------------------------------------------------------------------------

    async def stats(self) -> QueueCounts:
        """Count the queue's jobs by state."""
        return QueueCounts.read(await self._repeat("stats", []))

    async def workers(self, most: int, jobs_each: int) -> WorkersPage:
        """Read up to `most` workers, and up to `jobs_each` of the jobs that each one holds."""
        return WorkersPage.read(await self._repeat("workers", [most, jobs_each]))

    async def permissions(self, commands: Sequence[str]) -> dict[str, str]:
        """Ask which of these commands (`@` is a key) this user can't run: `refused`, or `unknown` to the server."""
        found = await self._repeat("permissions", commands)
        return {commands[at - 1]: word.decode() for at, word in zip(found[::2], found[1::2], strict=True)}

    async def pause(self) -> bool:
        """Stop claiming; False if it was paused already."""
        return bool(await self._repeat("pause", [self.settings.events_cap]))

    async def resume(self) -> bool:
        """Claim again; False if it was not paused."""
        return bool(await self._repeat("resume", [self.settings.events_cap]))

    async def limit(self, rate: RateLimit | Unchanged | None, max_active: int | Unchanged | None) -> None:
        """Set the queue's rate limit and how many jobs may run at once; None lifts a limit."""
        said: list[Arg] = ["", 0] if isinstance(rate, Unchanged) else ["0", 0]
        if isinstance(rate, RateLimit):
            said = [rate.max, rate.per_ms]
        await self._repeat("limit", [*said, "" if isinstance(max_active, Unchanged) else max_active or 0])

    async def max_size(self, most: int | None) -> None:
        """Set how many jobs the queue takes; None lifts the limit."""
        await self._repeat("max_size", [most or 0])

    # One job ----------------------------------------------------------------------------------------------------------

    async def get(self, job_id: str) -> StoredJob | None:
        """Read one job."""
        reply = await self._repeat("get", [job_id])
        return None if reply is None else StoredJob.read(reply)

    async def retry(self, job_id: str) -> str:
        """Run a failed or cancelled job again; returns `retried`, `unknown`, or the state that forbids it."""
        return await self._move("retry", "retried", ("waiting", "waiting_children"), job_id)

    async def remove(self, job_id: str, *, force: bool = False) -> str:
        """Remove a job; returns `removed`, `unknown` or, unless forced, `active`."""
        return await self._move("remove", "removed", "unknown", job_id, int(force))

    async def cancel(self, job_id: str, reason: str) -> str:
        """Cancel a job; returns `cancelled`, `asked` (its worker, to do so), `unknown`, `already`, or how it ended."""
        count, age_ms = self._keep_cancelled
        return await self._move("cancel", "cancelled", "already" if count else "unknown", job_id, reason, count, age_ms)

    async def promote(self, job_id: str) -> str:
        """Make a delayed job wait; returns `promoted`, `unknown`, or the state that forbids it."""
        return await self._move("promote", "promoted", "waiting", job_id)

    async def reschedule(self, job_id: str, start: str) -> str:
        """Give a delayed job another time (`+ms`, `@ms`); returns `rescheduled`, `unknown`, or the state it is in."""
        return await self._move("reschedule", "rescheduled", "rescheduled", job_id, start)

    async def change_priority(self, job_id: str, lane: int) -> str:
        """Move a waiting or delayed job to another lane; returns `changed`, `same`, `unknown`, or its state."""
        return await self._move("change_priority", "changed", "same", job_id, lane)

    async def update_data(self, job_id: str, before: bytes, envelope: bytes) -> str:
        """Swap a job's envelope; returns `updated`, `changed` (it is not `before`), `unknown`, or its state."""
        return await self._move("update_data", "updated", "updated", job_id, before, envelope)

    async def logs(self, job_id: str, start: int, count: int) -> LogPage:
        """Read lines of a job's log."""
        first, total, *lines = await self._repeat("logs", [job_id, start, count])
        return LogPage(first, total, [line.decode("utf-8", "replace") for line in lines])

    # Many jobs --------------------------------------------------------------------------------------------------------

    async def jobs(
        self, state: str, cursor: str, skip: int, count: int, *, newest_first: bool = False, name: bytes = b""
    ) -> JobsPage:
        """Read jobs of one state, in order, from behind `cursor`; see `lua/jobs.lua` for where a page ends early."""
        return JobsPage.read(await self._repeat("jobs", [state, cursor, skip, count, int(newest_first), name]))

    async def clean(self, state: str, grace_ms: int, step: Step, limit: int, *, last: bool) -> Step:
        """Remove up to `limit` jobs of one state that are older than the grace."""
        cap = self.settings.events_cap
        args: list[Arg] = [state, grace_ms, step.bound, step.cursor or 0, limit, int(last), cap]
        bound, cursor, *ids = await self._repeat("clean", args)
        return Step(bound.decode(), cursor.decode(), not cursor, [job_id.decode() for job_id in ids])

    async def drain(self, delayed: bool, step: Step, limit: int) -> Step:
        """Remove up to `limit` waiting (then delayed) jobs; the step tells their number only."""
        args: list[Arg] = [int(delayed), step.bound, step.cursor, limit, self.settings.events_cap]
        bound, cursor, gone = await self._repeat("drain", args)
        return Step(bound.decode(), cursor.decode(), cursor == b"end", [], gone)

    async def obliterate(self, force: bool, limit: int) -> tuple[str, int]:
        """Remove up to `limit` jobs; returns `active`, `more` or `done`, and how many run, or went."""
        word, count = await self._repeat("obliterate", [int(force), limit, self.settings.events_cap])
        return word.decode(), count

    async def retry_many(self, state: str, step: Step, limit: int, name: bytes, error_type: bytes) -> Step:
        """Retry up to `limit` ended jobs that match."""
        cap = self.settings.events_cap
        args: list[Arg] = [state, step.bound, step.cursor or 0, limit, name, error_type, cap]
        bound, cursor, *ids = await self._repeat("retry_many", args)
        return Step(bound.decode(), cursor.decode(), not cursor, [job_id.decode() for job_id in ids])

    async def cancel_many(
        self, state: str, step: Step, limit: int, name: bytes, reason: str, ids: Sequence[str] = ()
    ) -> Step:
        """Cancel up to `limit` jobs of a state that match; with no state, the jobs of these ids."""
        args: list[Arg] = [state, step.bound, step.cursor, limit, name, reason, *self._keep_cancelled]
        bound, cursor, *found = await self._repeat("cancel_many", [*args, self.settings.events_cap, *ids])
        return Step(bound.decode(), cursor.decode(), not cursor, [job_id.decode() for job_id in found])

    # Dead letters -----------------------------------------------------------------------------------------------------

    async def dead_letters(self, cursor: str, count: int, *, newest_first: bool = False) -> LettersPage:
        """Read dead letters from behind `cursor`."""
        return LettersPage.read(await self._repeat("dead_letters", [cursor, count, int(newest_first)]))

    async def redrive(self, step: Step, count: int, name: bytes, error_type: bytes) -> Step:
        """Make jobs of the dead letters that match, among the next `count`; `counted` is how many of them stay."""
        args: list[Arg] = [step.cursor or "-", step.bound, count, name, error_type, self.settings.events_cap]
        bound, cursor, stay, *ids = await self._repeat("redrive", args)
        return Step(bound.decode(), cursor.decode(), not cursor, [job_id.decode() for job_id in ids], stay)

    async def purge_dead(self, step: Step, count: int, name: bytes, error_type: bytes) -> Step:
        """Delete the dead letters that match, among the next `count`; `counted` is how many went."""
        args: list[Arg] = [step.cursor or "-", step.bound, count, name, error_type, self.settings.events_cap]
        bound, cursor, gone = await self._repeat("purge_dead", args)
        return Step(bound.decode(), cursor.decode(), not cursor, [], gone)

    async def forward(self, target_base: str, seen: str, upto: str, jobs: Sequence[tuple[str, int, bytes]]) -> str:
        """Add jobs of dead letters (letter, lane, envelope) to another queue, if letters up to `seen` are forwarded.

        Returns up to which letter all are forwarded now: `upto`, unless another call was there before.
        """
        args: list[Arg] = [target_base, self.settings.events_cap, seen, upto]
        for job in jobs:
            args.extend(job)
        at, _ = await self._repeat("forward", args)
        return str(at.decode())
