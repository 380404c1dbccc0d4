"""The schedules' transitions: a method per script, as in `store`, which inherits them, and what their replies mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from streamq._engine import keys
from streamq._engine.transitions import Added, Arg
from streamq.errors import DuplicateJob
from streamq.settings import Settings

READ_AT_ONCE = 200


class NewSchedule(NamedTuple):
    """A schedule as `schedule` takes it: its id, spec, timing, its jobs, what it goes by, their bonds."""

    schedule_id: str
    spec: bytes
    timing: str
    lane: int
    envelope: bytes
    overlap: str
    limit: int | None
    bonds: bytes = b""


class StoredSchedule(msgspec.Struct, frozen=True):
    """A schedule as Redis holds it at `now_ms`. Times are milliseconds; `next_ms` is None when no slot follows."""

    id: str
    now_ms: int
    spec: bytes
    lane: int
    envelope: bytes
    overlap: str
    limit: int | None
    anchor_ms: int
    next_ms: int | None
    rev: bytes
    created_ms: int
    fired: int
    missed: int
    skipped: int
    paused: bool
    last_job_id: str | None
    waiting_ms: int | None
    bonds: bytes = b""

    @classmethod
    def read(cls, schedule_id: str, now_ms: int, flat: Sequence[bytes]) -> StoredSchedule | None:
        """Read the fields and values of a schedule's hash; None if there are none."""
        if not flat:
            return None
        found = {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)}
        last = found.get("last")
        return cls(
            id=schedule_id,
            now_ms=now_ms,
            spec=found["spec"],
            lane=int(found["lane"]),
            envelope=found["envelope"],
            overlap=found["overlap"].decode(),
            limit=_int(found["limit"]),
            anchor_ms=int(found["anchor"]),
            next_ms=_int(found["next"]),
            rev=found["rev"],
            created_ms=int(found["created"]),
            fired=int(found["fired"]),
            missed=int(found["missed"]),
            skipped=int(found["skipped"]),
            paused="paused" in found,
            last_job_id=None if last is None else last.decode(),
            waiting_ms=_int(found.get("waiting", b"")),
            bonds=found.get("bonds", b""),
        )


class Firing(NamedTuple):
    """What `fire` did. `next_ms`: milliseconds until the schedule is to be looked at again, None if never."""

    added: int
    skipped: int
    next_ms: int | None


class ScheduleTransitions:
    """What happens to schedules. `Store` gives it the one point that all calls pass."""

    base: str
    settings: Settings

    async def _repeat(self, name: str, args: Sequence[Arg], *, within: float | None = None) -> Any:
        raise NotImplementedError

    async def command(self, *command: Arg) -> Any:
        raise NotImplementedError

    async def schedule(
        self, new: NewSchedule, anchor_ms: int | None = None, next_ms: int | None = None
    ) -> StoredSchedule | tuple[int, int | None]:
        """Create a schedule or change it. Without `anchor_ms` this works only if its timing stays as it is.

        Returns the schedule; else, with nothing written, the server's time and the anchor that the schedule has had.
        """
        timing = ["", ""] if anchor_ms is None else [anchor_ms, _text(next_ms)]
        now_ms, word, *rest = await self._repeat("schedule", [*new[:6], _text(new.limit), *timing, new.bonds])
        if word == b"compute":
            return now_ms, _int(rest[0])
        stored = StoredSchedule.read(new.schedule_id, now_ms, rest)
        assert stored is not None  # noqa: S101 - the script has just written it
        return stored

    async def schedule_ids(self) -> list[str]:
        """Return the ids of all schedules, the next one due first, paused and ended ones last."""
        found = await self.command("ZRANGE", keys.schedules(self.base), 0, -1)
        return [schedule_id.decode() for schedule_id in found]

    async def schedules(self, ids: Sequence[str]) -> list[StoredSchedule]:
        """Read schedules; unknown ones are left out."""
        found = []
        for at in range(0, len(ids), READ_AT_ONCE):
            some = ids[at : at + READ_AT_ONCE]
            now_ms, *hashes = await self._repeat("schedules", some)
            for schedule_id, flat in zip(some, hashes, strict=True):
                stored = StoredSchedule.read(schedule_id, now_ms, flat)
                if stored is not None:
                    found.append(stored)
        return found

    async def fire(
        self,
        seen: StoredSchedule,
        next_ms: int | None,
        *,
        run: Sequence[tuple[int, int]],
        missed: int,
        missed_slots: Sequence[int],
    ) -> Firing | None:
        """Run slots, each given with the start of its job, and go on to the next one.

        None, with nothing written, if the schedule is no longer as it was `seen`.
        """
        args: list[Arg] = [seen.id, seen.rev, _text(seen.next_ms), _text(next_ms), self.settings.events_cap]
        args += [self.settings.keep_cancelled.count, self.settings.keep_cancelled.age_ms]
        args += [missed, len(missed_slots), *(job_id(seen.id, slot) for slot in missed_slots)]
        for slot in run:
            args.extend(slot)
        reply = await self._repeat("fire", args)
        if reply[0] < 0:
            return None
        added, skipped, wait = reply
        return Firing(added, skipped, None if wait < 0 else wait)

    async def trigger(self, schedule_id: str, nonce: str) -> Added | None:
        """Add one job of a schedule now; None if the schedule is unknown. The same nonce adds once.

        Raises:
            DuplicateJob: Its unique key is held. Nothing was added.
        """
        at, *instead = await self._repeat("trigger", [schedule_id, nonce, self.settings.events_cap])
        if not instead:
            return Added(job_id(schedule_id, at), True) if at else None
        holder, how, key = (part.decode() for part in instead)
        if how == "refused":
            raise DuplicateJob(holder, key)
        return Added(holder, False, how)

    async def suspend(self, schedule_id: str) -> bool | None:
        """Pause a schedule; False if it was paused, None if it is unknown."""
        done = await self._repeat("suspend", [schedule_id])
        return None if done < 0 else bool(done)

    async def restart(self, seen: StoredSchedule, next_ms: int | None) -> bool:
        """Let a paused schedule run again; False if it is no longer as it was `seen`: read it again."""
        return bool(await self._repeat("restart", [seen.id, seen.rev, _text(next_ms)]) != -2)

    async def unschedule(self, schedule_id: str) -> bool:
        """Remove a schedule; False if it is unknown."""
        return bool(await self._repeat("unschedule", [schedule_id]))


def job_id(schedule_id: str, slot: int) -> str:
    """Name the job of a slot, as the scripts do."""
    return f"{schedule_id}@{slot}"


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def _int(value: bytes) -> int | None:
    return int(value) if value else None
