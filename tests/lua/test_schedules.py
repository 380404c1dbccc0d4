"""schedules: reads schedules."""

from __future__ import annotations

from tests.lua.conftest import Bench
from tests.lua.schedules import scheduled


async def test_schedules_are_read_in_the_order_asked_for_and_unknown_ones_left_out(bench: Bench) -> None:
    for schedule_id in ("a", "b", "c:d@e"):
        await scheduled(bench, schedule_id=schedule_id)
    before = bench.dump()
    found = await bench.store.schedules(["c:d@e", "nobody", "a"])
    assert [stored.id for stored in found] == ["c:d@e", "a"]
    assert bench.dump() == before


async def test_more_schedules_than_one_call_takes_are_all_read(bench: Bench) -> None:
    ids = [f"s{n}" for n in range(450)]
    for n, schedule_id in enumerate(ids):
        await scheduled(bench, n + 1, schedule_id=schedule_id)
    assert await bench.store.schedule_ids() == ids
    assert [stored.id for stored in await bench.store.schedules(ids)] == ids


async def test_an_empty_queue_has_none(bench: Bench) -> None:
    assert await bench.store.schedule_ids() == []
    assert await bench.store.schedules([]) == []
    assert await bench.store.schedules(["nobody"]) == []
