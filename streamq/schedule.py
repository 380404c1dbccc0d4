"""A schedule as plain values: the settings it is upserted with, and how it looks at one moment.

Pure: refuses what makes no sense when it is made, with the value's name in the text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from streamq import slots
from streamq.errors import InvalidInput
from streamq.job import MAX_ID, MAX_NAME, JobOptions, check_text
from streamq.policy import Seconds, seconds, whole

Missed = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "queue", "cancel_previous"]

MAX_SCHEDULE_ID = MAX_ID - len("@") - 15
"""Bytes that leave room for a slot behind them: the two together name a job."""
SHORTEST = 0.1
"""Seconds between the slots of `every`, at the least."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """What comes again, when, and what becomes of slots that can't be kept. Times are seconds or timedeltas.

    Attributes:
        cron: Five fields, or six with seconds first, in local time; or an alias such as `@daily`.
        every: The distance of the slots, at least 0.1 s, in real time; either this or `cron`.
        name: The jobs' name.
        data: The jobs' data.
        options: The jobs' options; not `delay`, `run_at` and `job_id`, which the schedule sets.
        tz: The time zone of `cron`.
        start: No slot lies before this; with `every` this is the first one. An aware datetime.
        end: No slot lies after this. An aware datetime.
        limit: How many jobs it adds in all.
        missed: What becomes of slots that nobody was there to fire: `skip` those later than `grace`; run the latest of
            them `once`, for all; or run them `all`.
        grace: How late a slot may be fired by `skip`.
        overlap: What becomes of a slot while the last slot's job has not ended: `allow` both; `skip` it; `queue` it
            behind that job, one at most; or `cancel_previous`, the last one's job.
        jitter: Starts each job up to so much later than its slot, to spread load; the slots stay.
    """

    cron: str | None = None
    every: Seconds | None = None
    name: str = ""
    data: Any = None
    options: JobOptions = JobOptions()
    tz: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    limit: int | None = None
    missed: Missed = "skip"
    grace: Seconds = 30.0
    overlap: Overlap = "allow"
    jitter: Seconds = 0.0

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.every is None):
            raise InvalidInput("give either cron or every" + ("" if self.cron is None else ", not both"))
        if self.cron is not None:
            slots.check_cron(self.cron)
        if self.every is not None:
            seconds("every", self.every, low=SHORTEST)
        check_text("schedule's job name", self.name, MAX_NAME)
        _check_options(self.options)
        _check_zone(self.tz)
        for field in ("start", "end"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, datetime):
                raise InvalidInput(f"{field} must be a datetime, not {value!r}")
            if value is not None and value.utcoffset() is None:
                raise InvalidInput(f"{field} must have a time zone: {value!r} is naive")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise InvalidInput(f"end must not lie before start: {self.end} < {self.start}")
        if self.limit is not None:
            whole("limit", self.limit, low=1, high=1_000_000_000)
        for field, words in (("missed", get_args(Missed)), ("overlap", get_args(Overlap))):
            if getattr(self, field) not in words:
                raise InvalidInput(f"{field} must be one of {', '.join(words)}, not {getattr(self, field)!r}")
        seconds("grace", self.grace)
        seconds("jitter", self.jitter)


class ScheduleFields(TypedDict, total=False):
    """The fields of `Schedule`, as keyword arguments."""

    cron: str | None
    every: Seconds | None
    name: str
    data: Any
    options: JobOptions
    tz: str
    start: datetime | None
    end: datetime | None
    limit: int | None
    missed: Missed
    grace: Seconds
    overlap: Overlap
    jitter: Seconds


class ScheduleSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it was at one moment.

    Attributes:
        id: Its id; the job of a slot is called `<id>@<the slot's milliseconds since 1970>`.
        schedule: What it does.
        next_at: Its next slot; None while it is paused, and when it has come to its end or its limit.
        paused: Whether it is paused.
        fired: How many jobs its slots have added.
        missed: How many slots were not run because nobody fired them in time.
        skipped: How many slots were not run because of `overlap`.
        last_job_id: The last job that it added.
        waiting_slot: The slot that waits for that job's end (`overlap="queue"`).
        created_at: When it was first upserted.
    """

    id: str
    schedule: Schedule
    next_at: datetime | None
    paused: bool
    fired: int
    missed: int
    skipped: int
    last_job_id: str | None
    waiting_slot: datetime | None
    created_at: datetime | None


def check_schedule_id(value: str) -> str:
    """Return `value` if it may be a schedule's id; raise InvalidInput if not."""
    return check_text("schedule id", value, MAX_SCHEDULE_ID)


def spec_of(schedule: Schedule) -> slots.Spec:
    """Return what workers need of it to compute its slots."""
    return slots.Spec(
        cron=None if schedule.cron is None else slots.check_cron(schedule.cron),
        every_ms=None if schedule.every is None else _ms(schedule.every),
        tz=schedule.tz,
        start_ms=None if schedule.start is None else round(schedule.start.timestamp() * 1000),
        end_ms=None if schedule.end is None else round(schedule.end.timestamp() * 1000),
        missed=schedule.missed,
        grace_ms=_ms(schedule.grace),
        jitter_ms=_ms(schedule.jitter),
    )


def _ms(value: Seconds) -> int:
    return round(seconds("time", value) * 1000)


def _check_options(options: JobOptions) -> None:
    if not isinstance(options, JobOptions):
        raise InvalidInput(f"options must be JobOptions, not {type(options).__name__}")
    if options.job_id is not None or options.run_at is not None or options.delay_ms:
        raise InvalidInput("options of a schedule can't have job_id, run_at or delay: each slot sets its own")


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise InvalidInput(f"tz must be the name of a time zone, such as Europe/Berlin, not {name!r}") from None
