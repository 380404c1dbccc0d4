"""Schedules of a queue with shards: each is in one of them, with the jobs that it adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from streamq._engine.shards import home
from streamq.errors import InvalidInput
from streamq.job import Job, JobOptions
from streamq.schedule import Schedule, ScheduleFields, ScheduleSnapshot, check_schedule_id
from streamq.schedules import Schedules, settings_of
from streamq.sharding.parts import ShardParts

if TYPE_CHECKING:
    from datetime import datetime

    from streamq.queue import Queue


class ShardedSchedules(ShardParts, Schedules):
    """The part of a queue with shards that deals with its schedules."""

    defaults: JobOptions

    async def upsert_schedule(
        self, id: str, schedule: Schedule | None = None, **fields: Unpack[ScheduleFields]
    ) -> ScheduleSnapshot:
        check_schedule_id(id)
        chosen = settings_of(schedule, fields)
        for field in ("key", "unique"):
            said = getattr(chosen.options, field, None) or getattr(self.defaults, field)
            if said is not None and len(await self._open()) > 1:
                raise InvalidInput(
                    f"schedule {id!r} can't have a {field}: its jobs are in its own shard, not in that's"
                )
        return await (await self._of_schedule(id)).upsert_schedule(id, chosen)

    async def schedules(self) -> list[ScheduleSnapshot]:
        found = [s for part in await self._of_all(lambda shard: shard.schedules()) for s in part]
        return sorted(found, key=_due)

    async def get_schedule(self, id: str) -> ScheduleSnapshot | None:
        return await (await self._of_schedule(id)).get_schedule(id)

    async def pause_schedule(self, id: str) -> None:
        await (await self._of_schedule(id)).pause_schedule(id)

    async def resume_schedule(self, id: str) -> None:
        await (await self._of_schedule(id)).resume_schedule(id)

    async def trigger_schedule(self, id: str) -> Job:
        return await (await self._of_schedule(id)).trigger_schedule(id)

    async def remove_schedule(self, id: str) -> bool:
        return await (await self._of_schedule(id)).remove_schedule(id)

    async def _of_schedule(self, id: str) -> Queue:
        """Return the shard that has a schedule, or else the one that is to have it."""
        check_schedule_id(id)
        shards = await self._open()
        first = shards[home(f"s:{id}", len(shards))]
        if await first.get_schedule(id) is not None:
            return first
        found = await self._of_all(lambda shard: shard.get_schedule(id))
        return next((shard for shard, known in zip(shards, found, strict=True) if known is not None), first)


def _due(schedule: ScheduleSnapshot) -> tuple[bool, datetime | None]:
    return schedule.next_at is None, schedule.next_at or schedule.created_at
