"""What operators do to a queue and to single jobs: pause and limits, retry, remove, and moves of jobs that wait.

`Queue` inherits these. Each call is one script: it checks first and changes nothing if the job is in the wrong state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from streamq._engine import codec
from streamq._engine.store import UNCHANGED, Store
from streamq._engine.transitions import NewJob, bound_start
from streamq._engine.wire import Wire
from streamq.errors import InvalidInput, JobNotFound, StoreRefused, WrongState
from streamq.job import MAX_NAME, JobOptions, check_text
from streamq.middleware import Middleware
from streamq.payload import aside
from streamq.policy import Priority, RateLimit, Seconds, whole
from streamq.settings import Settings

UPDATE_TRIES = 20
MAX_REASON = 500
"""Characters of a reason to cancel."""


class QueueParts:
    """What a queue's operations work with; `Queue` has them."""

    settings: Settings
    _store: Store
    _middleware: Sequence[Middleware]

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._store.queue

    def _new_wire(self) -> Wire:
        """Return a connection for a reader that blocks; the caller closes it."""
        raise NotImplementedError


class Operations(QueueParts):
    """Operations on the queue and on one job."""

    # The queue --------------------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Let no worker start another job. Running jobs go on; jobs that come due wait. Survives restarts."""
        await self._store.pause()

    async def resume(self) -> None:
        """Undo `pause`."""
        await self._store.resume()

    async def set_rate_limit(self, limit: RateLimit | None) -> None:
        """Let at most `limit.max` jobs start in any window of `limit.per` seconds, over all workers; None lifts it."""
        if limit is not None and not isinstance(limit, RateLimit):
            raise InvalidInput(f"limit must be a RateLimit or None, not {limit!r}")
        await self._store.limit(limit, UNCHANGED)

    async def set_concurrency(self, limit: int | None) -> None:
        """Let at most `limit` jobs run at once, over all workers; None lifts it."""
        if limit is not None:
            whole("concurrency", limit, low=1, high=1_000_000)
        await self._store.limit(UNCHANGED, limit)

    async def set_max_size(self, most: int | None) -> None:
        """Let `add` and `add_many` raise `QueueFull` when more than `most` jobs would wait, run or be delayed.

        What is more is refused before anything is written, a batch as a whole. Retries, schedules and jobs that are
        there already are never refused. None lifts the limit.
        """
        if most is not None:
            whole("max_size", most, low=1, high=1_000_000_000)
        await self._store.max_size(most)

    # One job ----------------------------------------------------------------------------------------------------------

    async def retry(self, job_id: str) -> None:
        """Put a failed or cancelled job back at the end of its lane, its attempts counted from nothing.

        A failed one's dead letter is taken back. One whose children have not all ended waits for them, and parents that
        it had failed wait for it again.

        Raises:
            JobNotFound: It is unknown.
            WrongState: It is neither (any more: of two retries at once, one gets this). Nothing was changed.
            DuplicateJob: Another job holds its unique key by now. Nothing was changed.
        """
        _check_moved(job_id, "retry", "retried", await self._store.retry(known_id(job_id)))

    async def remove(self, job_id: str, *, force: bool = False) -> bool:
        """Remove a job and all that is kept of it, its dead letter included; False if it is unknown.

        With `force` a running job goes too: its handler is not interrupted, but whatever it does from there on
        (progress, logs, its end) is dropped, and it does not run again.

        Raises:
            WrongState: A worker is running it, and `force` was not given. Nothing was changed.
        """
        word = await self._store.remove(known_id(job_id), force=force)
        if word == "active":
            raise WrongState(job_id, "remove", word)
        return word == "removed"

    async def cancel(self, job_id: str, reason: str = "") -> bool:
        """Cancel a job; True if it ends as cancelled, False if it is unknown or had ended before.

        One that waits or is delayed is cancelled when this returns. A running one ends as cancelled whatever it does
        from here on: its worker, told within a moment, interrupts an async handler with `CancelledError`, kills the
        process of one that runs there, and sets `job.cancelled` for one that runs in a thread. It is not retried, nor
        run again if its worker dies. Safe to call again; the first call's reason stands.

        Raises:
            InvalidInput: The reason is no text of up to 500 characters; nothing was sent.
        """
        return await self._store.cancel(known_id(job_id), check_reason(reason)) in ("cancelled", "asked")

    async def promote(self, job_id: str) -> None:
        """Let a delayed job wait for a worker now, at the end of its lane.

        Raises:
            JobNotFound: It is unknown.
            WrongState: It is not delayed (any more). Nothing was changed.
        """
        _check_moved(job_id, "promote", "promoted", await self._store.promote(known_id(job_id)))

    async def reschedule(self, job_id: str, *, delay: Seconds | None = None, run_at: datetime | None = None) -> None:
        """Give a delayed job another time: `delay` seconds from now, or an aware datetime.

        Raises:
            InvalidInput: Not exactly one of the two was given, or it makes no sense.
            JobNotFound: It is unknown.
            WrongState: It is not delayed (any more). Nothing was changed.
        """
        if (delay is None) == (run_at is None):
            raise InvalidInput("give delay or run_at, one of the two")
        when = start_of(JobOptions(delay=delay or 0, run_at=run_at))
        word = await self._store.reschedule(known_id(job_id), "+0" if when == "0" else when)
        _check_moved(job_id, "reschedule", "rescheduled", word)

    async def change_priority(self, job_id: str, priority: Priority) -> None:
        """Move a waiting job to the end of another lane, or have a delayed one go there when it is due.

        A job that has this priority already keeps its place.

        Raises:
            JobNotFound: It is unknown.
            WrongState: It neither waits nor is delayed. Nothing was changed.
        """
        lane = int(JobOptions(priority=priority).lane)
        word = await self._store.change_priority(known_id(job_id), lane)
        _check_moved(job_id, "change the priority of", "changed", "changed" if word == "same" else word)

    async def update_data(self, job_id: str, data: Any) -> None:
        """Replace the data of a job that waits, is delayed or has failed; its options stay.

        A waiting job that has never been claimed nor delayed goes to the end of its lane, since its data is part of
        its entry there; any other keeps its place. A failed job's dead letter keeps the old data. Two updates at once
        are both applied, one after the other.

        Raises:
            InvalidInput, PayloadTooLarge: The data does not fit; nothing was sent.
            JobNotFound: It is unknown.
            WrongState: It is in another state. Nothing was changed.
            StoreRefused: Others kept changing it meanwhile. Nothing was changed.
        """
        known_id(job_id)
        body = codec.encode_data("data", data, self.settings.max_payload)
        body = await aside(self._store.codec, self._store.codec.seal, body)
        for _ in range(UPDATE_TRIES):
            stored = await self._store.get(job_id)
            if stored is None:
                raise JobNotFound(job_id)
            try:
                before = codec.decode_envelope(stored.envelope)
            except codec.BadEnvelope as error:
                raise StoreRefused(f"job {job_id} can't be updated: {error}") from None
            envelope = codec.encode_envelope(before.name, body, before.options)
            word = await self._store.update_data(job_id, stored.envelope, envelope)
            if word != "changed":
                _check_moved(job_id, "update the data of", "updated", word)
                return
        raise StoreRefused(f"job {job_id} was changed by others {UPDATE_TRIES} times meanwhile")


def known_id(job_id: str) -> str:
    """Return `job_id`; raise InvalidInput if no job can have it."""
    if not isinstance(job_id, str):
        raise InvalidInput(f"job_id must be text, not {type(job_id).__name__}")
    return check_text("job_id", job_id, MAX_NAME)


def check_reason(reason: str) -> str:
    """Return why a job is cancelled; raise InvalidInput if it can't be stored."""
    if not isinstance(reason, str) or len(reason) > MAX_REASON:
        found = f"{len(reason):,} characters" if isinstance(reason, str) else type(reason).__name__
        raise InvalidInput(f"reason must be text of up to {MAX_REASON} characters, not {found}")
    try:
        reason.encode()
    except UnicodeEncodeError:
        raise InvalidInput("reason holds a lone surrogate, which can't be sent") from None
    return reason


def start_of(options: JobOptions) -> str:
    """Return when a job may start, as the scripts take it."""
    if options.run_at is not None:
        return f"@{max(math.ceil(options.run_at.timestamp() * 1000), 0)}"
    return f"+{options.delay_ms}" if options.delay_ms else "0"


def new_job(name: str, body: bytes, options: JobOptions) -> NewJob:
    """Return a job with options as `add` takes it; `body` is its encoded data."""
    start, bonds = start_of(options), codec.bonds(options)
    envelope = codec.encode_envelope(name, body, codec.envelope_options(options))
    return NewJob(int(options.lane), bound_start(start, bonds) if bonds else start, options.job_id or "", envelope)


def _check_moved(job_id: str, action: str, done: str, word: str) -> None:
    if word == "unknown":
        raise JobNotFound(job_id)
    if word != done:
        raise WrongState(job_id, action, "waiting for another job's end" if word == "parked" else word)
