"""unschedule: a schedule -> nothing."""

from __future__ import annotations

from tests.lua.conftest import Bench
from tests.lua.schedules import fire, job_ids, scheduled


async def test_nothing_of_it_is_left_but_its_jobs(bench: Bench) -> None:
    await scheduled(bench)
    await fire(bench, 5_000, then=6_000)
    assert await bench.store.unschedule("s")
    assert await bench.store.schedule_ids() == []
    assert await bench.store.schedules(["s"]) == []
    assert bench.redis.keys("*:schedule*") == []
    assert job_ids(bench) == ["s@5000"]


async def test_an_unknown_schedule_writes_nothing(bench: Bench) -> None:
    await scheduled(bench, schedule_id="other")
    before = bench.dump()
    assert not await bench.store.unschedule("s")
    assert bench.dump() == before
