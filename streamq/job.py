"""A job as its producer sees it: the options it is added with, the handle that `add` returns, the snapshot of a look.

Nothing here talks to Redis: a `Job` asks the queue that it came from.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from streamq.errors import InvalidInput
from streamq.names import MAX_ID as MAX_ID
from streamq.names import MAX_NAME as MAX_NAME
from streamq.names import check_text as check_text
from streamq.policy import Backoff, Priority, Retention, Seconds, seconds, whole
from streamq.unique import Unique

MAX_TAGS = 16
MAX_HEADERS = 4_096
MAX_URL = 2_000
MAX_TOLD_ID = 200
"""Bytes of the id of a job that a webhook is told of: the telling job's id holds it, and more."""
_DIGITS = re.compile(r"[0-9]+\Z")
_SHARD = re.compile(r"#[0-9]+\Z")
_TAGGED = re.compile(r"\{([^{}]+)\}([^{}]+)\Z")


class QueueName(enum.StrEnum):
    """The bank's seven queues. Any other valid name works as well."""

    REPORTS = "reports"
    EMAILS = "emails"
    IMPORTS = "imports"
    EXPORTS = "exports"
    NOTIFICATIONS = "notifications"
    CALCULATIONS = "calculations"
    INTEGRATIONS = "integrations"


class JobState(enum.StrEnum):
    """Where a job is. `docs/state-machine.md` draws the moves."""

    WAITING = "waiting"
    ACTIVE = "active"
    DELAYED = "delayed"
    WAITING_CHILDREN = "waiting_children"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether this state is final."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


def queue_name(value: str) -> str:
    """Return a queue's name as plain text, also that of an enum's member; raise InvalidInput if none may have it.

    It may begin with a tag in braces, as `{bank}reports` does: queues with the same tag share a slot of a cluster.
    """
    if isinstance(value, str) and (tagged := _TAGGED.match(value)):
        tag, rest = tagged.groups()
        check_text("queue name", f"{tag}{rest}", MAX_NAME - 2)
        if ":" in rest:  # or a key of this queue could be one of {tag}'s
            raise InvalidInput(f"queue name must not contain ':' behind its tag: {value[:60]!r}")
    else:
        tag = check_text("queue name", value, MAX_NAME)
    if _SHARD.search(tag):
        raise InvalidInput(
            f"queue name must not end in '#' and a number, nor its tag (shards' keys do): {value[:60]!r}"
        )
    return str.__str__(value)


def check_job_id(value: str) -> str:
    """Return `value` if it may be a custom job id; raise InvalidInput if not.

    Numbers are refused: a generated id could ever equal one.
    """
    check_text("job_id", value, MAX_ID)
    if _DIGITS.match(value):
        raise InvalidInput(f"job_id must not be all digits (generated ids are): {value!r}")
    return value


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one job is to be run. `None` leaves it to the processor, then to the worker's settings.

    Attributes:
        priority: The lane. Not said, it is the queue's default, or else NORMAL.
        attempts: How often the job may fail, the first time included, before it is failed for good.
        delay: Seconds (or a timedelta) before it may start; not together with `run_at`.
        run_at: The moment from which it may start; an aware datetime.
        backoff: The wait between attempts.
        timeout: Seconds that one attempt may take.
        job_id: An id of your own; while a job of that id is known, adding it again returns that one.
        keep_completed: How many completed jobs to keep, and how long.
        keep_failed: How many failed jobs to keep, and how long.
        expires_in: Seconds that the job may wait in its lane for its first start; then it fails as expired, without
            using an attempt. A delay does not count; neither does a retry, by whomever.
        tags: Up to 16 words that its snapshots and its handler see.
        headers: Text by name for whoever handles the job (trace ids, tenants …), up to 4 KB in all.
        unique: A key that only one job holds at a time; see `Unique`.
        key: Whom it is for: a tenant, an account. Keys share the workers fairly, and each can be limited: see
            `Queue.limit_key`.
        webhook: A URL that is told when the job has completed, failed for good or been cancelled; see
            `streamq.webhooks`, which workers of the queue need for it.
    """

    priority: Priority | msgspec.UnsetType = msgspec.UNSET
    attempts: int | None = None
    delay: Seconds = 0
    run_at: datetime | None = None
    backoff: Backoff | None = None
    timeout: Seconds | None = None
    job_id: str | None = None
    keep_completed: Retention | None = None
    keep_failed: Retention | None = None
    expires_in: Seconds | None = None
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] | None = None
    unique: Unique | None = None
    key: str | None = None
    webhook: str | None = None

    def __post_init__(self) -> None:
        try:
            Priority(self.lane)
        except ValueError:
            raise InvalidInput(f"priority must be 1 (critical) to 4 (low), not {self.priority!r}") from None
        if self.attempts is not None:
            whole("attempts", self.attempts, low=1, high=1000)
        if seconds("delay", self.delay) and self.run_at is not None:
            raise InvalidInput("give delay or run_at, not both")
        if self.run_at is not None:
            if not isinstance(self.run_at, datetime):
                raise InvalidInput(f"run_at must be a datetime, not {self.run_at!r}")
            if self.run_at.tzinfo is None:
                raise InvalidInput(f"run_at must have a time zone: {self.run_at!r} is naive")
        if self.timeout is not None:
            seconds("timeout", self.timeout, low=0.001)
        if self.job_id is not None:
            check_job_id(self.job_id)
        for name, kind in _KINDS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise InvalidInput(f"{name} must be a {kind.__name__}, not {value!r}")
        if self.expires_in is not None:
            seconds("expires_in", self.expires_in, low=0.001)
        if self.tags != ():
            _check_tags(self.tags)
        if self.headers is not None:
            _check_headers(self.headers)
        if self.key is not None:
            check_text("key", self.key, MAX_NAME)
        if self.webhook is not None:
            _check_webhook(self.webhook, self.job_id)

    @property
    def lane(self) -> Priority:
        """The lane: NORMAL if nothing was said."""
        return Priority.NORMAL if self.priority is msgspec.UNSET else self.priority

    @property
    def delay_ms(self) -> int:
        """The delay in milliseconds, rounded up so that nothing starts early."""
        delay = self.delay.total_seconds() if isinstance(self.delay, timedelta) else self.delay
        return math.ceil(delay * 1000)

    @property
    def timeout_seconds(self) -> float | None:
        """The timeout in seconds."""
        return self.timeout.total_seconds() if isinstance(self.timeout, timedelta) else self.timeout

    @property
    def expires_seconds(self) -> float | None:
        """The time to the first start in seconds."""
        return self.expires_in.total_seconds() if isinstance(self.expires_in, timedelta) else self.expires_in


_KINDS = (("backoff", Backoff), ("keep_completed", Retention), ("keep_failed", Retention), ("unique", Unique))


def _check_webhook(url: Any, job_id: str | None) -> None:
    if not isinstance(url, str) or len(url) > MAX_URL:
        raise InvalidInput(f"webhook must be a URL of up to {MAX_URL:,} characters, not {url!r:.100}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(
            f"webhook must be an http(s) URL without a password in it, not {url.rpartition('@')[2]!r:.100}"
        )
    if job_id is not None and len(job_id.encode()) > MAX_TOLD_ID:
        raise InvalidInput(f"with a webhook, job_id may take {MAX_TOLD_ID} bytes, not {len(job_id.encode())}")


def _check_tags(tags: Any) -> None:
    if isinstance(tags, str) or not isinstance(tags, tuple | list) or len(tags) > MAX_TAGS:
        raise InvalidInput(f"tags must be a tuple of up to {MAX_TAGS} words, not {tags!r:.100}")
    for tag in tags:
        check_text("a tag", tag, MAX_NAME)


def _check_headers(headers: Any) -> None:
    if not isinstance(headers, Mapping):
        raise InvalidInput(f"headers must be a mapping of text to text, not {type(headers).__name__}")
    size = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidInput(f"headers must be text by name, not {name!r}: {type(value).__name__}")
        try:
            size += len(name.encode()) + len(value.encode())
        except UnicodeEncodeError:
            raise InvalidInput(f"header {name!r} holds a lone surrogate, which can't be sent") from None
    if size > MAX_HEADERS:
        raise InvalidInput(f"headers take {size:,} bytes, over the limit of {MAX_HEADERS:,}")


class JobError(msgspec.Struct, frozen=True, array_like=True):
    """How an attempt failed: the exception's type name, its text (cut at a limit), and a bounded traceback."""

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class JobSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was at one moment, read from Redis by `Queue.get_job`.

    `cancel_reason` is what a cancelled job was cancelled for, "" included; None in every other state.
    """

    id: str
    queue: str
    name: str
    data: Any
    state: JobState
    priority: Priority
    progress: Any = None
    attempts_made: int = 0
    stalls: int = 0
    interruptions: int = 0
    result: Any = None
    error: JobError | None = None
    errors: dict[int, JobError] = {}
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    run_at: datetime | None = None
    cancel_reason: str | None = None
    tags: tuple[str, ...] = ()
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    unique_key: str | None = None
    parents: tuple[tuple[str, str], ...] = ()
    """The jobs that wait for it: queue and id of each."""
    children: int = 0
    """How many children it has had."""
    open_children: int = 0
    """How many of those have not ended."""
    key: str | None = None


class JobSource(Protocol):
    """What a `Job` needs of its queue."""

    @property
    def name(self) -> str: ...
    async def get_job(self, job_id: str) -> JobSnapshot | None: ...
    async def result(self, job_id: str, timeout: Seconds | None = None) -> Any: ...
    async def cancel(self, job_id: str, reason: str = "") -> bool: ...


class Job:
    """The handle that `add` returns: the job's id, and ways to follow it. It holds no state of the job.

    `is_new` is False when nothing was added: a job of that id was there already, or the one that holds the unique key.
    """

    __slots__ = ("_queue", "id", "is_new", "name")

    def __init__(self, queue: JobSource, job_id: str, name: str, *, is_new: bool = True) -> None:
        self._queue, self.id, self.name, self.is_new = queue, job_id, name, is_new

    def __repr__(self) -> str:
        return f"<Job {self._queue.name}/{self.id} {self.name}>"

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue.name

    async def snapshot(self) -> JobSnapshot | None:
        """Read the job as it is now; None once it is removed or its retention is over."""
        return await self._queue.get_job(self.id)

    async def result(self, timeout: Seconds | None = None) -> Any:
        """Wait until the job has ended and return its result.

        Raises:
            JobFailed: It ended as failed.
            JobCancelled: It was cancelled (`.reason` says why) or removed.
            ResultNotKept: It completed, but its retention keeps no result.
            TimeoutError: `timeout` seconds went by; the job goes on.
        """
        return await self._queue.result(self.id, timeout)

    async def cancel(self, reason: str = "") -> bool:
        """Cancel the job; True if it ends as cancelled, False if it had ended before. See `Queue.cancel`."""
        return await self._queue.cancel(self.id, reason)
