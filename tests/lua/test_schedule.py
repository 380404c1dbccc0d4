"""schedule: nothing | a schedule -> that schedule as described."""

from __future__ import annotations

import pytest

from streamq._engine.scheduling import StoredSchedule
from tests.lua.conftest import Bench, envelope
from tests.lua.schedules import PARKED, fire, new, scheduled


async def test_a_first_call_is_told_the_time_and_writes_nothing(bench: Bench) -> None:
    before = bench.now_ms()
    found = await bench.store.schedule(new())
    assert isinstance(found, tuple)
    now, anchor = found
    assert before <= now <= bench.now_ms()
    assert anchor is None
    assert bench.dump() == {}


async def test_a_new_schedule_is_due_at_its_next_slot_and_wakes_a_worker(bench: Bench) -> None:
    stored = await bench.store.schedule(new(limit=7, overlap="skip"), 1_000, 5_000)
    assert isinstance(stored, StoredSchedule)
    assert bench.woken()
    assert bench.scores("schedules") == {"s": 5_000}
    assert (stored.spec, stored.lane, stored.envelope) == (b"spec", 2, envelope("report"))
    assert (stored.overlap, stored.limit, stored.anchor_ms, stored.next_ms) == ("skip", 7, 1_000, 5_000)
    assert (stored.fired, stored.missed, stored.skipped, stored.paused, stored.last_job_id) == (0, 0, 0, False, None)


@pytest.mark.parametrize("with_slot", [False, True])
async def test_the_same_again_writes_nothing_and_keeps_the_slot(bench: Bench, with_slot: bool) -> None:
    await scheduled(bench)
    before = bench.dump()
    again = await bench.store.schedule(new(), *((2_000, 9_000) if with_slot else ()))
    assert isinstance(again, StoredSchedule)
    assert (again.next_ms, again.anchor_ms) == (5_000, 1_000)
    assert bench.dump() == before


async def test_other_jobs_at_the_same_times_keep_the_slot_and_change_the_revision(bench: Bench) -> None:
    stored = await scheduled(bench)
    again = await bench.store.schedule(new()._replace(envelope=envelope("other"), lane=1, overlap="queue"))
    assert isinstance(again, StoredSchedule)
    assert (again.next_ms, again.lane, again.envelope, again.overlap) == (5_000, 1, envelope("other"), "queue")
    assert again.rev != stored.rev


async def test_another_timing_needs_a_slot_and_gets_it(bench: Bench) -> None:
    stored = await scheduled(bench)
    before = bench.dump()
    found = await bench.store.schedule(new(timing="t2"))
    assert isinstance(found, tuple)
    assert found[1] == 1_000
    assert bench.dump() == before
    changed = await bench.store.schedule(new(timing="t2"), 1_000, 7_000)
    assert isinstance(changed, StoredSchedule)
    assert changed.next_ms == 7_000
    assert changed.rev != stored.rev
    assert changed.created_ms == stored.created_ms
    assert bench.scores("schedules") == {"s": 7_000}


async def test_an_upsert_keeps_counters_and_a_pause(bench: Bench) -> None:
    await scheduled(bench)
    await fire(bench, 5_000, then=6_000)
    await bench.store.suspend("s")
    changed = await bench.store.schedule(new(timing="t2"), 1_000, 7_000)
    assert isinstance(changed, StoredSchedule)
    assert (changed.fired, changed.paused, changed.next_ms) == (1, True, 7_000)
    assert bench.scores("schedules") == {"s": PARKED}


async def test_a_limit_that_was_reached_before_leaves_no_next_slot(bench: Bench) -> None:
    await scheduled(bench)
    await fire(bench, 5_000, then=6_000)
    ended = await bench.store.schedule(new(timing="t2", limit=1), 1_000, 7_000)
    assert isinstance(ended, StoredSchedule)
    assert ended.next_ms is None
    assert bench.scores("schedules") == {"s": PARKED}
    more = await bench.store.schedule(new(timing="t3", limit=2), 1_000, 7_000)
    assert isinstance(more, StoredSchedule)
    assert more.next_ms == 7_000


async def test_of_two_that_compute_a_new_timing_the_first_one_sets_it(bench: Bench) -> None:
    first = await bench.store.schedule(new(), 1_000, 5_000)
    second = await bench.store.schedule(new(), 1_003, 5_003)
    assert isinstance(first, StoredSchedule)
    assert isinstance(second, StoredSchedule)
    assert (second.anchor_ms, second.next_ms, second.rev) == (1_000, 5_000, first.rev)


async def test_an_index_that_was_lost_is_made_good(bench: Bench) -> None:
    await scheduled(bench)
    bench.redis.delete(bench.key("schedules"))
    await bench.store.schedule(new())
    assert bench.scores("schedules") == {"s": 5_000}
