"""Operations on many jobs at once: clean, drain, retry, cancel, obliterate.

`Queue` inherits these. Each goes in steps of a few milliseconds of the server's time, so workers and producers are
served in between, and tells how far it is through `on_progress(done, total)`; `total` is None while it is not known.
An operation that is interrupted has done a part, and can be called again. Jobs that come in while it goes on stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from streamq._engine import codec
from streamq._engine.pages import Step
from streamq.errors import InvalidInput, QueueBusy
from streamq.job import MAX_NAME, JobState, check_text
from streamq.operations import QueueParts, check_reason, known_id
from streamq.policy import Seconds, seconds, whole

Progress = Callable[[int, int | None], None]
"""Told after each step how many jobs are done, and how many there are in all, if that is known."""

STEP_JOBS = 500
STEP_RETRIES = STEP_CANCELS = 200
MOST = 1_000_000_000
CLEANABLE = frozenset(JobState) - {JobState.ACTIVE}
RETRYABLE = frozenset({JobState.FAILED, JobState.COMPLETED, JobState.CANCELLED})
CANCELLABLE = frozenset({JobState.WAITING, JobState.DELAYED, JobState.WAITING_CHILDREN, JobState.ACTIVE})


class BulkOperations(QueueParts):
    """Operations on many jobs."""

    async def clean(
        self,
        grace: Seconds = 0,
        limit: int | None = 1_000,
        state: JobState = JobState.COMPLETED,
        *,
        on_progress: Progress | None = None,
    ) -> list[str]:
        """Remove up to `limit` jobs (None: all) of one state that are older than `grace` seconds; return their ids.

        Ended jobs are as old as their end, delayed ones as their creation, waiting ones as their stay in the lane. The
        oldest go first; of waiting jobs the least urgent lane first. Active jobs are never touched. Dead letters of
        failed jobs stay; see `purge_dead`.

        Raises:
            InvalidInput: A value makes no sense, or the state is active.
        """
        chosen = _state(state, CLEANABLE, "clean")
        grace_ms = round(seconds("grace", grace) * 1000)
        left = MOST if limit is None else whole("limit", limit, low=1, high=MOST)
        ids: list[str] = []
        step = Step()
        while not step.done and left > 0:
            size = min(left, STEP_JOBS)
            step = await self._store.clean(chosen, grace_ms, step, size, last=size == left)
            ids.extend(step.ids)
            left -= len(step.ids)
            _tell(on_progress, len(ids), None)
        return ids

    async def drain(self, delayed: bool = False, *, on_progress: Progress | None = None) -> int:
        """Remove all jobs that wait now, and the delayed ones if asked; return how many. Active jobs go on."""
        gone = 0
        step = Step()
        while not step.done:
            step = await self._store.drain(delayed, step, STEP_JOBS)
            gone += step.counted
            _tell(on_progress, gone, None)
        return gone

    async def obliterate(self, force: bool = False, *, on_progress: Progress | None = None) -> int:
        """Remove the whole queue: jobs of all states, dead letters, events, limits, schedules; return how many jobs.

        The first step pauses the queue, the last one removes the pause too; one that was interrupted leaves a paused
        queue: call it again. Only the counter of ids stays, so that no id is given out twice. With `force` running
        jobs go as well; their handlers are not interrupted, and their outcomes are dropped.

        Raises:
            QueueBusy: Jobs are running, and `force` was not given. Nothing was removed.
        """
        counts = await self._store.stats()
        total = sum(counts.waiting.values()) + counts.active + counts.delayed
        total += counts.completed + counts.failed + counts.cancelled
        total += counts.waiting_children
        gone = 0
        while True:
            word, count = await self._store.obliterate(force, STEP_JOBS)
            if word == "active":
                raise QueueBusy(self.name, count)
            gone += count
            _tell(on_progress, gone, max(total, gone))
            if word == "done":
                return gone

    async def retry_many(
        self,
        state: JobState = JobState.FAILED,
        count: int | None = None,
        *,
        name: str | None = None,
        error_type: str | None = None,
        on_progress: Progress | None = None,
    ) -> list[str]:
        """Retry failed jobs, the oldest first, as `retry` does each; return their ids.

        `count` is how many at most; `name` and `error_type` (an exception's class name) pick from them. With
        `state=COMPLETED` or `CANCELLED` those run again. A job that fails again meanwhile is not retried twice.

        Raises:
            InvalidInput: A value makes no sense, or the state is another one.
        """
        chosen = _state(state, RETRYABLE, "retry")
        left = MOST if count is None else whole("count", count, low=1, high=MOST)
        named, kind = match(name), match(error_type, "error_type")
        ids: list[str] = []
        step = Step()
        while not step.done and left > 0:
            step = await self._store.retry_many(chosen, step, min(left, STEP_RETRIES), named, kind)
            ids.extend(step.ids)
            left -= len(step.ids)
            _tell(on_progress, len(ids), None)
        return ids

    async def cancel_many(
        self,
        state: JobState | None = None,
        count: int | None = None,
        *,
        ids: Iterable[str] | None = None,
        name: str | None = None,
        reason: str = "",
        on_progress: Progress | None = None,
    ) -> list[str]:
        """Cancel jobs as `cancel` does each; return the ids of those that are, or whose workers were asked to.

        Either those with these `ids`, or all that wait, are delayed or run now (`state`), `count` at most and the
        oldest or first due first. `name` picks from them. Jobs that are unknown or have ended are left out.

        Raises:
            InvalidInput: A value makes no sense, or not exactly one of `state` and `ids` was given.
        """
        if (state is None) == (ids is None):
            raise InvalidInput("give state or ids, one of the two")
        check_reason(reason)
        found: list[str] = []
        if ids is not None:
            if count is not None or name is not None:
                raise InvalidInput("count and name pick from jobs of a state, not from ids")
            named = list(dict.fromkeys(known_id(job_id) for job_id in ids))
            for at in range(0, len(named), STEP_CANCELS):
                part = named[at : at + STEP_CANCELS]
                found.extend((await self._store.cancel_many("", Step(), len(part), b"", reason, part)).ids)
                _tell(on_progress, len(found), len(named))
            return found
        assert state is not None  # noqa: S101 - checked above
        chosen = _state(state, CANCELLABLE, "cancel")
        left = MOST if count is None else whole("count", count, low=1, high=MOST)
        step, picked = Step(), match(name)
        while not step.done and left > 0:
            step = await self._store.cancel_many(chosen, step, min(left, STEP_CANCELS), picked, reason)
            found.extend(step.ids)
            left -= len(step.ids)
            _tell(on_progress, len(found), None)
        return found


def match(text: str | None, what: str = "name") -> bytes:
    """Return a name as it is encoded inside a job or an error; empty for None, which matches all."""
    return b"" if text is None else codec.encode_text(check_text(what, text, MAX_NAME))


def _state(state: JobState, allowed: frozenset[JobState], action: str) -> str:
    if state not in allowed:
        raise InvalidInput(f"can't {action} jobs of state {state!s}; the states are {', '.join(sorted(allowed))}")
    return str(JobState(state))


def _tell(on_progress: Progress | None, done: int, total: int | None) -> None:
    if on_progress is not None:
        on_progress(done, total)
