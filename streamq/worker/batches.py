"""Run one batch: several claims, one call of their handler, and an outcome for each of them.

A cancelled job ends as cancelled; another one by what was said of it (`complete`, `fail`); else as timed out if its
time was up; else by its place in the list that the handler returned, or with what that raised. Outcomes are taken when
the handler has ended, so that no job runs again while a handler may still be at it. No handler ends the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from streamq._engine.transitions import Outcome
from streamq.errors import BadBatchResult
from streamq.log import current_batch
from streamq.middleware import around_run
from streamq.observer import NOBODY, begin, tell
from streamq.payload import aside
from streamq.worker.failure import describe
from streamq.worker.gathering import JobBatch, Member
from streamq.worker.verdict import error_of

if TYPE_CHECKING:
    from streamq.worker.runner import Runner

log = logging.getLogger("streamq.worker")


class BatchRuns:
    """Starts batches for a runner, with what is the runner's."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def start(self, batch: JobBatch) -> None:
        """Start a batch that has a slot; `finished` is called for each of its attempts when its handler has ended."""
        run = _Run(self._runner, batch)
        task = asyncio.get_running_loop().create_task(run.run())
        for member in batch.members:
            member.attempt.task = task
        task.add_done_callback(run.left_off)


class _Run:
    """One call of a batch's handler and what is around it."""

    def __init__(self, runner: Runner, batch: JobBatch) -> None:
        self._runner, self._batch = runner, batch
        self._started_ms, self._start = 0, 0.0
        self._limit = asyncio.timeout(None)
        self._has_slot = True

    async def run(self) -> None:
        """Run the batch from its slot to its outcomes."""
        members, runner, name = self._batch.members, self._runner, self._batch.known.processor.name
        self._started_ms, self._start = runner.now_ms(), time.monotonic()
        token = current_batch.set([member.job for member in members])
        observer = runner.store.observer
        spans = [] if observer is NOBODY else [self._begin_span(member) for member in members]
        called = begin(observer, observer.running_batch, [member.job for member in members], name)
        entered: list[tuple[Member, AsyncExitStack]] = []
        failure: BaseException | None = None
        # As with a lone job, anything may be raised here, and all of it is how the attempts ended.
        try:
            if runner.middleware:
                await self._enter(entered)
            await self._call([member for member in members if member.error is None])
        except BaseException as error:
            failure = error
        _share_out(members, failure)
        for member, stack in reversed(entered):
            await _leave(member, stack)
        ran = time.monotonic() - self._start
        if runner.store.codec.blocking:
            ends = await asyncio.gather(*map(self._outcome, members))
        else:
            ends = [await self._outcome(member) for member in members]
        if called is not None:
            tell(observer, called.ended, "returned" if failure is None else "raised", _kind(failure))
        current_batch.reset(token)  # the next attempt may be started from here
        for member, outcome in zip(members, ends, strict=True):
            why = member.error if outcome.kind in ("retry", "fail") else None
            runner.tell_of_the_end(member.attempt.claim, name, outcome, ran, self._started_ms, why)
        for end_span, outcome in zip(spans, ends, strict=False):
            end_span(outcome)
        self._free_slot()
        for member, outcome in zip(members, ends, strict=True):
            if not member.attempt.released:  # else the worker reports on it itself
                runner.finished(member.attempt, outcome)

    def left_off(self, task: asyncio.Task[None]) -> None:
        """Report on jobs whose task could not do so itself: it was interrupted before or after its handler, or failed.

        Only those that were cancelled end so.
        """
        if not self._has_slot:
            return
        self._free_slot()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not task.cancelled():
            log.error("a batch of %s failed outside its handler", self._batch.known.processor.name, exc_info=error)
        for member in self._batch.members:
            if member.error is None:
                member.error = error
            if not member.attempt.released:
                self._runner.finished(member.attempt, self._cancelled(member) or self._failed(member))

    def _free_slot(self) -> None:
        self._has_slot = False
        self._runner.gathering.on_ended()

    def _begin_span(self, member: Member) -> Callable[[Outcome], None]:
        """Begin what observes a job, in a context of its own: its span is not what the handler's calls belong to."""
        observer, context = self._runner.store.observer, copy_context()
        running = context.run(begin, observer, observer.running, member.job, self._batch.known.processor.name)
        if running is None:
            return lambda outcome: None
        return lambda outcome: context.run(tell, observer, running.ended, outcome.kind, error_of(outcome))

    async def _enter(self, entered: list[tuple[Member, AsyncExitStack]]) -> None:
        """Enter the middleware for each job; one for which that fails is not given to the handler."""
        for member in self._batch.members:
            stack = AsyncExitStack()
            try:
                await stack.enter_async_context(around_run(self._runner.middleware, member.job))
            except Exception as error:
                member.error = error
            else:
                entered.append((member, stack))

    async def _call(self, members: list[Member]) -> None:
        """Call the handler for these, and note what it returned for each."""
        known, loop = self._batch.known, asyncio.get_running_loop()
        handler, jobs = known.processor.handler, [member.job for member in members]
        if not jobs:
            return
        deadlines: list[_Deadline] = []
        try:
            async with self._limit:
                for member in members:
                    if (timeout := member.terms.timeout) is not None:
                        member.control.timeout = timeout
                        member.control.limit = deadline = _Deadline(loop, timeout, self._time_is_up, member)
                        deadlines.append(deadline)
                if known.place == "loop":
                    returned = await handler(jobs)
                else:
                    returned = await self._runner.threads.run(lambda _: handler(jobs), self._batch)
        except TimeoutError:
            if self._limit.expired() and known.place == "thread":
                self._runner.leave_thread(known.processor, f"a batch of {len(members)} jobs ({known.processor.name})")
            raise
        finally:
            for deadline in deadlines:
                deadline.cancel()
        if returned is not None:
            for member, value in zip(members, _checked(returned, len(members), known.processor.name), strict=True):
                member.returned = value

    def _time_is_up(self, member: Member) -> None:
        """A job's timeout is over: it is told; the handler is interrupted if it was the last that wanted it."""
        member.error = member.control.timed_out(time.monotonic() - self._start)
        member.job.cancelled = True
        if self._batch.cancelled:
            with contextlib.suppress(RuntimeError):  # it is being interrupted, or has ended
                self._limit.reschedule(asyncio.get_running_loop().time())

    async def _outcome(self, member: Member) -> Outcome:
        claim, verdicts = member.attempt.claim, self._runner.verdicts
        if member.attempt.released:
            return verdicts.released(claim)
        if (cancelled := self._cancelled(member)) is not None:
            return cancelled
        if member.error is None:
            done, returned = verdicts.done, member.returned
            try:
                return await aside(self._runner.store.codec, done, claim, member.terms, returned, self._started_ms)
            except Exception as error:  # the store of payloads is away, or a codec of the user's raised
                member.error = error
        return self._failed(member)

    def _cancelled(self, member: Member) -> Outcome | None:
        attempt = member.attempt
        if attempt.cancelled is None:
            return None
        return self._runner.verdicts.cancelled(attempt.claim, attempt.cancelled, self._started_ms)

    def _failed(self, member: Member) -> Outcome:
        claim, error = member.attempt.claim, member.error
        assert error is not None  # noqa: S101 - the caller looked
        for_good = isinstance(error, BadBatchResult)
        return self._runner.verdicts.failed(claim, member.terms, error, self._started_ms, for_good=for_good)


def _checked(returned: Any, jobs: int, name: str) -> Sequence[Any]:
    if isinstance(returned, list | tuple) and len(returned) == jobs:
        return returned
    what = f"{len(returned)} results" if isinstance(returned, list | tuple) else f"a {type(returned).__name__}"
    raise BadBatchResult(
        f"the handler of {name!r} returned {what} for {jobs} jobs: it must return None, or a list with a result or an "
        "exception for each"
    )


def _share_out(members: list[Member], failure: BaseException | None) -> None:
    """Give each job its own end: what was said of it, what it was told, what was returned for it, what was raised."""
    if failure is not None:
        with contextlib.suppress(Exception):  # an exception that takes no attributes is described for each job anew
            failure.described = describe(failure)  # type: ignore[attr-defined]
    for member in members:
        settled = member.job._close()
        if settled is not None:
            member.error, member.returned = settled
        elif member.error is None and failure is not None:
            member.error = failure
        elif member.error is None and isinstance(member.returned, BaseException):
            member.error = member.returned


def _kind(failure: BaseException | None) -> str:
    return "" if failure is None else describe(failure).type


async def _leave(member: Member, stack: AsyncExitStack) -> None:
    """Leave a job's middleware; what that raises, or swallows, is its end."""
    error = member.error
    try:
        if await stack.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None):
            member.error = member.returned = None
    except BaseException as raised:
        member.error = raised


class _Deadline:
    """When one job's time is up, by the loop's clock."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, call: Callable[[Member], None], member: Member
    ) -> None:
        self._loop, self._call, self._member = loop, call, member
        self._timer = loop.call_later(seconds, self._over)
        self._done = False

    def when(self) -> float | None:
        """Return when; None if that is over."""
        return None if self._done else self._timer.when()

    def reschedule(self, when: float | None) -> None:
        """Move it, unless it is over."""
        if when is not None and not self._done:
            self._timer.cancel()
            self._timer = self._loop.call_at(when, self._over)

    def cancel(self) -> None:
        """Have no time run out any more."""
        self._done = True
        self._timer.cancel()

    def _over(self) -> None:
        self._done = True
        self._call(self._member)
