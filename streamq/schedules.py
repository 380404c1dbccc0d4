"""Schedules as their owners use them: work that comes again, by a cron expression or at a fixed distance.

A schedule lives in Redis and belongs to its queue: whichever worker is there adds its jobs. Every process may upsert it
when it starts; `docs/schedules.md` tells what is promised. The workers' part is `streamq.worker.scheduler`.
"""

from __future__ import annotations

import secrets
from typing import Any, Unpack

import msgspec

from streamq import slots
from streamq._engine import codec
from streamq._engine.scheduling import NewSchedule, StoredSchedule
from streamq._engine.snapshots import moment, readable
from streamq._engine.store import Store
from streamq._engine.transitions import NewJob
from streamq.errors import InvalidInput, ScheduleNotFound, StoreUnavailable
from streamq.job import Job, JobOptions
from streamq.payload import PLAIN, Codec, aside
from streamq.policy import Priority
from streamq.schedule import Schedule, ScheduleFields, ScheduleSnapshot, check_schedule_id, spec_of
from streamq.unique import Unique

RESUME_TRIES = 10


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
        check_schedule_id(id)
        chosen = settings_of(schedule, fields)
        job = await aside(self._store.codec, self._encode, chosen.name, chosen.data, chosen.options, {})
        spec = spec_of(chosen)
        body = msgspec.msgpack.encode(spec)
        timing = slots.timing_of(spec, chosen.limit)
        bonds = job.start.partition(b"|")[2] if isinstance(job.start, bytes) else b""
        new = NewSchedule(id, body, timing, job.lane, job.envelope, chosen.overlap, chosen.limit, bonds)
        found = await self._store.schedule(new)
        if isinstance(found, tuple):
            now, anchor = found
            anchor = spec.start_ms if spec.start_ms is not None else now if anchor is None else anchor
            found = await self._store.schedule(new, anchor, slots.next_slot(spec, anchor, now))
        assert isinstance(found, StoredSchedule)  # noqa: S101 - with an anchor it always answers so
        return await self._seen(found)

    async def schedules(self) -> list[ScheduleSnapshot]:
        """Read all schedules of the queue: the next one due first, paused and ended ones last."""
        found = await self._store.schedules(await self._store.schedule_ids())
        return [await self._seen(stored) for stored in found]

    async def get_schedule(self, id: str) -> ScheduleSnapshot | None:
        """Read a schedule; None if it is unknown."""
        found = await self._store.schedules([check_schedule_id(id)])
        return await self._seen(found[0]) if found else None

    async def pause_schedule(self, id: str) -> None:
        """Let nothing of it fire until it is resumed. Slots that go by meanwhile are not missed: they don't count.

        Raises:
            ScheduleNotFound: It is unknown.
        """
        if await self._store.suspend(check_schedule_id(id)) is None:
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
            DuplicateJob: Another job holds its unique key, and it is to be refused then. Nothing was added.
            StoreError: Redis did not answer in time; whether the job was added is unknown.
        """
        stored = await self._known(id)
        added = await self._store.trigger(id, secrets.token_hex(8))
        if added is None:
            raise ScheduleNotFound(id)
        name = _described(stored)[0]
        return Job(self, added.job_id, name, is_new=added.is_new)  # type: ignore[arg-type]

    async def remove_schedule(self, id: str) -> bool:
        """Remove a schedule; False if it is unknown. Jobs that it has added stay."""
        return await self._store.unschedule(check_schedule_id(id))

    async def _seen(self, stored: StoredSchedule) -> ScheduleSnapshot:
        return await aside(self._store.codec, _snapshot, stored, self._store.codec)

    async def _known(self, schedule_id: str) -> StoredSchedule:
        found = await self._store.schedules([check_schedule_id(schedule_id)])
        if not found:
            raise ScheduleNotFound(schedule_id)
        return found[0]


def settings_of(schedule: Schedule | None, fields: ScheduleFields) -> Schedule:
    known = Schedule.__struct_fields__
    for field in fields:
        if field not in known:
            raise InvalidInput(f"unknown field {field!r}; a schedule has {', '.join(known)}")
    if schedule is None:
        return Schedule(**fields)
    if not isinstance(schedule, Schedule):
        raise InvalidInput(f"schedule must be a Schedule, not {type(schedule).__name__}")
    return msgspec.structs.replace(schedule, **fields) if fields else schedule


def _snapshot(stored: StoredSchedule, opener: Codec = PLAIN) -> ScheduleSnapshot:
    spec = msgspec.msgpack.decode(stored.spec, type=slots.Spec)
    name, data, options = _described(stored, opener)
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


def _described(stored: StoredSchedule, opener: Codec = PLAIN) -> tuple[str, Any, JobOptions]:
    envelope = codec.decode_envelope(stored.envelope)
    said = envelope.options or codec.EnvelopeOptions()
    bonds = msgspec.msgpack.decode(stored.bonds) if stored.bonds else {}
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
        unique=Unique.from_bond(bonds["u"]) if "u" in bonds else None,
        key=said.k,
        webhook=bonds.get("w"),
    )
    return envelope.name, readable(bytes(envelope.data), opener), options
