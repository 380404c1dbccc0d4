"""Every error that streamq raises, as one tree, grouped by what the caller does next.

    StreamqError
    ├── InvalidInput (ValueError)         fix the call; nothing was sent
    │   ├── UnencodableData
    │   ├── PayloadTooLarge
    │   └── WrongShards                   the queue is spread over another number of shards (`.stored`)
    ├── StoreError                        try again
    │   ├── StoreUnavailable              Redis did not answer, or not in time
    │   ├── StoreRefused                  Redis answered that it can't (out of memory, read-only, loading …)
    │   ├── OffloadUnavailable            the store of large payloads did not answer as it should
    │   ├── QueueFull                     more jobs than its `max_size`
    │   ├── PartlyAdded                   some shards of the queue took their jobs (`.job_ids`), some did not
    │   └── QueueBusy                     jobs are running in a queue that is to be removed
    ├── JobError                          look at this job (`.job_id`)
    │   ├── JobNotFound
    │   ├── JobFailed                     it ended as failed (`.error`)
    │   ├── JobCancelled                  it was cancelled (`.reason`) or removed before it ended
    │   ├── JobExists                     the id is taken
    │   ├── DuplicateJob                  this job holds the unique key (`.key`)
    │   ├── WrongState                    the job's state does not allow this (`.state`)
    │   ├── ResultNotKept                 it completed, and its result was not kept
    │   ├── JobExpired                    it was not started in time (`expires_in`); how such a job failed
    │   └── StaleLease                    somebody else holds the job now
    ├── ScheduleNotFound                  no schedule has that id (`.schedule_id`)
    ├── ProcessorError                    fix the plugin
    │   ├── UnknownProcessor
    │   ├── UnreadablePayload             sealed by a codec or a key that is not here, or lost
    │   ├── ResultNotEncodable
    │   ├── ResultTooLarge
    │   ├── BadBatchResult                what a handler returned for a batch is no list of one per job
    │   └── HandlerTimeout
    ├── ServerNotFound                    install or name a server
    └── Verdict                           raised by a handler, to say how its attempt ends
        ├── Unrecoverable                 failed now, whatever attempts are left
        ├── RetryAfter                    retry in so many seconds (uses an attempt)
        ├── Snooze                        run again in so many seconds (uses no attempt)
        ├── RateLimited                   hold the whole queue for so many seconds (uses no attempt)
        └── WaitForChildren               run again when its children have ended (uses no attempt)

Each takes its values by position, so that it survives pickling.
"""

from __future__ import annotations


class StreamqError(Exception):
    """The root of all that streamq raises."""


class InvalidInput(StreamqError, ValueError):
    """A value that can't be accepted. Nothing was sent."""


class UnencodableData(InvalidInput):
    """Data that would not come back exactly as it was given. Nothing was sent."""


class PayloadTooLarge(InvalidInput):
    """Data over the size limit. Nothing was sent."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what, self.size, self.limit = what, size, limit

    def __str__(self) -> str:
        return f"{self.what} takes {self.size:,} bytes, over the limit of {self.limit:,} (STREAMQ_MAX_PAYLOAD)"


class WrongShards(InvalidInput):
    """The queue is spread over another number of shards (`stored`; 0: it was used without). Nothing was changed."""

    def __init__(self, queue: str, stored: int, given: int) -> None:
        super().__init__(queue, stored, given)
        self.queue, self.stored, self.given = queue, stored, given

    def __str__(self) -> str:
        change = f"set_shards({self.given})"
        if not self.stored:
            return f"queue {self.queue} was used without shards, not with {self.given}: change that by {change}"
        return f"queue {self.queue} has {self.stored} shards, not {self.given}: give that number, or {change}"


class StoreError(StreamqError):
    """Redis could not do it now; the same call may succeed later."""


class StoreUnavailable(StoreError, ConnectionError):
    """Redis did not answer in time. Whether the call took effect is unknown unless its docstring says so."""


class StoreRefused(StoreError):
    """Redis answered that it can't take the call now (out of memory, loading, read-only). Nothing was written."""


class OffloadUnavailable(StoreError):
    """The store of large payloads could not be written or read. An add that raises this has added nothing."""


class QueueFull(StoreError):
    """The queue is at its `max_size`. Nothing was added."""

    def __init__(self, queue: str, size: int, limit: int) -> None:
        super().__init__(queue, size, limit)
        self.queue, self.size, self.limit = queue, size, limit

    def __str__(self) -> str:
        return f"queue {self.queue} holds {self.size:,} jobs, its limit is {self.limit:,}"


class PartlyAdded(StoreError):
    """Some shards of the queue took their jobs of an `add_many`, some did not; `job_ids` has None for those."""

    def __init__(self, queue: str, job_ids: tuple[str | None, ...], why: str) -> None:
        super().__init__(queue, job_ids, why)
        self.queue, self.job_ids, self.why = queue, job_ids, why

    def __str__(self) -> str:
        there = sum(job_id is not None for job_id in self.job_ids)
        return f"{there:,} of {len(self.job_ids):,} jobs are in queue {self.queue}; the shard of the others: {self.why}"


class QueueBusy(StoreError):
    """Jobs are running in a queue that is to be removed. Nothing was removed; stop its workers, or force it."""

    def __init__(self, queue: str, active: int) -> None:
        super().__init__(queue, active)
        self.queue, self.active = queue, active

    def __str__(self) -> str:
        return f"queue {self.queue} runs {self.active:,} jobs; stop its workers first, or force it"


class JobError(StreamqError):
    """Something about one job."""

    def __init__(self, job_id: str, *rest: object) -> None:
        super().__init__(job_id, *rest)
        self.job_id = job_id


class JobNotFound(JobError):
    """No job of that id exists (any more)."""

    def __str__(self) -> str:
        return f"job {self.job_id} is unknown: it never existed, was removed, or its retention is over"


class JobFailed(JobError):
    """The job ended as failed; `error` is the last attempt's, as text."""

    def __init__(self, job_id: str, error: str) -> None:
        super().__init__(job_id, error)
        self.error = error

    def __str__(self) -> str:
        return f"job {self.job_id} failed: {self.error}"


class JobCancelled(JobError):
    """The job was cancelled, for this `reason` if one was given, or removed before it ended."""

    def __init__(self, job_id: str, reason: str = "") -> None:
        super().__init__(job_id, reason)
        self.reason = reason

    def __str__(self) -> str:
        if self.reason:
            return f"job {self.job_id} was cancelled: {self.reason}"
        return f"job {self.job_id} was cancelled or removed before it ended"


class JobExists(JobError):
    """The id is already in use."""

    def __str__(self) -> str:
        return f"job {self.job_id} exists already"


class DuplicateJob(JobError):
    """Job `job_id` holds the unique key `key`. Nothing was added or changed."""

    def __init__(self, job_id: str, key: str) -> None:
        super().__init__(job_id, key)
        self.key = key

    def __str__(self) -> str:
        return f"job {self.job_id} holds the unique key {self.key!r}"


class WrongState(JobError):
    """The job's state does not allow this. Nothing was changed."""

    def __init__(self, job_id: str, action: str, state: str) -> None:
        super().__init__(job_id, action, state)
        self.action, self.state = action, state

    def __str__(self) -> str:
        return f"cannot {self.action} job {self.job_id}: it is {self.state}"


class ResultNotKept(JobError):
    """The job completed and its retention keeps no result (`keep_completed`)."""

    def __str__(self) -> str:
        return f"job {self.job_id} completed, but its result was not kept (keep_completed)"


class JobExpired(JobError):
    """The job waited longer than its `expires_in` before a worker could start it. It failed; no attempt was used."""

    def __init__(self, job_id: str, waited: float, limit: float) -> None:
        super().__init__(job_id, waited, limit)
        self.waited, self.limit = waited, limit

    def __str__(self) -> str:
        return f"job {self.job_id} expired: it waited {self.waited:.1f} s, and was to start within {self.limit:g} s"


class StaleLease(JobError):
    """The lease moved on before this attempt reported. Nothing was written: drop it."""

    def __init__(self, job_id: str, entry: str) -> None:
        super().__init__(job_id, entry)
        self.entry = entry

    def __str__(self) -> str:
        return f"job {self.job_id}: entry {self.entry} is no longer ours"


class ScheduleNotFound(StreamqError):
    """No schedule of that id exists (any more). Nothing was changed."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(schedule_id)
        self.schedule_id = schedule_id

    def __str__(self) -> str:
        return f"schedule {self.schedule_id} is unknown: it never existed, or was removed"


class ProcessorError(StreamqError):
    """A plugin needs mending."""


class UnknownProcessor(ProcessorError):
    """No processor of this worker has the job's name."""


class UnreadablePayload(ProcessorError):
    """Data or a result is sealed, and can't be opened here: a key is missing, or it is damaged."""


class ResultNotEncodable(ProcessorError):
    """The handler returned something that can't be stored. The job failed and is not retried."""


class ResultTooLarge(ProcessorError):
    """The handler's result is over the size limit. The job failed and is not retried."""


class BadBatchResult(ProcessorError):
    """The handler of a batch returned neither None nor one result per job. They failed and are not retried."""


class HandlerTimeout(ProcessorError):
    """The handler ran longer than the job's `timeout`. The attempt counts as failed."""


class ServerNotFound(StreamqError):
    """No Redis or Valkey server could be found or started."""


class Verdict(StreamqError):
    """Raised by a handler to say how its attempt ends."""


class Unrecoverable(Verdict):
    """Fail the job now, whatever attempts are left."""


class _Wait(Verdict):
    def __init__(self, seconds: float, reason: str = "") -> None:
        if not 0 <= seconds < float("inf"):
            raise InvalidInput(f"{type(self).__name__} takes seconds of 0 or more, not {seconds!r}")
        super().__init__(seconds, reason)
        self.seconds, self.reason = float(seconds), reason

    def __str__(self) -> str:
        return self.reason or f"again in {self.seconds:g} s"


class RetryAfter(_Wait):
    """Fail this attempt and retry in `seconds`, if an attempt is left."""


class Snooze(_Wait):
    """Run the job again in `seconds`; no attempt is used."""


class RateLimited(_Wait):
    """Hold the whole queue for `seconds` and run the job again after; no attempt is used."""


class WaitForChildren(Verdict):
    """Raised by `ActiveJob.add_children`, to end the attempt: let it pass, or the children are not added."""

    def __init__(self, batch: str, parts: int, children: int, keeping: str) -> None:
        super().__init__(batch, parts, children, keeping)
        self.batch, self.parts, self.children, self.keeping = batch, parts, children, keeping

    def __str__(self) -> str:
        return f"runs again when its {self.children:,} children have ended"
