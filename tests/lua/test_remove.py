"""remove: waiting | delayed | completed | failed -> nothing."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, done, fail, retry


@pytest.mark.parametrize("state", ["waiting", "delayed", "completed", "failed"])
@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_a_job_that_does_not_run_is_gone_with_all_that_was_kept(bench: Bench, state: str, own_id: str) -> None:
    if state in ("waiting", "delayed"):
        job_id = await bench.add(own_id, start="+9000" if state == "delayed" else "0")
    else:
        claim = await bench.claimed(own_id)
        await bench.store.log(claim.lane, claim.entry, claim.job_id, "a line")
        await bench.tick(outcomes=[retry(claim)])
        again = (await bench.claim())[0]
        await bench.tick(outcomes=[(done if state == "completed" else fail)(again)])
        job_id = again.job_id
    assert await bench.store.remove(job_id) == "removed"
    assert await bench.store.get(job_id) is None
    assert bench.lane() == []
    assert [bench.scores(name) for name in ("delayed", "completed", "failed")] == [{}, {}, {}]
    assert bench.redis.keys("*:job:*") + bench.redis.keys("*:log:*") == []
    assert bench.events_of(job_id)[-1] == "removed"


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_a_running_job_stays_and_nothing_is_written(bench: Bench, own_id: str) -> None:
    claim = await bench.claimed(own_id)
    before = bench.dump()
    assert await bench.store.remove(claim.job_id) == "active"
    assert bench.dump() == before


@pytest.mark.parametrize("job_id", ["nobody", "17"])
async def test_an_unknown_job_writes_nothing(bench: Bench, job_id: str) -> None:
    assert await bench.store.remove(job_id) == "unknown"
    assert bench.dump() == {}


async def test_a_second_remove_finds_it_gone_and_writes_nothing(bench: Bench) -> None:
    job_id = await bench.add()
    await bench.store.remove(job_id)
    before = bench.dump()
    assert await bench.store.remove(job_id) == "unknown"
    assert bench.dump() == before


async def test_a_removed_job_is_never_claimed(bench: Bench) -> None:
    one, two = await bench.add(), await bench.add("late", start="@1")
    await bench.store.remove(one)
    await bench.store.remove(two)
    assert await bench.claim(want=5) == []


async def test_the_dead_letter_of_a_removed_job_goes_and_no_other_one(bench: Bench) -> None:
    claim, other = await bench.ended("fail"), await bench.ended("fail")
    await bench.store.remove(claim.job_id)
    assert [letter["j"] for letter in bench.dead_letters()] == [other.job_id.encode()]


async def test_a_custom_id_is_free_again(bench: Bench) -> None:
    await bench.add("mine")
    await bench.store.remove("mine")
    await bench.add("mine")
    assert len(bench.lane()) == 1
