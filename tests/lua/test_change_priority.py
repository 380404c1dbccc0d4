"""change_priority: waiting -> waiting at the end of another lane; delayed -> delayed, bound for another lane."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, envelope, retry


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_a_waiting_job_goes_to_the_end_of_the_other_lane(bench: Bench, own_id: str) -> None:
    job_id = await bench.add(own_id, lane=4, body=envelope("work", [1]))
    created = bench.lane(4)[0][1]["t"]
    other = await bench.add(lane=1)
    assert await bench.store.change_priority(job_id, 1) == "changed"
    assert bench.lane(4) == []
    (first, _), (entry, parts) = bench.lane(1)
    assert (first, parts["j"]) == (f"{other}-0", job_id.encode())
    record = bench.record(job_id)
    assert (record["s"], record["p"], record["e"], record["c"]) == (b"q", b"1", entry.encode(), created)
    assert bench.events_of(job_id) == ["added", "reprioritized"]
    assert [claim.envelope for claim in await bench.claim(want=2)][1] == envelope("work", [1])


async def test_a_job_that_was_retried_keeps_its_history(bench: Bench) -> None:
    claim = await bench.claimed(lane=3)
    await bench.tick(outcomes=[retry(claim)])
    await bench.store.change_priority(claim.job_id, 1)
    again = (await bench.claim())[0]
    assert (again.lane, again.job_id, again.attempts_made, again.envelope) == (1, claim.job_id, 1, claim.envelope)


async def test_a_delayed_job_will_wait_in_the_other_lane(bench: Bench) -> None:
    job_id = await bench.add(lane=3, start="+60000")
    assert await bench.store.change_priority(job_id, 2) == "changed"
    assert bench.record(job_id)["p"] == b"2"
    await bench.store.promote(job_id)
    assert [parts["j"] for _, parts in bench.lane(2)] == [job_id.encode()]


@pytest.mark.parametrize("state", ["waiting", "delayed"])
async def test_the_same_priority_keeps_its_place_and_writes_nothing(bench: Bench, state: str) -> None:
    job_id = await bench.in_state(state)
    before = bench.dump()
    assert await bench.store.change_priority(job_id, 3) == "same"
    assert bench.dump() == before


async def test_the_old_entry_is_never_claimed(bench: Bench) -> None:
    job_id = await bench.add(lane=3)
    await bench.store.change_priority(job_id, 4)
    assert [(claim.lane, claim.job_id) for claim in await bench.claim(want=5)] == [(4, job_id)]


@pytest.mark.parametrize("state", ["active", "completed", "failed"])
async def test_in_any_other_state_nothing_is_written(bench: Bench, state: str) -> None:
    job_id = await bench.in_state(state)
    before = bench.dump()
    assert await bench.store.change_priority(job_id, 1) == state
    assert bench.dump() == before


async def test_an_unknown_job_writes_nothing(bench: Bench) -> None:
    assert await bench.store.change_priority("nobody", 1) == "unknown"
    assert bench.dump() == {}
