"""retry: a job that comes back to life takes its unique key again, or stays as it is if another one holds it."""

from __future__ import annotations

import pytest

from streamq._engine.pages import Step
from streamq.errors import DuplicateJob
from tests.lua.conftest import Bench, done, fail
from tests.lua.unique import add_one, holder, running


@pytest.mark.parametrize("mode", ["p", "r", "k"])
async def test_it_takes_its_key_again(bench: Bench, mode: str) -> None:
    claim = await running(bench, mode=mode, ttl=60_000)
    await bench.tick(outcomes=[fail(claim)])
    assert await bench.store.retry("1") == "retried"
    assert holder(bench) == "1"
    assert 0 < bench.redis.pttl(bench.key("unique:k")) <= 60_000
    (again,) = await bench.claim()
    await bench.tick(outcomes=[done(again)])
    assert holder(bench) == ("1" if mode == "k" else None)


async def test_it_is_refused_while_another_one_holds_it_and_nothing_is_written(bench: Bench) -> None:
    claim = await running(bench)
    await bench.tick(outcomes=[fail(claim)])
    await add_one(bench)
    before = bench.dump()
    with pytest.raises(DuplicateJob) as caught:
        await bench.store.retry("1")
    assert (caught.value.job_id, caught.value.key) == ("2", "k")
    assert bench.dump() == before


@pytest.mark.parametrize("state", ["failed", "completed"])
async def test_of_many_those_stay_whose_key_is_held(bench: Bench, state: str) -> None:
    claims = [await running(bench, key=key) for key in "abc"]
    await bench.tick(outcomes=[(fail if state == "failed" else done)(claim) for claim in claims])
    await add_one(bench, key="b")
    step = await bench.store.retry_many(state, Step(), 10, b"", b"")
    assert (step.ids, step.done) == (["1", "3"], True)
    assert [holder(bench, key) for key in "abc"] == ["1", "4", "3"]
    assert list(bench.scores(state)) == ["2"]


async def test_of_dead_letters_those_stay_whose_key_is_held(bench: Bench) -> None:
    claims = [await running(bench, key=key) for key in "ab"]
    await bench.tick(outcomes=[fail(claim) for claim in claims])
    await add_one(bench, key="b")
    step = await bench.store.redrive(Step(), 10, b"", b"")
    assert (step.ids, step.counted) == (["1"], 1)
    assert [holder(bench, key) for key in "ab"] == ["1", "3"]


@pytest.mark.parametrize("tenant", [None, "t"])
async def test_of_a_dead_letter_whose_record_has_gone_a_job_with_its_key_is_made(
    bench: Bench, tenant: str | None
) -> None:
    claim = await running(bench, mode="r", ttl=60_000, tenant=tenant)
    await bench.tick(outcomes=[fail(claim, keep=0)])
    assert (holder(bench), await bench.store.get("1")) == (None, None)
    assert (await bench.store.redrive(Step(), 10, b"", b"")).ids == ["1"]
    assert holder(bench) == "1"
    assert 0 < bench.redis.pttl(bench.key("unique:k")) <= 60_000
    (again,) = await bench.claim()
    await bench.tick(outcomes=[done(again)])
    assert holder(bench) is None


async def test_of_a_dead_letter_whose_key_is_held_no_job_is_made(bench: Bench) -> None:
    claim = await running(bench)
    await bench.tick(outcomes=[fail(claim, keep=0)])
    await add_one(bench)
    before = bench.dump()
    step = await bench.store.redrive(Step(), 10, b"", b"")
    assert (step.ids, step.counted) == ([], 1)
    assert bench.dump() == before


async def test_a_throttled_jobs_letter_finds_its_own_key(bench: Bench) -> None:
    claim = await running(bench, mode="k", ttl=60_000)
    await bench.tick(outcomes=[fail(claim, keep=0)])
    assert holder(bench) == "1"
    assert (await bench.store.redrive(Step(), 10, b"", b"")).ids == ["1"]
