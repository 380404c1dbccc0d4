"""max_size: how many jobs a queue takes -> another number; what `add` and `commit` make of it."""

from __future__ import annotations

import pytest

from streamq._engine.transitions import NewJob
from streamq.errors import QueueFull
from tests.lua.conftest import Bench, done, envelope

JOB = NewJob(3, "0", "", envelope())


async def test_an_add_over_the_limit_writes_nothing(bench: Bench) -> None:
    await bench.store.max_size(3)
    await bench.add()
    await bench.claim()
    await bench.add(start="+60000")
    before = bench.dump()
    with pytest.raises(QueueFull) as full:
        await bench.add_raw(JOB, JOB)
    assert (full.value.queue, full.value.size, full.value.limit) == ("q", 2, 3)
    assert bench.dump() == before
    await bench.add()


async def test_there_is_room_again_when_a_job_has_ended(bench: Bench) -> None:
    await bench.store.max_size(1)
    claim = await bench.claimed()
    with pytest.raises(QueueFull):
        await bench.add()
    await bench.tick(outcomes=[done(claim)])
    await bench.add()


async def test_a_job_that_is_there_already_is_not_counted(bench: Bench) -> None:
    await bench.store.max_size(2)
    await bench.add("mine")
    reply = await bench.add_raw(NewJob(3, "0", "mine", envelope()), JOB)
    assert reply[1:] == [1]


async def test_a_batch_that_does_not_fit_goes_away_whole(bench: Bench) -> None:
    await bench.store.max_size(2)
    await bench.store.stage("b", 0, [JOB] * 3)
    with pytest.raises(QueueFull):
        await bench.store.commit("n", 1, "b", 1)
    assert bench.lane() == []
    assert bench.redis.keys("*batch*") == []


async def test_a_batch_that_fits_is_taken(bench: Bench) -> None:
    await bench.store.max_size(3)
    await bench.store.stage("b", 0, [JOB] * 3)
    await bench.store.commit("n", 1, "b", 1)
    assert len(bench.lane()) == 3


async def test_an_add_whose_reply_was_lost_is_answered_though_the_queue_is_full_now(bench: Bench) -> None:
    await bench.store.max_size(1)
    first = await bench.add_raw(JOB, number=1)
    assert await bench.add_raw(JOB, number=1) == first


async def test_none_lifts_the_limit(bench: Bench) -> None:
    await bench.store.max_size(1)
    await bench.store.max_size(None)
    await bench.add(count=5)
    assert bench.redis.hget(bench.key("meta"), "max_size") is None


async def test_retries_are_never_refused(bench: Bench) -> None:
    claim = await bench.ended("fail")
    await bench.store.max_size(1)
    await bench.add()
    assert await bench.store.retry(claim.job_id) == "retried"
