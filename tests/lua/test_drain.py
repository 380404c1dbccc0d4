"""drain: waiting jobs, and delayed ones if asked -> nothing; never active ones."""

from __future__ import annotations

import pytest

from streamq._engine.pages import Step
from tests.lua.conftest import Bench, done


async def drain(bench: Bench, *, delayed: bool = False, limit: int = 100) -> int:
    step, gone = Step(), 0
    while not step.done:
        step = await bench.store.drain(delayed, step, limit)
        gone += step.counted
    return gone


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_what_waits_goes_from_all_lanes(bench: Bench, limit: int) -> None:
    ids = [await bench.add(lane=lane) for lane in (1, 2, 3, 4, 4)]
    assert await drain(bench, limit=limit) == 5
    assert all(bench.lane(lane) == [] for lane in (1, 2, 3, 4))
    assert all(bench.events_of(job_id) == ["added", "removed"] for job_id in ids)
    assert [event for event in bench.events() if event[0] == "drained"] == [("drained", "")]


async def test_active_delayed_and_ended_jobs_stay(bench: Bench) -> None:
    ended, claim = await bench.ended("done"), await bench.claimed()
    delayed = await bench.add(start="+60000")
    await bench.add("own")
    assert await drain(bench) == 1
    assert bench.scores("delayed").keys() == {delayed}
    assert bench.record("own") == {}
    await bench.tick(outcomes=[done(claim)])
    assert bench.scores("completed").keys() == {ended.job_id, claim.job_id}


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_delayed_jobs_go_too_if_asked(bench: Bench, limit: int) -> None:
    for start in ("0", "+60000", "+70000", "+80000"):
        await bench.add(start=start)
    assert await drain(bench, delayed=True, limit=limit) == 4
    assert bench.scores("delayed") == {}
    assert bench.redis.keys("*:job:*") == []


async def test_a_job_that_comes_after_the_first_step_stays(bench: Bench) -> None:
    await bench.add(count=3)
    step = await bench.store.drain(False, Step(), 2)
    bench.redis.incr(bench.key("id"))
    bench.redis.xadd(bench.key("lane:3"), {"d": b"x", "t": int(step.bound) + 1}, id="4-0")
    step = await bench.store.drain(False, step, 2)
    assert (step.counted, step.done) == (1, True)
    assert [entry for entry, _ in bench.lane()] == ["4-0"]


async def test_an_empty_queue_says_so(bench: Bench) -> None:
    assert await drain(bench, delayed=True) == 0
    assert bench.events() == [("drained", "")]
