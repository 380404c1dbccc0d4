"""retry_many: failed | completed jobs that match -> waiting, as retry does each."""

from __future__ import annotations

import pytest

from streamq import FlowJob
from streamq._engine import codec
from streamq._engine.pages import Step
from streamq._engine.transitions import Outcome
from streamq.job import JobError
from tests.lua.conftest import Bench, envelope, fail
from tests.lua.flows import add_flow, claims, job


async def failed(bench: Bench, name: str = "work", error: str = "ValueError", **add: object) -> str:
    claim = await bench.claimed(body=envelope(name, [name]), **add)
    body = codec.encode_error(JobError(error, "boom"))
    await bench.tick(outcomes=[Outcome("fail", claim.lane, claim.entry, claim.job_id, body, 100, 86_400_000, 0, 3)])
    return claim.job_id


async def retry_many(
    bench: Bench, *, state: str = "failed", limit: int = 100, name: str = "", error: str = ""
) -> list[str]:
    step, ids = Step(), []
    wanted = [codec.encode_text(text) if text else b"" for text in (name, error)]
    while not step.done:
        step = await bench.store.retry_many(state, step, limit, *wanted)
        ids += step.ids
    return ids


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_all_failed_jobs_wait_again_each_in_its_own_lane(bench: Bench, limit: int) -> None:
    ids = [await failed(bench, lane=lane) for lane in (1, 2, 2, 4)]
    assert await retry_many(bench, limit=limit) == ids
    assert bench.scores("failed") == {}
    assert bench.dead_letters() == []
    assert [[parts["j"].decode() for _, parts in bench.lane(lane)] for lane in (1, 2, 3, 4)] == [
        ids[:1], ids[1:3], [], ids[3:],
    ]  # fmt: skip
    for job_id in ids:
        record = bench.record(job_id)
        assert (record["s"], record["a"]) == (b"q", b"0")
        assert bench.events_of(job_id)[-1] == "added"
    assert bench.woken()


@pytest.mark.parametrize("limit", [1, 100])
async def test_a_name_picks(bench: Bench, limit: int) -> None:
    await failed(bench, "works")
    ids = [await failed(bench, "work"), await failed(bench, "work")]
    await failed(bench, "wor")
    assert await retry_many(bench, name="work", limit=limit) == ids
    assert len(bench.scores("failed")) == 2


async def test_a_name_that_takes_several_pieces_picks(bench: Bench) -> None:
    long = "n" * 200
    await failed(bench, long[:-1] + "m")
    job_id = await failed(bench, long)
    assert await retry_many(bench, name=long) == [job_id]


async def test_an_error_type_picks(bench: Bench) -> None:
    job_id = await failed(bench, error="KeyError")
    await failed(bench, error="KeyErrorOfMine")
    await failed(bench, error="AnErrorWhoseNameTakesMoreThanThirtyTwoBytes")
    assert await retry_many(bench, error="KeyError") == [job_id]
    assert len(await retry_many(bench, error="AnErrorWhoseNameTakesMoreThanThirtyTwoBytes")) == 1


async def test_completed_jobs_run_again_and_lose_their_result(bench: Bench) -> None:
    job_id = await bench.in_state("completed")
    assert await retry_many(bench, state="completed") == [job_id]
    assert "r" not in bench.record(job_id)
    assert [claim.job_id for claim in await bench.claim()] == [job_id]


async def test_a_job_that_fails_again_meanwhile_is_left_alone(bench: Bench) -> None:
    ids = [await failed(bench) for _ in range(3)]
    step = await bench.store.retry_many("failed", Step(), 1, b"", b"")
    bench.redis.zadd(bench.key("failed"), {ids[2]: int(step.bound) + 1})
    seen = list(step.ids)
    while not step.done:
        step = await bench.store.retry_many("failed", step, 1, b"", b"")
        seen += step.ids
    assert seen == ids[:2]


async def test_jobs_in_other_states_stay(bench: Bench) -> None:
    for state in ("active", "completed", "delayed", "waiting"):
        await bench.in_state(state)
    before = bench.dump()
    assert await retry_many(bench) == []
    assert bench.dump() == before


async def test_parents_that_wait_again_hide_nobody_behind_them(bench: Bench) -> None:
    await add_flow(bench, job("above", FlowJob("low", job_id="c0")))
    for job_id in ("c1", "c2"):
        await bench.add(job_id, body=envelope("low"))
    await bench.tick(outcomes=[fail(claim) for claim in (await claims(bench)).values()])
    bench.redis.zadd(bench.key("failed"), {"above": 1, "c0": 2, "c1": 3, "c2": 4})
    assert await retry_many(bench, limit=1, name="low") == ["c0", "c1", "c2"]
    assert bench.scores("failed") == {}
