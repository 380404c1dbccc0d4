"""purge_dead: dead letters that match -> nothing."""

from __future__ import annotations

import pytest

from streamq._engine import codec
from streamq._engine.pages import Step
from tests.lua.conftest import Bench, envelope


async def purge(bench: Bench, letter: str = "", *, count: int = 100, name: str = "", error: str = "") -> int:
    step, gone = Step(letter, letter), 0
    wanted = [codec.encode_text(text) if text else b"" for text in (name, error)]
    while not step.done:
        step = await bench.store.purge_dead(step, count, *wanted)
        gone += step.counted
    return gone


@pytest.mark.parametrize("count", [1, 2, 100])
async def test_all_letters_go_and_the_failed_jobs_stay(bench: Bench, count: int) -> None:
    ids = [(await bench.ended("fail")).job_id for _ in range(5)]
    assert await purge(bench, count=count) == 5
    assert bench.dead_letters() == []
    assert list(bench.scores("failed")) == ids
    assert all(bench.events_of(job_id)[-1] == "purged" for job_id in ids)


async def test_one_letter_leaves_the_others(bench: Bench) -> None:
    for _ in range(3):
        await bench.ended("fail")
    letters = (await bench.store.dead_letters("", 10)).letters
    assert await purge(bench, letters[1].letter) == 1
    assert [letter.letter for letter in (await bench.store.dead_letters("", 10)).letters] == [
        letters[0].letter, letters[2].letter,
    ]  # fmt: skip


async def test_a_name_and_an_error_type_pick(bench: Bench) -> None:
    await bench.ended("fail", body=envelope("work"))
    await bench.ended("fail", body=envelope("works"))
    assert await purge(bench, name="work", error="KeyError") == 0
    assert await purge(bench, name="work", error="ValueError") == 1
    assert len(bench.dead_letters()) == 1


async def test_a_job_whose_letter_was_purged_can_be_retried(bench: Bench) -> None:
    claim = await bench.ended("fail")
    await purge(bench)
    assert await bench.store.retry(claim.job_id) == "retried"


async def test_a_queue_without_any_stays_as_it_is(bench: Bench) -> None:
    assert await purge(bench) == 0
    assert bench.dump() == {}
