"""clean: old jobs of one state -> nothing; never active ones."""

from __future__ import annotations

import pytest

from streamq._engine.pages import Step
from tests.lua.conftest import Bench


async def clean(bench: Bench, state: str, *, grace_ms: int = 0, limit: int = 100, step: Step | None = None) -> Step:
    return await bench.store.clean(state, grace_ms, step or Step(), limit, last=False)


@pytest.mark.parametrize("own_id", [False, True])
@pytest.mark.parametrize("state", ["waiting", "delayed", "completed", "failed"])
async def test_jobs_of_the_state_leave_nothing(bench: Bench, state: str, own_id: bool) -> None:
    ids = [await bench.in_state(state, f"mine-{i}" if own_id else "") for i in range(3)]
    step = await clean(bench, state)
    assert (set(step.ids), step.done) == (set(ids), True)
    for job_id in ids:
        assert await bench.store.get(job_id) is None
        assert bench.events_of(job_id)[-1] == "removed"
    assert bench.events()[-1] == ("cleaned", "")
    assert bench.redis.keys("*:job:*") == []
    assert await bench.claim(want=5) == []


@pytest.mark.parametrize("state", ["waiting", "delayed", "completed", "failed"])
async def test_jobs_of_other_states_stay(bench: Bench, state: str) -> None:
    ids = {each: await bench.in_state(each) for each in ("active", "completed", "failed", "delayed", "waiting")}
    step = await clean(bench, state)
    assert step.ids == [ids.pop(state)]
    for other, job_id in ids.items():
        job = await bench.store.get(job_id)
        assert job is not None
        assert job.state == other


async def test_active_jobs_of_the_same_lane_stay_and_end_as_ever(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.add(count=3)
    assert len((await clean(bench, "waiting")).ids) == 3
    assert list(bench.pending()) == [claim.entry]


async def test_a_finished_job_is_as_old_as_its_end(bench: Bench) -> None:
    old, young = await bench.ended("done"), await bench.ended("done")
    bench.redis.zadd(bench.key("completed"), {old.job_id: bench.now_ms() - 60_000})
    assert (await clean(bench, "completed", grace_ms=30_000)).ids == [old.job_id]
    assert list(bench.scores("completed")) == [young.job_id]


async def test_a_delayed_job_is_as_old_as_its_creation(bench: Bench) -> None:
    old, young = await bench.add(start="+90000"), await bench.add(start="+10000")
    bench.redis.hset(bench.key(f"job:{old}"), "c", bench.now_ms() - 60_000)
    assert (await clean(bench, "delayed", grace_ms=30_000)).ids == [old]
    assert list(bench.scores("delayed")) == [young]


async def test_a_waiting_job_is_as_old_as_its_stay_in_the_lane(bench: Bench) -> None:
    await bench.add()
    assert (await clean(bench, "waiting", grace_ms=30_000)).ids == []
    assert len(bench.lane()) == 1


async def test_the_limit_takes_the_oldest_first(bench: Bench) -> None:
    ids = [(await bench.ended("done")).job_id for _ in range(5)]
    for age, job_id in enumerate(reversed(ids)):
        bench.redis.zadd(bench.key("completed"), {job_id: bench.now_ms() - age * 1000 - 1})
    step = await clean(bench, "completed", limit=2)
    assert (list(step.ids), step.done) == (ids[:2], False)


async def test_the_least_urgent_lane_is_cleaned_first(bench: Bench) -> None:
    urgent, idle = await bench.add(lane=1), await bench.add(lane=4)
    assert (await clean(bench, "waiting", limit=1)).ids == [idle]
    assert (await bench.claim())[0].job_id == urgent


@pytest.mark.parametrize("state", ["waiting", "delayed", "completed"])
async def test_in_steps_everything_goes_and_what_comes_meanwhile_stays(bench: Bench, state: str) -> None:
    old = [await bench.in_state(state) for _ in range(5)]
    step = await clean(bench, state, limit=2)
    seen = list(step.ids)
    late = int(step.bound) + 5
    new = await bench.in_state(state)
    if state == "waiting":
        entry, _ = bench.lane()[-1]
        bench.redis.xdel(bench.key("lane:3"), entry)
        new = str(int(new) + 1)
        bench.redis.incr(bench.key("id"))
        bench.redis.xadd(bench.key("lane:3"), {"d": b"x", "t": late}, id=f"{new}-0")
    elif state == "delayed":
        bench.redis.hset(bench.key(f"job:{new}"), "c", late)
    else:
        bench.redis.zadd(bench.key("completed"), {new: late})
    while not step.done:
        step = await clean(bench, state, limit=2, step=step)
        seen += step.ids
    assert sorted(seen) == sorted(old)
    assert await bench.store.get(new) is not None


async def test_delayed_jobs_that_are_too_young_do_not_stop_it(bench: Bench) -> None:
    ids = [await bench.add(start=f"+{60_000 + i * 1000}") for i in range(6)]
    for job_id in ids[3:]:
        bench.redis.hset(bench.key(f"job:{job_id}"), "c", bench.now_ms() - 60_000)
    step, seen = Step(), []
    while not step.done:
        step = await clean(bench, "delayed", grace_ms=30_000, limit=2, step=step)
        seen += step.ids
    assert seen == ids[3:]


async def test_the_dead_letters_of_failed_jobs_stay(bench: Bench) -> None:
    await bench.ended("fail")
    await clean(bench, "failed")
    assert len(bench.dead_letters()) == 1


async def test_a_second_call_finds_nothing(bench: Bench) -> None:
    await bench.ended("done")
    await clean(bench, "completed")
    before = bench.dump("events")
    assert (await clean(bench, "completed")).ids == []
    assert bench.dump("events") == before
