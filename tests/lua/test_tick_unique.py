"""tick: every way in which a job starts or ends releases its unique key, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest

from streamq import FlowJob, JobOptions, Unique
from streamq._engine.pages import Step
from streamq._engine.transitions import Added
from tests.lua.conftest import Bench, done, envelope, fail, release, retry
from tests.lua.flows import NOT_KEPT, add_flow
from tests.lua.flows import job as family
from tests.lua.unique import add, add_one, holder, running, unique_job


@pytest.mark.parametrize("mode", ["p", "r", "k"])
@pytest.mark.parametrize("how", [retry, release])
async def test_a_job_that_runs_again_holds_its_key_until_it_has_ended(bench: Bench, how: Any, mode: str) -> None:
    claim = await running(bench, mode=mode)
    assert holder(bench) == (None if mode == "p" else "1")
    await bench.tick(outcomes=[how(claim)])
    (again,) = await bench.claim()
    assert holder(bench) == (None if mode == "p" else "1")
    await bench.tick(outcomes=[done(again)])
    assert holder(bench) == ("1" if mode == "k" else None)


@pytest.mark.parametrize("end", [done, fail])
@pytest.mark.parametrize("keep", [0, 100])
@pytest.mark.parametrize("mode", ["p", "r"])
async def test_an_end_releases_the_key(bench: Bench, end: Any, keep: int, mode: str) -> None:
    claim = await running(bench, mode=mode)
    await bench.tick(outcomes=[end(claim, keep=keep)])
    assert holder(bench) is None
    assert await add(bench, unique_job()) == [Added("2", True)]


async def test_a_pending_jobs_key_is_free_once_it_starts_so_that_one_runs_and_one_waits(bench: Bench) -> None:
    await running(bench, mode="p")
    await add_one(bench, mode="p")
    assert await add(bench, unique_job(mode="p")) == [Added("2", False, "known", "k")]


async def test_a_claim_that_never_started_takes_its_key_again(bench: Bench) -> None:
    claim = await running(bench, mode="p")
    await bench.tick(outcomes=[done(claim)._replace(kind="return")])
    assert holder(bench) == "1"
    assert [c.job_id for c in await bench.claim()] == ["1"]
    assert holder(bench) is None


async def test_a_claim_that_never_started_leaves_the_key_to_who_has_it_by_then(bench: Bench) -> None:
    claim = await running(bench, mode="p")
    await add_one(bench, mode="p")
    await bench.tick(outcomes=[done(claim)._replace(kind="return")])
    assert holder(bench) == "2"


async def test_a_poisoned_job_releases_its_key(bench: Bench) -> None:
    await running(bench)
    bench.lapse()
    await bench.tick("bob", max_stalls=1)
    assert (holder(bench), list(bench.scores("failed"))) == (None, ["1"])


async def test_a_stalled_job_that_runs_again_keeps_its_key(bench: Bench) -> None:
    await running(bench)
    bench.lapse()
    assert [c.job_id for c in await bench.claim("bob")] == ["1"]
    assert holder(bench) == "1"


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_job_whose_payload_is_lost_releases_its_key(bench: Bench, claimed: bool) -> None:
    await add_one(bench, data="x")
    if claimed:
        await bench.claim()
        bench.redis.xdel(bench.key("lane:3"), "1-0")
        bench.lapse()
    else:
        bench.redis.hdel(bench.key("job:1"), "d")
    await bench.tick("bob", want=1)
    assert holder(bench) is None


async def test_a_stale_outcome_releases_nothing(bench: Bench) -> None:
    claim = await running(bench)
    bench.lapse()
    await bench.tick("bob")
    assert (await bench.tick(outcomes=[done(claim)])).stale
    assert holder(bench) == "1"


@pytest.mark.parametrize("end", [done, fail])
async def test_an_end_leaves_a_key_that_ran_out_to_who_has_it_by_then(bench: Bench, end: Any) -> None:
    claim = await running(bench, ttl=60_000)
    bench.redis.delete(bench.key("unique:k"))  # its time is over
    await add_one(bench)
    await bench.tick(outcomes=[end(claim)])
    assert holder(bench) == "2"


# While it is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [done, fail])
async def test_a_retained_key_goes_with_the_record_by_count(bench: Bench, end: Any) -> None:
    claim = await running(bench, mode="k")
    await bench.tick(outcomes=[end(claim, keep=1)])
    assert holder(bench) == "1"
    other = await bench.claimed()
    await bench.tick(outcomes=[end(other, keep=1)])
    assert holder(bench) is None


@pytest.mark.parametrize("end", [done, fail])
async def test_a_retained_key_goes_with_the_record_by_age(bench: Bench, end: Any) -> None:
    claim = await running(bench, mode="k")
    await bench.tick(outcomes=[end(claim, age_ms=1_000)])
    bench.redis.zadd(bench.key("completed" if end is done else "failed"), {"1": 1})
    await bench.tick()
    assert holder(bench) is None


@pytest.mark.parametrize("end", [done, fail])
async def test_a_retained_key_of_a_job_that_is_not_kept_is_free_at_its_end(bench: Bench, end: Any) -> None:
    claim = await running(bench, mode="k")
    await bench.tick(outcomes=[end(claim, keep=0)])
    assert holder(bench) is None


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("end", [done, fail])
async def test_a_throttle_holds_its_key_for_its_time_however_soon_the_record_goes(
    bench: Bench, end: Any, keep: int
) -> None:
    claim = await running(bench, mode="k", ttl=60_000)
    other = await bench.claimed()
    await bench.tick(outcomes=[end(claim, keep=keep), end(other, keep=keep)])
    assert await bench.store.get("1") is None
    assert 0 < bench.redis.pttl(bench.key("unique:k")) <= 60_000
    assert await add(bench, unique_job("x")) == [Added("1", False, "refused", "k")]


async def test_a_retained_job_with_a_next_one_hands_the_key_over_at_its_end(bench: Bench) -> None:
    claim = await running(bench, mode="k")
    await add(bench, unique_job("l"))
    await bench.tick(outcomes=[done(claim)])
    assert holder(bench) == "2"


async def test_a_throttled_jobs_key_goes_with_the_record_once_the_next_one_has_stopped_its_time(bench: Bench) -> None:
    claim = await running(bench, mode="k", ttl=60_000)
    await add(bench, unique_job("l", job_id="next"))
    assert bench.redis.pttl(bench.key("unique:k")) == -1
    await bench.store.remove("next")
    await bench.tick(outcomes=[done(claim, keep=1)])
    other = await bench.claimed("later")
    await bench.tick(outcomes=[done(other, keep=1)])
    assert bench.record("1") == {}
    assert holder(bench) is None


# Beside others --------------------------------------------------------------------------------------------------------


async def test_jobs_without_a_key_end_as_ever_beside_one_that_has_it(bench: Bench) -> None:
    await add_one(bench)
    await bench.add(count=3)
    await bench.add("mine")
    claims = await bench.claim(want=9)
    await bench.tick(outcomes=[done(claim, keep=2) for claim in claims if claim.job_id != "1"])
    assert holder(bench) == "1"
    assert len(bench.scores("completed")) == 2


async def test_a_pending_job_of_a_batch_that_a_tick_took_over_releases_its_key_when_it_claims_it(bench: Bench) -> None:
    await bench.store.stage("b", 0, [unique_job(key=f"k{n}", mode="p") for n in range(1_000)])
    await bench.store.stage("b", 1, [unique_job(key="last", mode="p")])
    await bench.store.commit("b", 1, "b", 2)
    bench.redis.zadd(bench.key("batches"), {"b": 1})
    await bench.tick()
    assert holder(bench, "last") == "1001"
    await bench.claim(want=2_000)
    assert bench.redis.keys("*:unique:*") == []


async def test_a_parent_that_waits_for_its_children_is_replaced_and_runs_after_them_with_the_newest_data(
    bench: Bench,
) -> None:
    await add_flow(bench, family("parent", family("child"), options=JobOptions(unique=Unique("k"))))
    for conflict, data in (("r", 2), ("l", 3)):
        assert await add(bench, unique_job(conflict, data=data, lane=1)) == [Added("parent", False, "replaced", "k")]
    (child,) = await bench.claim(want=5)
    assert child.job_id == "child"
    (parent,) = (await bench.tick(want=5, outcomes=[done(child)])).claimed
    assert (parent.job_id, parent.lane, parent.envelope) == ("parent", 1, envelope(data=3))
    await bench.tick(outcomes=[done(parent)])
    assert holder(bench) is None


async def test_a_parent_that_its_child_failed_releases_its_key(bench: Bench) -> None:
    await add_flow(bench, family("parent", family("child"), options=JobOptions(unique=Unique("k"))))
    (child,) = await bench.claim(want=5)
    await bench.tick(outcomes=[fail(child)])
    assert (holder(bench), list(bench.scores("failed"))) == (None, ["child", "parent"])


async def test_a_parent_that_its_child_failed_has_its_keys_again_when_it_is_made_of_its_dead_letter(
    bench: Bench,
) -> None:
    options = JobOptions(unique=Unique("k"), key="tenant")
    await add_flow(bench, family("parent", family("child"), options=options), keep_failed=NOT_KEPT)
    (child,) = await bench.claim(want=5)
    await bench.tick(outcomes=[fail(child)])
    assert bench.record("parent") == {}
    assert "parent" in (await bench.store.redrive(Step(), 10, b"", b"")).ids
    assert (holder(bench), bench.record("parent")["ky"]) == ("parent", b"tenant")


@pytest.mark.parametrize(("on_failure", "state"), [("fail", b"f"), ("ignore", b"q")])
async def test_a_throttled_child_whose_job_has_gone_counts_as_removed(
    bench: Bench, on_failure: Any, state: bytes
) -> None:
    claim = await running(bench, mode="k", ttl=60_000)
    await bench.tick(outcomes=[done(claim, keep=0)])
    child = FlowJob("child", unique=Unique("k", "retained", ttl=60), on_failure=on_failure)
    await add_flow(bench, family("parent", child))
    assert bench.record("parent")["s"] == state
    assert bench.redis.hget(bench.key("children:parent"), "e1") == b"r"
    assert bench.record("1") == {}
