"""reschedule: delayed -> delayed until another time."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench


async def test_a_time_from_now_replaces_the_old_one(bench: Bench) -> None:
    job_id = await bench.add(start="+60000")
    before = bench.now_ms()
    assert await bench.store.reschedule(job_id, "+5000") == "rescheduled"
    due = bench.scores("delayed")[job_id]
    assert before + 5_000 <= due <= bench.now_ms() + 5_000
    assert int(bench.record(job_id)["u"]) == due
    assert bench.events_of(job_id) == ["delayed", "rescheduled"]


async def test_a_moment_is_taken_as_it_is(bench: Bench) -> None:
    job_id = await bench.add(start="+60000")
    await bench.store.reschedule(job_id, "@4000000000000")
    assert bench.scores("delayed") == {job_id: 4_000_000_000_000}


async def test_a_job_that_becomes_the_earliest_wakes_a_worker(bench: Bench) -> None:
    job_id = await bench.add(start="+60000")
    await bench.add(start="+30000")
    bench.woken()
    await bench.store.reschedule(job_id, "+10")
    assert bench.woken()


async def test_a_later_time_wakes_nobody(bench: Bench) -> None:
    job_id = await bench.add(start="+10000")
    await bench.add(start="+30000")
    bench.woken()
    await bench.store.reschedule(job_id, "+60000")
    assert not bench.woken()


async def test_a_job_that_is_due_at_once_runs_with_the_next_tick(bench: Bench) -> None:
    job_id = await bench.add(start="+60000")
    await bench.store.reschedule(job_id, "+0")
    assert [claim.job_id for claim in await bench.claim()] == [job_id]


@pytest.mark.parametrize("state", ["waiting", "active", "completed", "failed"])
async def test_in_any_other_state_nothing_is_written(bench: Bench, state: str) -> None:
    job_id = await bench.in_state(state)
    before = bench.dump()
    assert await bench.store.reschedule(job_id, "+1000") == state
    assert bench.dump() == before


async def test_an_unknown_job_writes_nothing(bench: Bench) -> None:
    assert await bench.store.reschedule("nobody", "+1000") == "unknown"
    assert bench.dump() == {}
