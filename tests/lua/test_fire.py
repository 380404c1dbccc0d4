"""fire: a schedule's due slots -> jobs, one for each; the schedule -> its next slot."""

from __future__ import annotations

import asyncio

import pytest

from streamq._engine.scheduling import Firing
from streamq.errors import StoreRefused
from tests.lua.conftest import Bench, done, envelope
from tests.lua.schedules import PARKED, fire, job_ids, new, packed, read, scheduled

OVERLAPS = ["allow", "skip", "queue", "cancel_previous"]


@pytest.mark.parametrize("overlap", OVERLAPS)
async def test_a_slot_becomes_a_job_named_after_it_and_the_next_slot_is_next(bench: Bench, overlap: str) -> None:
    await scheduled(bench, overlap=overlap)
    later = bench.now_ms() + 60_000
    done = await fire(bench, 5_000, then=later)
    assert done is not None
    assert (done.added, done.skipped) == (1, 0)
    assert done.next_ms is not None
    assert 59_000 < done.next_ms <= 60_000
    ((_, parts),) = bench.lane(2)
    assert (parts["j"], parts["d"]) == (b"s@5000", envelope("report"))
    stored = await read(bench)
    assert (stored.next_ms, stored.fired, stored.last_job_id) == (later, 1, "s@5000")
    assert bench.scores("schedules") == {"s": later}
    assert bench.events() == [("added", "s@5000")]
    assert bench.woken()


async def test_the_same_firing_again_writes_nothing(bench: Bench) -> None:
    seen = await scheduled(bench)
    await fire(bench, 5_000, then=6_000, seen=seen)
    before = bench.dump()
    assert await fire(bench, 5_000, then=6_000, seen=seen) is None
    assert bench.dump() == before


async def test_of_many_workers_that_fire_the_same_slot_one_does(bench: Bench) -> None:
    seen = await scheduled(bench)
    found = await asyncio.gather(*(fire(bench, 5_000, then=6_000, seen=seen) for _ in range(20)))
    assert sum(firing is not None for firing in found) == 1
    assert job_ids(bench) == ["s@5000"]


@pytest.mark.parametrize("change", ["timing", "jobs", "pause", "pause and restart", "removal", "new under the same id"])
async def test_what_was_computed_for_a_schedule_that_has_changed_since_writes_nothing(
    bench: Bench, change: str
) -> None:
    seen = await scheduled(bench)
    match change:
        case "timing":
            await bench.store.schedule(new(timing="t2"), 1_000, 5_000)
        case "jobs":
            await bench.store.schedule(new(overlap="skip"))
        case "pause":
            await bench.store.suspend("s")
        case "pause and restart":
            await bench.store.suspend("s")
            await bench.store.restart(await read(bench), 5_000)
        case "removal":
            await bench.store.unschedule("s")
        case _:
            await bench.store.unschedule("s")
            await scheduled(bench)
    before = bench.dump()
    assert await fire(bench, 5_000, then=6_000, seen=seen) is None
    assert bench.dump() == before


async def test_a_job_with_jitter_waits_and_its_slot_stays(bench: Bench) -> None:
    slot = bench.now_ms()
    await scheduled(bench, slot)
    await fire(bench, slot, then=slot + 60_000, delay_ms=9_000)
    assert bench.scores("delayed") == {f"s@{slot}": slot + 9_000}
    assert (await read(bench)).next_ms == slot + 60_000


async def test_missed_slots_are_counted_and_named_and_add_nothing(bench: Bench) -> None:
    await scheduled(bench)
    await fire(bench, 8_000, then=9_000, missed=3, missed_slots=[6_000, 7_000])
    stored = await read(bench)
    assert (stored.fired, stored.missed) == (1, 3)
    assert job_ids(bench) == ["s@8000"]
    assert [job_id for kind, job_id in bench.events() if kind == "missed"] == ["s@6000", "s@7000"]


async def test_a_schedule_without_a_next_slot_has_ended_and_stays(bench: Bench) -> None:
    await scheduled(bench)
    assert await fire(bench, 5_000, then=None) == Firing(1, 0, None)
    assert (await read(bench)).next_ms is None
    assert bench.scores("schedules") == {"s": PARKED}
    assert (await bench.tick()).schedules == []


async def test_the_limit_ends_a_schedule_in_the_middle_of_what_is_due(bench: Bench) -> None:
    await scheduled(bench, limit=2)
    await fire(bench, 5_000, 6_000, 7_000, then=8_000)
    stored = await read(bench)
    assert (stored.fired, stored.skipped, stored.next_ms) == (2, 0, None)
    assert job_ids(bench) == ["s@5000", "s@6000"]


async def test_a_slot_whose_job_is_known_adds_nothing_and_is_not_counted(bench: Bench) -> None:
    await bench.add("s@5000", lane=2)
    await scheduled(bench)
    assert await fire(bench, 5_000, 6_000, then=7_000) == Firing(1, 0, 0)
    assert job_ids(bench) == ["s@5000", "s@6000"]
    assert (await read(bench)).fired == 1


async def test_firings_of_a_paused_queue_wait_in_their_lane_and_wake_nobody(bench: Bench) -> None:
    await scheduled(bench)
    await bench.store.pause()
    await fire(bench, 5_000, then=6_000)
    assert job_ids(bench) == ["s@5000"]
    assert not bench.woken()
    assert await bench.claim() == []


async def test_a_full_redis_refuses_a_firing_and_it_is_made_good_when_there_is_room(bench: Bench) -> None:
    await scheduled(bench)
    await bench.tick()  # loads the scripts that a tick hands the schedule out with
    before = bench.dump()
    bench.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreRefused, match="OOM"):
            await fire(bench, 5_000, then=6_000)
        assert bench.dump() == before
    finally:
        bench.redis.config_set("maxmemory", 0)
    assert await fire(bench, 5_000, then=6_000) == Firing(1, 0, 0)


# Overlap --------------------------------------------------------------------------------------------------------------


async def previous(bench: Bench, overlap: str, state: str) -> None:
    """Fire slot 5,000 and bring its job into a state."""
    await scheduled(bench, overlap=overlap)
    await fire(bench, 5_000, then=6_000, delay_ms=10**13 if state == "delayed" else 0)
    if state in ("active", "completed"):
        (claim,) = await bench.claim()
        if state == "completed":
            await bench.tick(outcomes=[done(claim)])


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("gone", [False, True])
async def test_a_slot_after_a_job_that_has_ended_runs(bench: Bench, overlap: str, gone: bool) -> None:
    await previous(bench, overlap, "completed")
    if gone:
        await bench.store.remove("s@5000")
    assert await fire(bench, 6_000, then=7_000) == Firing(1, 0, 0)
    assert (await read(bench)).last_job_id == "s@6000"


@pytest.mark.parametrize("state", ["waiting", "active", "delayed"])
async def test_skip_skips_a_slot_while_the_last_job_has_not_ended(bench: Bench, state: str) -> None:
    await previous(bench, "skip", state)
    assert await fire(bench, 6_000, then=7_000) == Firing(0, 1, 0)
    stored = await read(bench)
    assert (stored.next_ms, stored.fired, stored.skipped, stored.last_job_id) == (7_000, 1, 1, "s@5000")
    assert bench.events()[-1] == ("skipped", "s@6000")


async def test_skip_runs_the_first_of_several_due_slots(bench: Bench) -> None:
    await scheduled(bench, overlap="skip")
    assert await fire(bench, 5_000, 6_000, 7_000, then=8_000) == Firing(1, 2, 0)
    assert job_ids(bench) == ["s@5000"]


@pytest.mark.parametrize("state", ["waiting", "active", "delayed"])
async def test_queue_lets_one_slot_wait_and_runs_it_when_the_last_job_has_ended(bench: Bench, state: str) -> None:
    await previous(bench, "queue", state)
    later = bench.now_ms() + 60_000
    waits = await fire(bench, 6_000, 7_000, then=later)
    assert waits == Firing(0, 1, 500)
    stored = await read(bench)
    assert (stored.waiting_ms, stored.next_ms, stored.fired, stored.skipped) == (6_000, later, 1, 1)
    assert bench.now_ms() < bench.scores("schedules")["s"] <= bench.now_ms() + 500
    await bench.store.remove("s@5000", force=True)
    again = await fire(bench, then=later)
    assert again is not None
    assert again.added == 1
    stored = await read(bench)
    assert (stored.waiting_ms, stored.last_job_id, stored.fired, stored.next_ms) == (None, "s@6000", 2, later)
    assert bench.scores("schedules") == {"s": later}


async def test_a_slot_that_waits_counts_for_the_limit_and_still_runs(bench: Bench) -> None:
    await scheduled(bench, overlap="queue", limit=2)
    await fire(bench, 5_000, 6_000, 7_000, then=8_000)
    stored = await read(bench)
    assert (stored.waiting_ms, stored.next_ms, stored.skipped) == (6_000, None, 0)
    await bench.store.remove("s@5000")
    await fire(bench, then=None)
    assert job_ids(bench) == ["s@6000"]
    assert bench.scores("schedules") == {"s": PARKED}


@pytest.mark.parametrize("state", ["waiting", "delayed", "active"])
async def test_cancel_previous_cancels_the_last_job(bench: Bench, state: str) -> None:
    await previous(bench, "cancel_previous", state)
    held = [*bench.pending(2)]
    assert await fire(bench, 6_000, then=7_000) == Firing(1, 0, 0)
    assert bench.scores("delayed") == {}
    if state == "active":
        asked = (await bench.store.renew("ann", 60_000)).cancels
        assert asked == {held[0]: "its schedule fired again"}
        (claim,) = (await bench.tick(list_held=True)).held
        assert (await bench.tick(outcomes=[done(claim)])).stale == []
    assert job_ids(bench) == ["s@6000"]
    assert bench.pending(2) == {}
    assert bench.record("s@5000")["s"] == b"x"
    assert bench.events_of("s@5000")[-1] == "cancelled"
    assert bench.scores("completed") == {}


async def test_cancel_previous_runs_the_last_of_several_due_slots(bench: Bench) -> None:
    await previous(bench, "cancel_previous", "waiting")
    assert await fire(bench, 6_000, 7_000, 8_000, then=9_000) == Firing(1, 2, 0)
    assert job_ids(bench) == ["s@8000"]


@pytest.mark.parametrize("conflict", ["e", "r", "x"])
async def test_a_slot_whose_jobs_unique_key_is_held_is_skipped(bench: Bench, conflict: str) -> None:
    await scheduled(bench, bonds=packed(conflict))
    assert await fire(bench, 5_000, then=6_000) == Firing(1, 0, 0)
    assert await fire(bench, 6_000, then=7_000) == Firing(0, 1, 0)
    assert ("skipped", "s@6000") in bench.events()
    (claim,) = await bench.claim()
    await bench.tick(outcomes=[done(claim)])
    assert await fire(bench, 7_000, then=8_000) == Firing(1, 0, 0)


async def test_jobs_of_a_schedule_that_loses_its_key_have_none(bench: Bench) -> None:
    await scheduled(bench, bonds=packed("e"))
    await scheduled(bench)
    await fire(bench, 5_000, 6_000, then=7_000)
    assert job_ids(bench) == ["s@5000", "s@6000"]
