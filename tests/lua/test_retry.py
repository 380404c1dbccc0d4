"""retry: failed -> waiting in its own lane, its attempts counted from nothing."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, envelope


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_a_failed_job_waits_again_in_its_own_lane(bench: Bench, own_id: str) -> None:
    claim = await bench.ended("fail", own_id, lane=2, body=envelope("work", [1]))
    bench.redis.hset(bench.key(f"job:{claim.job_id}"), mapping={"k": 2, "g": b"\x05"})
    other = await bench.add(lane=2)
    assert await bench.store.retry(claim.job_id) == "retried"
    assert bench.scores("failed") == {}
    (first, _), (entry, parts) = bench.lane(2)
    assert first == f"{other}-0"
    assert parts["j"] == claim.job_id.encode()
    record = bench.record(claim.job_id)
    assert (record["s"], record["e"], record["a"], record["k"]) == (b"q", entry.encode(), b"0", b"0")
    assert not {"f", "b", "g", "q", "m"} & set(record)
    assert bench.events_of(claim.job_id)[-1] == "added"
    again = (await bench.claim(want=5))[1]
    assert (again.job_id, again.envelope, again.attempts_made) == (claim.job_id, envelope("work", [1]), 0)


async def test_its_dead_letter_is_taken_back_and_no_other_one(bench: Bench) -> None:
    claim, other = await bench.ended(), await bench.ended()
    await bench.store.retry(claim.job_id)
    assert [letter["j"] for letter in bench.dead_letters()] == [other.job_id.encode()]


async def test_a_second_retry_finds_it_waiting_and_writes_nothing(bench: Bench) -> None:
    claim = await bench.ended()
    await bench.store.retry(claim.job_id)
    before = bench.dump()
    assert await bench.store.retry(claim.job_id) == "waiting"
    assert bench.dump() == before


@pytest.mark.parametrize("state", ["waiting", "active", "delayed", "completed"])
@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_in_any_other_state_nothing_is_written(bench: Bench, state: str, own_id: str) -> None:
    if state == "completed":
        job_id = (await bench.ended("done", own_id)).job_id
    elif state == "active":
        job_id = (await bench.claimed(own_id)).job_id
    else:
        job_id = await bench.add(own_id, start="+9000" if state == "delayed" else "0")
    before = bench.dump()
    assert await bench.store.retry(job_id) == state
    assert bench.dump() == before


@pytest.mark.parametrize("job_id", ["nobody", "17"])
async def test_an_unknown_job_writes_nothing(bench: Bench, job_id: str) -> None:
    assert await bench.store.retry(job_id) == "unknown"
    assert bench.dump() == {}


async def test_a_retry_wakes_a_worker_unless_the_queue_is_paused(bench: Bench) -> None:
    one, two = await bench.ended(), await bench.ended()
    bench.woken()
    await bench.store.retry(one.job_id)
    assert bench.woken()
    await bench.store.pause()
    await bench.store.retry(two.job_id)
    assert not bench.woken()
