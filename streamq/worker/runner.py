"""Run one attempt: from a claim to an outcome.

An async handler is a task on the worker's loop; a plain function runs in a thread. Whatever it does, returns or
raises, of any kind, becomes an outcome: nothing that a handler does ends the worker.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from streamq._engine import codec
from streamq._engine.store import Store
from streamq._engine.transitions import Claim, Outcome
from streamq.batch import BatchJob
from streamq.errors import UnreadablePayload, Unrecoverable
from streamq.log import current_job, frames_of
from streamq.middleware import Middleware, around_run
from streamq.observer import NOBODY, UNKNOWN, begin, tell
from streamq.payload import PLAIN
from streamq.processor import ActiveJob, Processor, Processors
from streamq.settings import Settings
from streamq.worker.attempt import Attempt, Known
from streamq.worker.batches import BatchRuns
from streamq.worker.control import Control
from streamq.worker.frames import Said, Task, Told
from streamq.worker.gathering import Gathering, Member
from streamq.worker.pool import ProcessPool
from streamq.worker.threads import Threads
from streamq.worker.verdict import Terms, Verdicts, error_of

log = logging.getLogger("streamq.worker")

WORDS = {
    "done": "done", "retry": "failed, to be retried", "fail": "failed for good", "release": "handed back or put off",
    "hold": "put off with its queue", "cancel": "cancelled", "wait": "waits for its children",
}  # fmt: skip
"""How the log calls the kinds of outcomes."""
MOST_NAMES = 1_000
"""Job names that are remembered; a processor for every name (`*`) may meet any number."""
PROCESS_START = 60.0
"""Seconds that a handler's process may take until the handler begins, if its time is limited."""


class Runner:
    """Starts attempts and hands their outcomes to `finished`."""

    def __init__(
        self,
        store: Store,
        processors: Processors,
        settings: Settings,
        finished: Callable[[Attempt, Outcome], None],
        middleware: Sequence[Middleware] = (),
        threads: Threads | None = None,
        processes: ProcessPool | None = None,
    ) -> None:
        self.middleware, self._codec = middleware, store.codec
        self.store, self._processors, self._settings, self.finished = store, processors, settings, finished
        self._known: dict[str, Known] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        """Kept from the first start: asking for it costs a system call each time."""
        self.verdicts = Verdicts(settings, store.codec)
        self.threads = threads or Threads(settings.concurrency, settings.threads)
        self._processes = processes or ProcessPool()
        self.gathering = Gathering(BatchRuns(self).start)
        self.clock_offset_ms = time.time() * 1000 - time.monotonic() * 1000
        """The server's time less this process's monotonic clock; set by each tick."""

    def now_ms(self) -> int:
        """Return the server's time, as far as this worker knows it."""
        return round(self.clock_offset_ms + time.monotonic() * 1000)

    def start(self, attempt: Attempt) -> None:
        """Start an attempt; `finished` is called when it has ended, in any way."""
        claim = attempt.claim
        try:
            envelope = codec.decode_envelope(claim.envelope)
        except codec.BadEnvelope as error:
            self._refuse(attempt, UNKNOWN, self.verdicts.failed(claim, None, error, 0, for_good=True), error)
            return
        options = envelope.options
        known = self._known.get(envelope.name) or self._look_up(envelope.name)
        if options is not None and (outcome := self.verdicts.expired(claim, options, self.now_ms())) is not None:
            self._refuse(attempt, known.processor.name if known is not None else UNKNOWN, outcome)
            return
        if known is None:
            log.warning("no processor for job %s (%s): handed on", claim.job_id, envelope.name)
            self._refuse(attempt, UNKNOWN, self.verdicts.unknown(claim, envelope.name))
            return
        processor, decoder, terms, attempt.place, _ = known
        if options is not None:
            terms = Terms.of(options, processor, self._settings)
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        try:
            if self._codec is PLAIN:
                data = decoder.decode(envelope.data)
                cursor = codec.decode(claim.cursor) if claim.cursor else None
            elif self._codec.blocking:
                attempt.task = loop.create_task(self._open_and_run(attempt, envelope, known, terms))
                return
            else:
                data, cursor = self._opened(claim, envelope, decoder)
        except Exception as error:
            self._refuse_data(attempt, envelope.name, processor, terms, error)
            return
        run = self._begin(attempt, envelope, known, terms, data, cursor)
        if run is not None:
            attempt.task = loop.create_task(run)

    def _opened(self, claim: Claim, envelope: codec.Envelope, decoder: msgspec.msgpack.Decoder[Any]) -> tuple[Any, Any]:
        """Return a job's data and its cursor."""
        data = decoder.decode(self._codec.open(bytes(envelope.data)))
        return data, codec.decode(self._codec.open(claim.cursor)) if claim.cursor else None

    async def _open_and_run(self, attempt: Attempt, envelope: codec.Envelope, known: Known, terms: Terms) -> None:
        """Run an attempt whose data may have to be fetched; cancelled meanwhile, it ends as one that never began."""
        try:
            data, cursor = await asyncio.to_thread(self._opened, attempt.claim, envelope, known.decoder)
        except Exception as error:
            if not attempt.released:
                self._refuse_data(attempt, envelope.name, known.processor, terms, error)
            return
        if attempt.cancelled is not None:
            self._ended_unbegun(attempt)
        elif not attempt.released and (run := self._begin(attempt, envelope, known, terms, data, cursor)) is not None:
            await run

    def _refuse_data(self, attempt: Attempt, name: str, processor: Processor, terms: Terms, error: Exception) -> None:
        """Fail a job whose data can't be had as its processor needs it: for good, if a retry would find the same."""
        why, for_good = error, True
        if isinstance(error, UnreadablePayload):
            why = UnreadablePayload(f"its data can't be opened: {error}")
        elif isinstance(error, msgspec.DecodeError | ValueError):
            why = Unrecoverable(f"its data does not fit the processor of {name!r}: {_without_values(error)}")
        else:  # the store of payloads is away, or a user's own code raised: a codec's, or that of the data's type
            for_good = False
        outcome = self.verdicts.failed(attempt.claim, terms, why, self.now_ms(), for_good=for_good)
        self._refuse(attempt, processor.name, outcome, why)

    def _begin(
        self, attempt: Attempt, envelope: codec.Envelope, known: Known, terms: Terms, data: Any, cursor: Any
    ) -> Coroutine[Any, Any, None] | None:
        """Return the run of an attempt, with all that its handler sees; None if it is gathered for a batch instead."""
        claim, options, batch = attempt.claim, envelope.options, known.batch
        control = Control(self.store, self._settings, claim, self._loop or asyncio.get_running_loop())
        job = (ActiveJob if batch is None else BatchJob)(
            control, claim.job_id, envelope.name, self.store.queue, data,
            attempt=claim.attempts_made + 1, attempts=terms.attempts, stalls=claim.stalls, children=claim.children,
            tags=options.g if options is not None else (), headers=options.h if options is not None else None,
            key=options.k if options is not None else None, processor=known.processor.name,
            cursor=cursor,
        )  # fmt: skip
        attempt.job = job
        if batch is not None and isinstance(job, BatchJob):
            attempt.task = None
            self.gathering.join(Member(attempt, job, control, terms), known)
            return None
        return self._run(attempt, known, terms, job, control)

    def interrupt(self, attempt: Attempt, reason: str) -> None:
        """End a job that runs as cancelled: however its handler ends from here on, that is how the attempt ends.

        An async handler gets `CancelledError`, a process is killed. A thread can't be stopped: it is told, and has its
        slot until it ends. So is one of several jobs of a batch, which is interrupted for the last of them.
        """
        if attempt.ended or attempt.released or attempt.cancelled is not None or attempt.task is None:
            return
        attempt.cancelled = reason
        if attempt.job is not None:  # else its data is still being fetched
            attempt.job.cancelled = True
        if attempt.place == "thread" or (attempt.batch is not None and not attempt.batch.cancelled):
            return
        if attempt.batch is None:
            attempt.task.add_done_callback(lambda task: self._ended_unbegun(attempt))
        attempt.task.cancel()

    def _ended_unbegun(self, attempt: Attempt) -> None:
        """Report on an attempt that was interrupted before its task had taken a step, and could do so itself."""
        if not attempt.ended and not attempt.released:
            self.finished(attempt, self.verdicts.cancelled(attempt.claim, attempt.cancelled or ""))

    def _refuse(self, attempt: Attempt, processor: str, outcome: Outcome, error: BaseException | None = None) -> None:
        """End an attempt whose handler was not called."""
        self.tell_of_the_end(attempt.claim, processor, outcome, 0.0, self.now_ms(), error)
        self.finished(attempt, outcome)

    def tell_of_the_end(
        self, claim: Claim, processor: str, outcome: Outcome, ran: float, started_ms: int, error: BaseException | None
    ) -> None:
        """Log one line, and tell the observer. The line says what kind of error it was, never what it says."""
        observer = self.store.observer
        level = logging.WARNING if outcome.kind == "fail" else logging.INFO
        if observer is NOBODY and not log.isEnabledFor(level):
            return
        waited = max((started_ms - claim.since_ms) / 1000, 0.0)
        queue, number = self.store.queue, claim.attempts_made + 1
        tell(observer, observer.ended, queue, processor, outcome.kind, ran, waited, number)
        if log.isEnabledFor(level):
            kind = error_of(outcome)
            fields = {
                "event": "attempt_ended", "queue": queue, "job_id": claim.job_id, "attempt": number,
                "processor": processor, "outcome": outcome.kind, "ran": round(ran, 6), "waited": waited, "error": kind,
            }  # fmt: skip
            if error is not None and log.isEnabledFor(logging.DEBUG):
                fields["frames"] = frames_of(error)
            why = f" ({kind})" if kind else ""
            words = WORDS.get(outcome.kind, outcome.kind)
            log.log(level, "job %s of %s: %s after %.3f s%s", claim.job_id, processor, words, ran, why, extra=fields)

    def _look_up(self, name: str) -> Known | None:
        """Find what runs jobs of this name, once."""
        processor = self._processors.find(self.store.queue, name)
        if processor is None:
            return None
        terms = Terms.of(None, processor, self._settings)
        known = Known(processor, codec.typed_decoder(processor.data), terms, processor.place, processor.batch)
        if len(self._known) < MOST_NAMES:
            self._known[name] = known
        return known

    async def _run(self, attempt: Attempt, known: Known, terms: Terms, job: ActiveJob[Any], control: Control) -> None:
        processor = known.processor
        claim, start = attempt.claim, time.monotonic()
        started = round(self.clock_offset_ms + start * 1000)
        token = current_job.set(job)
        failure: BaseException | None = None
        observer = self.store.observer
        running = None if observer is NOBODY else begin(observer, observer.running, job, processor.name)
        # A handler may raise anything, SystemExit and CancelledError included: all of it is how the attempt ended.
        try:
            if self.middleware:
                result = None  # in case one of them swallows what the handler raises
                async with around_run(self.middleware, job):
                    if terms.timeout is not None:
                        result = await self._within(terms.timeout, known, job, control)
                    elif known.place == "loop":
                        result = await processor.handler(job)
                    else:
                        result = await self._elsewhere(known, job, control)
            elif terms.timeout is not None:
                result = await self._within(terms.timeout, known, job, control)
            elif known.place == "loop":
                result = await processor.handler(job)
            else:
                result = await self._elsewhere(known, job, control)
            if result is not None and self._codec.blocking:
                outcome = await asyncio.to_thread(self.verdicts.done, claim, terms, result, started)
            else:
                outcome = self.verdicts.done(claim, terms, result, started)
        except BaseException as error:
            if attempt.released:
                handed_back = self.verdicts.released(claim)
                self.tell_of_the_end(claim, processor.name, handed_back, time.monotonic() - start, started, None)
                if running is not None:
                    tell(observer, running.ended, handed_back.kind, "")
                return
            failure = error
            outcome = self.verdicts.failed(claim, terms, error, started)
        if attempt.cancelled is not None:
            failure, outcome = None, self.verdicts.cancelled(claim, attempt.cancelled, started)
        self.tell_of_the_end(claim, processor.name, outcome, time.monotonic() - start, started, failure)
        if running is not None:
            tell(observer, running.ended, outcome.kind, error_of(outcome))
        current_job.reset(token)  # the next attempt may be started from here
        self.finished(attempt, outcome)

    async def _within(self, timeout: float, known: Known, job: ActiveJob[Any], control: Control) -> Any:
        call = known.processor.handler(job) if known.place == "loop" else self._elsewhere(known, job, control)
        # A process may have to be started first, and to import the handler's module: that is not the handler's time.
        before = PROCESS_START if known.place == "process" else 0.0
        control.limit = limit = asyncio.timeout(before + timeout)
        control.timeout = timeout
        start = time.monotonic()
        try:
            async with limit:
                return await call
        except TimeoutError as error:
            if limit.expired():
                job.cancelled = True
                if known.place == "thread":
                    self.leave_thread(known.processor, f"job {job.id} ({job.name})")
                raise control.timed_out(time.monotonic() - start) from error
            raise

    def leave_thread(self, processor: Processor, what: str) -> None:
        """Leave the thread that runs this to itself."""
        self.threads.leave_one()
        observer = self.store.observer
        tell(observer, observer.thread_left, self.store.queue, processor.name)
        log.warning("%s timed out; its thread can't be stopped and is left", what)

    async def _elsewhere(self, known: Known, job: ActiveJob[Any], control: Control) -> Any:
        """Run a handler that is not for the loop: in a thread, or in a process."""
        if known.place == "process":
            return await self._in_process(known.processor, job, control)
        return await self.threads.run(known.processor.handler, job)

    async def _in_process(self, processor: Processor, job: ActiveJob[Any], control: Control) -> Any:
        limit, memory = self._settings.max_payload, control.memory
        task = Task(
            processor.handler.__module__, job.queue, job.name, job.id, codec.encode_data("data", job.data, limit),
            job.attempt, job.attempts, job.stalls, tuple(job.tags), dict(job.headers), limit, job.key,
            codec.encode_data("the cursor", job.cursor, limit),
        )  # fmt: skip

        async def said(value: Said) -> Told | None:
            if value.kind == "log":
                await job.log(value.body.decode())
            elif value.kind == "started":
                control.started()
            elif value.kind == "extend":
                job.extend_timeout(codec.decode(value.body))
            elif value.kind == "recall":
                return Told(await memory.recall())
            elif value.kind == "remember":
                await memory.remember(*codec.decode(value.body))
                return Told({})
            else:
                await job.progress(codec.decode(value.body))
            return None

        return await self._processes.run(task, said)

    def close(self) -> None:
        """End the processes and let go of the threads; a thread that still runs a handler is left to end by itself."""
        self._processes.close()
        self.threads.close()


def _without_values(error: Exception) -> str:
    """Return what msgspec says of data that does not fit, less the one thing of the data that it may quote."""
    return _QUOTED.sub(r"\1", str(error))


_QUOTED = re.compile(r"^(Invalid (?:enum )?value|Object contains unknown field) .*?(?=$| - at `[^`]*`$)", re.DOTALL)
