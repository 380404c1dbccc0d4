"""trigger: a schedule -> one job of it now, beside its slots."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench
from tests.lua.schedules import fire, job_ids, read, scheduled


@pytest.mark.parametrize("paused", [False, True])
async def test_a_job_is_added_and_slots_and_counters_stay(bench: Bench, paused: bool) -> None:
    await scheduled(bench)
    if paused:
        await bench.store.suspend("s")
    before, scores = bench.now_ms(), bench.scores("schedules")
    at = await bench.store.trigger("s", "nonce")
    assert at is not None
    assert before <= at <= bench.now_ms()
    assert job_ids(bench) == [f"s@{at}"]
    stored = await read(bench)
    assert (stored.next_ms, stored.fired, stored.last_job_id) == (5_000, 0, f"s@{at}")
    assert bench.scores("schedules") == scores
    assert bench.woken()


async def test_the_same_call_again_adds_nothing(bench: Bench) -> None:
    await scheduled(bench)
    at = await bench.store.trigger("s", "nonce")
    assert await bench.store.trigger("s", "nonce") == at
    assert len(job_ids(bench)) == 1


async def test_two_calls_in_one_millisecond_add_two_jobs(bench: Bench) -> None:
    await scheduled(bench)
    found = {await bench.store.trigger("s", f"nonce{n}") for n in range(50)}
    assert len(found) == 50
    assert len(set(job_ids(bench))) == 50


async def test_a_slot_s_job_that_has_not_ended_stays_the_last_one(bench: Bench) -> None:
    await scheduled(bench, overlap="skip")
    await fire(bench, 5_000, then=6_000)
    await bench.store.trigger("s", "nonce")
    assert (await read(bench)).last_job_id == "s@5000"


async def test_an_unknown_schedule_writes_nothing(bench: Bench) -> None:
    assert await bench.store.trigger("nobody", "nonce") is None
    assert bench.dump() == {}
