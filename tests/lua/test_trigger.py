"""trigger: a schedule -> one job of it now, beside its slots."""

from __future__ import annotations

import pytest

from streamq.errors import DuplicateJob
from tests.lua.conftest import Bench
from tests.lua.schedules import fire, job_ids, packed, read, scheduled
from tests.lua.unique import add_one


@pytest.mark.parametrize("paused", [False, True])
async def test_a_job_is_added_and_slots_and_counters_stay(bench: Bench, paused: bool) -> None:
    await scheduled(bench)
    if paused:
        await bench.store.suspend("s")
    before, scores = bench.now_ms(), bench.scores("schedules")
    added = await bench.store.trigger("s", "nonce")
    assert added is not None
    at = int(added.job_id.removeprefix("s@"))
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


@pytest.mark.parametrize("conflict", ["e", "r", "x"])
async def test_while_its_unique_key_is_held_nothing_is_added(bench: Bench, conflict: str) -> None:
    await add_one(bench)
    await scheduled(bench, bonds=packed(conflict))
    if conflict == "x":
        with pytest.raises(DuplicateJob, match="job 1 holds the unique key 'k'"):
            await bench.store.trigger("s", "nonce")
    else:
        assert (await bench.store.trigger("s", "nonce") or ())[:2] == ("1", False)
    assert len(bench.lane(2) + bench.lane(3)) == 1
