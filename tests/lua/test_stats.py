"""stats: counts the queue's jobs by state."""

from __future__ import annotations

from tests.lua.conftest import Bench


async def test_an_empty_queue_counts_nothing(bench: Bench) -> None:
    counts = await bench.store.stats()
    assert counts.waiting == {1: 0, 2: 0, 3: 0, 4: 0}
    assert (counts.active, counts.delayed, counts.completed, counts.failed, counts.dead) == (0, 0, 0, 0, 0)
    assert (counts.paused, counts.workers) == (False, 0)
    assert counts.oldest_ms == {1: None, 2: None, 3: None, 4: None}
    assert bench.dump() == {}


async def test_every_state_is_counted_and_a_look_writes_nothing(bench: Bench) -> None:
    await bench.ended("done")
    await bench.ended("fail")
    await bench.ended("fail")
    await bench.add(count=5, lane=1)
    await bench.claim(want=2)
    await bench.add(count=4, lane=4)
    await bench.add(start="+9000", count=3)
    await bench.store.pause()
    before = bench.dump()
    counts = await bench.store.stats()
    assert bench.dump() == before
    assert counts.waiting == {1: 3, 2: 0, 3: 0, 4: 4}
    assert (counts.active, counts.delayed, counts.completed, counts.failed, counts.dead) == (2, 3, 1, 2, 2)
    assert (counts.paused, counts.workers) == (True, 1)


async def test_the_age_is_that_of_the_oldest_job_that_waits_not_of_one_that_runs(bench: Bench) -> None:
    lane = bench.key("lane:2")
    now = bench.now_ms()
    bench.redis.xadd(lane, {"d": b"x", "t": now - 90_000}, id="1-0")
    bench.redis.xadd(lane, {"d": b"x", "t": now - 30_000}, id="2-0")
    await bench.claim()
    age = (await bench.store.stats()).oldest_ms[2]
    assert age is not None
    assert 30_000 <= age <= 30_000 + bench.now_ms() - now


async def test_a_lane_of_running_jobs_only_has_no_age(bench: Bench) -> None:
    await bench.claimed()
    counts = await bench.store.stats()
    assert (counts.waiting[3], counts.active, counts.oldest_ms[3]) == (0, 1, None)


async def test_a_worker_whose_lease_has_lapsed_is_not_counted(bench: Bench) -> None:
    await bench.tick("ann")
    await bench.tick("bob")
    bench.lapse("bob")
    assert (await bench.store.stats()).workers == 1
