"""commit: a staged batch -> waiting | delayed, whole, whatever happens from the first call on."""

from __future__ import annotations

import pytest

from streamq._engine.transitions import NewJob
from tests.lua.conftest import Bench, envelope


def jobs(count: int) -> list[NewJob]:
    return [NewJob(3, "0", "", envelope())] * count


async def test_a_batch_moves_a_thousand_jobs_a_call(bench: Bench) -> None:
    await bench.store.stage("b", 0, jobs(1_000))
    await bench.store.stage("b", 1, jobs(700))
    assert await bench.store.commit("b", 1, "b", 2) == [1, 1]
    assert len(bench.lane()) == 1_000
    assert await bench.store.commit("b", 2, "b", None) == [0, 1_001]
    assert len(bench.lane()) == 1_700
    assert bench.redis.keys("*:batch*") == []


async def test_a_committed_batch_no_longer_goes_away_by_itself(bench: Bench) -> None:
    await bench.store.stage("b", 0, jobs(1_500))
    before = bench.now_ms()
    await bench.store.commit("b", 1, "b", 1)
    assert bench.redis.pttl(bench.key("batch:b")) == -1
    assert before + 10_000 <= bench.scores("batches")["b"] <= bench.now_ms() + 10_000


async def test_the_same_call_again_moves_nothing_and_repeats_its_answer(bench: Bench) -> None:
    await bench.store.stage("b", 0, jobs(1_500))
    first = await bench.store.commit("b", 1, "b", 1)
    before = bench.dump()
    assert await bench.store.commit("b", 1, "b", 1) == first
    assert bench.dump() == before


async def test_the_last_call_again_repeats_its_answer_though_the_batch_is_gone(bench: Bench) -> None:
    await bench.store.stage("b", 0, jobs(2))
    assert await bench.store.commit("b", 1, "b", 1) == [0, 1]
    before = bench.dump()
    assert await bench.store.commit("b", 1, "b", 1) == [0, 1]
    assert bench.dump() == before


@pytest.mark.parametrize("staged", [0, 1, 3])
async def test_a_batch_whose_parts_are_not_all_there_adds_nothing(bench: Bench, staged: int) -> None:
    for part in range(staged):
        await bench.store.stage("b", part, jobs(1))
    before = bench.dump()
    assert await bench.store.commit("b", 1, "b", 2) == [-3 if staged else -2]
    assert bench.dump() == before


async def test_a_batch_that_is_gone_adds_nothing(bench: Bench) -> None:
    assert await bench.store.commit("b", 2, "b", None) == [-2]
    assert bench.dump() == {}


async def test_ids_that_are_known_are_told_by_their_place_in_the_part(bench: Bench) -> None:
    await bench.add("mine")
    await bench.store.stage("b", 0, [*jobs(2), NewJob(3, "0", "mine", envelope()), NewJob(3, "+5000", "", envelope())])
    assert await bench.store.commit("b", 1, "b", 1) == [0, 2, 3]
    assert list(bench.scores("delayed")) == ["5"]
