"""add: a unique key belongs to one job."""

from __future__ import annotations

from typing import Any

import pytest

from streamq._engine.transitions import Added, NewJob, added, bound_start
from tests.lua.conftest import Bench, done, envelope, fail


def job(
    conflict: str = "e", mode: str = "r", *, key: str = "k", ttl: int | None = None, start: str = "0",
    data: Any = None, job_id: str = "", lane: int = 3,
) -> NewJob:  # fmt: skip
    """A job with a unique key; `conflict`, `mode` and `ttl` as in lua/lib/unique.lua."""
    unique: dict[str, Any] = {"k": key, "w": mode, "c": conflict}
    if ttl is not None:
        unique["t"] = ttl
    return NewJob(lane, bound_start(start, {"u": unique}), job_id, envelope(data=data))


async def add(bench: Bench, *jobs: NewJob) -> list[Added]:
    return added(jobs, await bench.add_raw(*jobs))


def holder(bench: Bench, key: str = "k") -> str | None:
    found = bench.redis.get(bench.key(f"unique:{key}"))
    return None if found is None else found.decode()


@pytest.mark.parametrize("start", ["0", "+5000"])
async def test_the_first_job_gets_the_key_and_a_second_one_is_not_added(bench: Bench, start: str) -> None:
    assert await add(bench, job(start=start)) == [Added("1", True)]
    assert holder(bench) == "1"
    before = bench.dump("id", "producer:n")
    assert await add(bench, job(start=start)) == [Added("1", False, "known")]
    assert bench.dump("id", "producer:n") == before


@pytest.mark.parametrize("end", [done, fail])
@pytest.mark.parametrize("keep", [0, 100])
async def test_an_end_releases_the_key(bench: Bench, end: Any, keep: int) -> None:
    await add(bench, job())
    claim = (await bench.claim())[0]
    assert holder(bench) == "1"
    await bench.tick(outcomes=[end(claim, keep=keep)])
    assert holder(bench) is None
    assert await add(bench, job()) == [Added("2", True)]


async def test_a_claimed_job_brings_all_that_it_was_added_with(bench: Bench) -> None:
    await add(bench, job(data={"n": 1}, job_id="mine", lane=2))
    claim = (await bench.claim())[0]
    assert (claim.job_id, claim.lane, claim.envelope) == ("mine", 2, envelope(data={"n": 1}))


async def test_a_queue_says_that_it_has_had_bound_jobs(bench: Bench) -> None:
    await bench.add()
    assert bench.redis.hget(bench.key("meta"), "bound") is None
    await add(bench, job())
    assert bench.redis.hget(bench.key("meta"), "bound") == b"1"
