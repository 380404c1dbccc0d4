"""Schedules as their owners use them: work that comes again, by a cron expression or at a fixed distance.

A schedule lives in Redis and belongs to its queue: whichever worker is there adds its jobs. Every process may upsert it
when it starts; `docs/schedules.md` tells what is promised. The workers' part is `streamq.worker.scheduler`.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from streamq import slots
from streamq._engine import codec
from streamq._engine.scheduling import NewSchedule, StoredSchedule, job_id
from streamq._engine.snapshots import moment
from streamq._engine.store import Store
from streamq._engine.transitions import NewJob
from streamq.errors import InvalidInput, ScheduleNotFound, StoreUnavailable
from streamq.job import MAX_ID, MAX_NAME, Job, JobOptions, check_text
from streamq.policy import Priority, Seconds, seconds, whole

Missed = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "queue", "cancel_previous"]

MAX_SCHEDULE_ID = MAX_ID - len("@") - 15
"""Bytes that leave room for a slot behind them: the two together name a job."""
SHORTEST = 0.1
"""Seconds between the slots of `every`, at the least."""
RESUME_TRIES = 10


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


class Schedules:
    """The part of a queue that deals with its schedules."""

    _store: Store

    def _encode(self, name: str, data: Any, options: JobOptions | None, fields: Any) -> NewJob:
        raise NotImplementedError

    async def upsert_schedule(
        self, id: str, schedule: Schedule | None = None, **fields: Unpack[ScheduleFields]
    ) -> ScheduleSnapshot:
        """Create the schedule `id`, or make it as described; any number of processes may do so at any time.

        Give a `Schedule`, or its fields one by one. The next slot stays if `cron`, `every`, `tz`, `start`, `end` and
        `limit` do; else it is the first one from now on. Counters stay, and a paused schedule stays paused. The slots
        of `every` are `start`, or the first upsert's time, and every `every` seconds after that.

        Raises:
            InvalidInput, PayloadTooLarge: Something does not fit; nothing was sent.
            StoreError: Repeat it: the schedule may be as described, or as it was before.
        """
        _check_id(id)
        chosen = _settings(schedule, fields)
        job = self._encode(chosen.name, chosen.data, chosen.options, {})
        spec = _spec(chosen)
        body = msgspec.msgpack.encode(spec)
        timing = slots.timing_of(spec, chosen.limit)
        new = NewSchedule(id, body, timing, job.lane, job.envelope, chosen.overlap, chosen.limit)
        found = await self._store.schedule(new)
        if isinstance(found, tuple):
            now, anchor = found
            anchor = spec.start_ms if spec.start_ms is not None else now if anchor is None else anchor
            found = await self._store.schedule(new, anchor, slots.next_slot(spec, anchor, now))
        assert isinstance(found, StoredSchedule)  # noqa: S101 - with an anchor it always answers so
        return _snapshot(found)

    async def schedules(self) -> list[ScheduleSnapshot]:
        """Read all schedules of the queue: the next one due first, paused and ended ones last."""
        found = await self._store.schedules(await self._store.schedule_ids())
        return [_snapshot(stored) for stored in found]

    async def get_schedule(self, id: str) -> ScheduleSnapshot | None:
        """Read a schedule; None if it is unknown."""
        found = await self._store.schedules([_check_id(id)])
        return _snapshot(found[0]) if found else None

    async def pause_schedule(self, id: str) -> None:
        """Let nothing of it fire until it is resumed. Slots that go by meanwhile are not missed: they don't count.

        Raises:
            ScheduleNotFound: It is unknown.
        """
        if await self._store.suspend(_check_id(id)) is None:
            raise ScheduleNotFound(id)

    async def resume_schedule(self, id: str) -> None:
        """Undo `pause_schedule`: it goes on with its next regular slot.

        Raises:
            ScheduleNotFound: It is unknown.
        """
        for _ in range(RESUME_TRIES):
            stored = await self._known(id)
            if not stored.paused:
                return
            spec = msgspec.msgpack.decode(stored.spec, type=slots.Spec)
            if await self._store.restart(stored, slots.next_slot(spec, stored.anchor_ms, stored.now_ms)):
                return
        raise StoreUnavailable(f"schedule {id} was changed by others again and again; it stays paused")

    async def trigger_schedule(self, id: str) -> Job:
        """Add one job of a schedule now, paused or not, and return its handle. Slots, limit and counters stay.

        Raises:
            ScheduleNotFound: It is unknown.
            StoreError: Redis did not answer in time; whether the job was added is unknown.
        """
        stored = await self._known(id)
        at = await self._store.trigger(id, secrets.token_hex(8))
        if at is None:
            raise ScheduleNotFound(id)
        return Job(self, job_id(id, at), _described(stored)[0])  # type: ignore[arg-type]

    async def remove_schedule(self, id: str) -> bool:
        """Remove a schedule; False if it is unknown. Jobs that it has added stay."""
        return await self._store.unschedule(_check_id(id))

    async def _known(self, schedule_id: str) -> StoredSchedule:
        found = await self._store.schedules([_check_id(schedule_id)])
        if not found:
            raise ScheduleNotFound(schedule_id)
        return found[0]


def _check_id(schedule_id: str) -> str:
    return check_text("schedule id", schedule_id, MAX_SCHEDULE_ID)


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


def _settings(schedule: Schedule | None, fields: ScheduleFields) -> Schedule:
    known = Schedule.__struct_fields__
    for field in fields:
        if field not in known:
            raise InvalidInput(f"unknown field {field!r}; a schedule has {', '.join(known)}")
    if schedule is None:
        return Schedule(**fields)
    if not isinstance(schedule, Schedule):
        raise InvalidInput(f"schedule must be a Schedule, not {type(schedule).__name__}")
    return msgspec.structs.replace(schedule, **fields) if fields else schedule


def _spec(schedule: Schedule) -> slots.Spec:
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


def _snapshot(stored: StoredSchedule) -> ScheduleSnapshot:
    spec = msgspec.msgpack.decode(stored.spec, type=slots.Spec)
    name, data, options = _described(stored)
    schedule = Schedule(
        cron=spec.cron,
        every=None if spec.every_ms is None else spec.every_ms / 1000,
        name=name,
        data=data,
        options=options,
        tz=spec.tz,
        start=moment(spec.start_ms),
        end=moment(spec.end_ms),
        limit=stored.limit,
        missed=spec.missed,  # type: ignore[arg-type]
        grace=spec.grace_ms / 1000,
        overlap=stored.overlap,  # type: ignore[arg-type]
        jitter=spec.jitter_ms / 1000,
    )
    return ScheduleSnapshot(
        id=stored.id,
        schedule=schedule,
        next_at=None if stored.paused else moment(stored.next_ms),
        paused=stored.paused,
        fired=stored.fired,
        missed=stored.missed,
        skipped=stored.skipped,
        last_job_id=stored.last_job_id,
        waiting_slot=moment(stored.waiting_ms),
        created_at=moment(stored.created_ms),
    )


def _described(stored: StoredSchedule) -> tuple[str, Any, JobOptions]:
    envelope = codec.decode_envelope(stored.envelope)
    said = envelope.options or codec.EnvelopeOptions()
    options = JobOptions(
        priority=Priority(stored.lane),
        attempts=said.a,
        backoff=said.b,
        timeout=said.t,
        keep_completed=said.c,
        keep_failed=said.f,
        expires_in=said.x,
        tags=said.g,
        headers=said.h,
    )
    return envelope.name, codec.decode(bytes(envelope.data)), options
