"""remove: waiting | delayed | completed | failed -> nothing; active too, if forced."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, done, fail, release, retry


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


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_forced_a_running_job_leaves_nothing_and_all_that_its_worker_reports_is_dropped(
    bench: Bench, own_id: str
) -> None:
    claim = await bench.claimed(own_id)
    await bench.store.log(claim.lane, claim.entry, claim.job_id, "a line")
    assert await bench.store.remove(claim.job_id, force=True) == "removed"
    assert bench.events_of(claim.job_id)[-1] == "removed"
    assert (bench.lane(), bench.pending()) == ([], {})
    before = bench.dump("events", "workers", "meta")
    assert not await bench.store.progress(claim.lane, claim.entry, claim.job_id, b"\x05")
    assert not await bench.store.log(claim.lane, claim.entry, claim.job_id, "late")
    for how in (done, fail, retry, release):
        assert (await bench.tick(outcomes=[how(claim)])).stale == [0]
    assert bench.dump("events", "workers", "meta") == before
    assert await bench.store.get(claim.job_id) is None


async def test_forced_a_job_of_a_lost_worker_is_not_requeued(bench: Bench) -> None:
    claim, other = [await bench.claimed(worker="lost") for _ in range(2)]
    await bench.store.remove(claim.job_id, force=True)
    bench.lapse("lost")
    assert [job.job_id for job in await bench.claim(want=5)] == [other.job_id]


async def test_forced_a_second_call_finds_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.store.remove(claim.job_id, force=True)
    before = bench.dump()
    assert await bench.store.remove(claim.job_id, force=True) == "unknown"
    assert bench.dump() == before
