"""tick, retain: ended jobs over the count or the age that are kept -> nothing."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, EndsBy, done, fail

HOUR_MS = 3_600_000


@pytest.mark.parametrize(("ends", "kept"), [(done, "completed"), (fail, "failed")])
async def test_of_the_ended_jobs_the_latest_are_kept(bench: Bench, ends: EndsBy, kept: str) -> None:
    ids = []
    for _ in range(5):
        claim = await bench.claimed()
        ids.append(claim.job_id)
        await bench.tick(outcomes=[ends(claim, keep=2)])
    assert list(bench.scores(kept)) == ids[-2:]
    assert [bool(bench.record(job_id)) for job_id in ids] == [False, False, False, True, True]


async def test_many_that_end_in_one_call_are_trimmed_in_it(bench: Bench) -> None:
    await bench.add(count=300)
    await bench.tick(outcomes=[done(claim, keep=10) for claim in await bench.claim(want=300)])
    assert len(bench.scores("completed")) == 10
    assert len(bench.redis.keys("*:job:*")) == 10


async def test_the_two_endings_are_kept_apart(bench: Bench) -> None:
    await bench.ended("done")
    claim = await bench.claimed()
    await bench.tick(outcomes=[fail(claim, keep=1)])
    assert (len(bench.scores("completed")), len(bench.scores("failed"))) == (1, 1)


async def test_a_job_that_keeps_nothing_pushes_nothing_out(bench: Bench) -> None:
    await bench.ended("done")
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim, keep=0)])
    assert len(bench.scores("completed")) == 1


@pytest.mark.parametrize(("ends", "kept"), [(done, "completed"), (fail, "failed")])
async def test_old_ones_go_even_when_nothing_new_ends(bench: Bench, ends: EndsBy, kept: str) -> None:
    ids = []
    for _ in range(2):
        claim = await bench.claimed()
        ids.append(claim.job_id)
        await bench.tick(outcomes=[ends(claim, age_ms=HOUR_MS)])
    bench.redis.zadd(bench.key(kept), {ids[0]: bench.now_ms() - HOUR_MS - 1})
    await bench.tick()
    assert list(bench.scores(kept)) == [ids[1]]
    assert bench.record(ids[0]) == {}


async def test_a_call_lets_a_bounded_number_of_old_ones_go(bench: Bench) -> None:
    await bench.add(count=250)
    await bench.tick(outcomes=[done(c, keep=1_000, age_ms=HOUR_MS) for c in await bench.claim(want=250)])
    bench.redis.zadd(bench.key("completed"), dict.fromkeys(bench.scores("completed"), 1))
    sizes = []
    for _ in range(3):
        await bench.tick()
        sizes.append(len(bench.scores("completed")))
    assert sizes == [150, 50, 0]


async def test_a_jobs_log_goes_with_it(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.store.log(claim.lane, claim.entry, claim.job_id, "a line")
    await bench.tick(outcomes=[done(claim, keep=0)])
    assert bench.redis.keys("*:log:*") == []


async def test_a_tick_with_nothing_to_let_go_writes_only_its_lease(bench: Bench) -> None:
    await bench.ended("done")
    await bench.ended("fail")
    before = bench.dump("workers")
    await bench.tick()
    assert bench.dump("workers") == before
