"""restart: a paused schedule -> runs again, from the slot that is next by then."""

from __future__ import annotations

from tests.lua.conftest import Bench
from tests.lua.schedules import PARKED, fire, new, read, scheduled


async def test_it_goes_on_with_the_slot_that_is_given_and_wakes_a_worker(bench: Bench) -> None:
    await scheduled(bench)
    await bench.store.suspend("s")
    seen = await read(bench)
    assert await bench.store.restart(seen, 9_000)
    stored = await read(bench)
    assert (stored.paused, stored.next_ms) == (False, 9_000)
    assert stored.rev != seen.rev
    assert bench.scores("schedules") == {"s": 9_000}
    assert bench.woken()


async def test_one_that_has_ended_does_not_start_anew(bench: Bench) -> None:
    await scheduled(bench, limit=1)
    await fire(bench, 5_000, then=6_000)
    await bench.store.suspend("s")
    await bench.store.restart(await read(bench), 9_000)
    assert (await read(bench)).next_ms is None
    assert bench.scores("schedules") == {"s": PARKED}


async def test_one_that_is_not_paused_stays_as_it_is(bench: Bench) -> None:
    seen = await scheduled(bench)
    before = bench.dump()
    assert await bench.store.restart(seen, 9_000)
    assert bench.dump() == before


async def test_a_slot_for_a_schedule_that_has_changed_writes_nothing(bench: Bench) -> None:
    await scheduled(bench)
    await bench.store.suspend("s")
    seen = await read(bench)
    await bench.store.schedule(new(timing="t2"), 1_000, 7_000)
    before = bench.dump()
    assert not await bench.store.restart(seen, 9_000)
    assert bench.dump() == before


async def test_one_that_was_removed_is_not_brought_back(bench: Bench) -> None:
    seen = await scheduled(bench)
    await bench.store.unschedule("s")
    before = bench.dump()
    await bench.store.restart(seen, 9_000)
    assert bench.dump() == before
