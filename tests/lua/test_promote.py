"""promote: delayed -> waiting, before it is due."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, envelope, retry


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_a_delayed_job_waits_at_the_end_of_its_lane(bench: Bench, own_id: str) -> None:
    job_id = await bench.add(own_id, lane=2, start="+60000", body=envelope("work", [1]))
    other = await bench.add(lane=2)
    bench.woken()
    assert await bench.store.promote(job_id) == "promoted"
    assert bench.scores("delayed") == {}
    assert [parts.get("j", entry[:-2].encode()) for entry, parts in bench.lane(2)] == [other.encode(), job_id.encode()]
    assert "u" not in bench.record(job_id)
    assert bench.events_of(job_id) == ["delayed", "promoted"]
    assert bench.woken()
    assert (await bench.claim(want=2))[1].envelope == envelope("work", [1])


async def test_a_retry_that_is_not_due_yet_keeps_its_attempts(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[retry(claim, 60_000)])
    await bench.store.promote(claim.job_id)
    assert (await bench.claim())[0].attempts_made == 1


async def test_of_two_calls_the_second_finds_it_waiting_and_writes_nothing(bench: Bench) -> None:
    job_id = await bench.add(start="+60000")
    await bench.store.promote(job_id)
    before = bench.dump()
    assert await bench.store.promote(job_id) == "waiting"
    assert bench.dump() == before


async def test_a_paused_queue_is_not_woken(bench: Bench) -> None:
    job_id = await bench.add(start="+60000")
    await bench.store.pause()
    await bench.store.promote(job_id)
    assert not bench.woken()


@pytest.mark.parametrize("state", ["waiting", "active", "completed", "failed"])
async def test_in_any_other_state_nothing_is_written(bench: Bench, state: str) -> None:
    job_id = await bench.in_state(state)
    before = bench.dump()
    assert await bench.store.promote(job_id) == state
    assert bench.dump() == before


@pytest.mark.parametrize("job_id", ["nobody", "17", "017", "9" * 40])
async def test_an_unknown_job_writes_nothing(bench: Bench, job_id: str) -> None:
    assert await bench.store.promote(job_id) == "unknown"
    assert bench.dump() == {}
