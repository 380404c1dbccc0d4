"""redrive: dead letters that match -> jobs again."""

from __future__ import annotations

import pytest

from streamq._engine import codec
from streamq._engine.pages import Step
from streamq._engine.transitions import NewJob, bound_start
from tests.lua.conftest import Bench, done, envelope, fail


async def redrive(
    bench: Bench, letter: str = "", *, count: int = 100, name: str = "", error: str = ""
) -> tuple[list[str], int]:
    step, ids, stayed = Step(letter, letter), [], 0
    wanted = [codec.encode_text(text) if text else b"" for text in (name, error)]
    while not step.done:
        step = await bench.store.redrive(step, count, *wanted)
        ids += step.ids
        stayed += step.counted
    return ids, stayed


async def dead(bench: Bench, job_id: str = "", *, kept: bool, **add: object) -> str:
    claim = await bench.claimed(job_id, **add)
    await bench.tick(outcomes=[fail(claim, keep=100 if kept else 0)])
    return claim.job_id


@pytest.mark.parametrize("own_id", ["", "mine"])
@pytest.mark.parametrize("kept", [True, False])
async def test_the_job_waits_again_under_its_id_in_its_lane(bench: Bench, kept: bool, own_id: str) -> None:
    job_id = await dead(bench, own_id, kept=kept, lane=2, body=envelope("work", [1]))
    bench.woken()
    assert await redrive(bench) == ([job_id], 0)
    assert bench.dead_letters() == []
    assert bench.scores("failed") == {}
    assert bench.woken()
    assert bench.events_of(job_id)[-1] == "redriven"
    job = await bench.store.get(job_id)
    assert job is not None
    assert (job.state, job.lane, job.envelope) == ("waiting", 2, envelope("work", [1]))
    (claim,) = await bench.claim()
    assert (claim.job_id, claim.envelope, claim.attempts_made) == (job_id, envelope("work", [1]), 0)


@pytest.mark.parametrize("count", [1, 2, 100])
async def test_all_letters_are_redriven_in_steps(bench: Bench, count: int) -> None:
    ids = [await dead(bench, kept=bool(n % 2)) for n in range(5)]
    assert await redrive(bench, count=count) == (ids, 0)
    assert bench.dead_letters() == []


async def test_one_letter_leaves_the_others(bench: Bench) -> None:
    await dead(bench, kept=True)
    wanted = await dead(bench, kept=False)
    await dead(bench, kept=True)
    letter = (await bench.store.dead_letters("", 10)).letters[1].letter
    assert await redrive(bench, letter) == ([wanted], 0)
    assert len(bench.dead_letters()) == 2


async def test_a_name_and_an_error_type_pick(bench: Bench) -> None:
    await dead(bench, kept=False, body=envelope("works"))
    job_id = await dead(bench, kept=False, body=envelope("work"))
    assert await redrive(bench, name="work", error="KeyError") == ([], 0)
    assert await redrive(bench, name="work", error="ValueError") == ([job_id], 0)


@pytest.mark.parametrize("state", ["waiting", "active", "delayed", "completed"])
async def test_a_letter_whose_id_is_taken_stays_and_nothing_is_written(bench: Bench, state: str) -> None:
    await dead(bench, "mine", kept=False)
    await bench.in_state(state, "mine")
    before = bench.dump("events")
    assert await redrive(bench) == ([], 1)
    assert bench.dump("events") == before


async def test_a_letter_of_an_earlier_failure_of_a_job_that_failed_again_stays(bench: Bench) -> None:
    await dead(bench, "mine", kept=False)
    await dead(bench, "mine", kept=True)
    ids, stayed = await redrive(bench)
    assert (ids, stayed) == (["mine"], 1)


async def test_a_letter_without_a_job_stays(bench: Bench) -> None:
    bench.redis.xadd(bench.key("lane:3"), {"t": 1}, id="1-0")
    bench.redis.set(bench.key("id"), 1)
    await bench.claim()
    assert len(bench.dead_letters()) == 1
    assert await redrive(bench) == ([], 1)


async def test_letters_that_come_meanwhile_are_left_for_the_next_time(bench: Bench) -> None:
    first = [await dead(bench, kept=False) for _ in range(2)]
    step = await bench.store.redrive(Step(), 1, b"", b"")
    late = await dead(bench, kept=False)
    seen = list(step.ids)
    while not step.done:
        step = await bench.store.redrive(step, 1, b"", b"")
        seen += step.ids
    assert seen == first
    assert [letter["j"].decode() for letter in bench.dead_letters()] == [late]


async def test_a_second_call_finds_nothing(bench: Bench) -> None:
    await dead(bench, kept=False)
    await redrive(bench)
    before = bench.dump()
    assert await redrive(bench) == ([], 0)
    assert bench.dump() == before


async def test_a_job_made_of_its_letter_alone_tells_its_webhook_again(bench: Bench) -> None:
    await bench.add_raw(NewJob(3, bound_start("0", {"w": "https://example.com/hook"}), "told", envelope()))
    (claim,) = await bench.claim()
    await bench.tick(outcomes=[fail(claim, keep=0)])
    (telling,) = await bench.claim(want=5)
    await bench.tick(outcomes=[done(telling)])
    bench.redis.delete(bench.key("meta"))  # it goes by the letter
    assert (await bench.store.redrive(Step(), 10, b"", b"")).ids == ["told"]
    (again,) = await bench.claim(want=5)
    await bench.tick(outcomes=[done(again)])
    assert [parts["j"].endswith(b":completed:told") for _, parts in bench.lane()] == [True]
