"""What the tests of the schedules' transitions share."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamq._engine.scheduling import Firing, NewSchedule, StoredSchedule
from tests.lua.conftest import Bench, envelope

PARKED = 9_000_000_000_000_000
"""The score of a schedule at which nobody is to look."""


def new(
    schedule_id: str = "s", *, timing: str = "t1", overlap: str = "allow", limit: int | None = None, bonds: bytes = b""
) -> NewSchedule:
    """A schedule for lane 2; the scripts never look into its spec."""
    return NewSchedule(schedule_id, b"spec", timing, 2, envelope("report"), overlap, limit, bonds)


def packed(conflict: str) -> bytes:
    """The bonds of jobs with the unique key `k`; `conflict` as in lua/lib/unique.lua."""
    return msgspec.msgpack.encode({"u": {"k": "k", "w": "r", "c": conflict}})


async def scheduled(bench: Bench, next_ms: int | None = 5_000, **fields: object) -> StoredSchedule:
    """Create a schedule whose next slot is given (5,000 is long past), and return it."""
    stored = await bench.store.schedule(new(**fields), 1_000, next_ms)  # type: ignore[arg-type]
    assert isinstance(stored, StoredSchedule)
    bench.woken()
    return stored


async def read(bench: Bench, schedule_id: str = "s") -> StoredSchedule:
    """Read a schedule that exists."""
    (stored,) = await bench.store.schedules([schedule_id])
    return stored


async def fire(
    bench: Bench,
    *slots: int,
    then: int | None,
    missed: int = 0,
    missed_slots: Sequence[int] = (),
    delay_ms: int = 0,
    seen: StoredSchedule | None = None,
) -> Firing | None:
    """Run slots of the schedule `s` as it is now, or as it was `seen`."""
    seen = seen or await read(bench)
    run = [(slot, slot + delay_ms) for slot in slots]
    return await bench.store.fire(seen, then, run=run, missed=missed, missed_slots=missed_slots)


def job_ids(bench: Bench) -> list[str]:
    """The jobs in lane 2, in order."""
    return [parts["j"].decode() for _, parts in bench.lane(2)]
