"""stage: part of a large batch -> held aside, where no worker sees it."""

from __future__ import annotations

from streamq._engine.transitions import NewJob
from tests.lua.conftest import Bench, envelope

PART = [NewJob(3, "0", "", envelope())] * 1_000


async def test_a_staged_part_is_seen_by_no_worker(bench: Bench) -> None:
    await bench.store.stage("b", 0, PART)
    assert await bench.claim(want=10) == []
    counts = await bench.store.stats()
    assert sum(counts.waiting.values()) == 0
    assert bench.events() == []


async def test_the_same_part_again_is_not_staged_twice(bench: Bench) -> None:
    await bench.store.stage("b", 0, PART)
    before = bench.dump()
    await bench.store.stage("b", 0, PART)
    assert bench.dump() == before


async def test_the_parts_are_kept_in_order_and_counted(bench: Bench) -> None:
    await bench.store.stage("b", 0, [NewJob(3, "0", "one", b"1")])
    await bench.store.stage("b", 1, [NewJob(3, "0", "two", b"2")])
    assert bench.redis.lrange(bench.key("batch:b"), 0, -1) == [b"3", b"0", b"one", b"1", b"3", b"0", b"two", b"2"]
    assert bench.redis.get(bench.key("batch:b:parts")) == b"2"


async def test_a_batch_that_nobody_commits_goes_away_by_itself(bench: Bench) -> None:
    await bench.store.stage("b", 0, PART)
    for key in ("batch:b", "batch:b:parts"):
        assert 0 < bench.redis.pttl(bench.key(key)) <= 600_000


async def test_a_part_renews_the_life_of_those_before_it(bench: Bench) -> None:
    await bench.store.stage("b", 0, PART[:1])
    bench.redis.pexpire(bench.key("batch:b"), 1_000)
    await bench.store.stage("b", 1, PART[:1])
    assert bench.redis.pttl(bench.key("batch:b")) > 500_000
