"""add: nothing -> waiting | delayed."""

from __future__ import annotations

import pytest

from streamq._engine.transitions import NewJob
from tests.lua.conftest import Bench, envelope, envelope_of_size


def job(job_id: str = "", start: str = "0", lane: int = 3) -> NewJob:
    return NewJob(lane, start, job_id, envelope())


async def test_a_waiting_job_is_one_entry_and_nothing_else(bench: Bench) -> None:
    before = bench.now_ms()
    job_id = await bench.add(lane=2)
    ((entry, parts),) = bench.lane(2)
    assert entry == f"{job_id}-0"
    assert set(parts) == {"d", "t"}
    assert parts["d"] == envelope()
    assert before <= int(parts["t"]) <= bench.now_ms()
    assert bench.redis.keys("*:job:*") == []


async def test_ids_are_consecutive_numbers(bench: Bench) -> None:
    assert await bench.add_raw(job(), job(), job()) == [1]
    assert await bench.add_raw(job()) == [4]
    assert [entry for entry, _ in bench.lane()] == ["1-0", "2-0", "3-0", "4-0"]


async def test_a_custom_id_makes_a_record_that_points_at_its_entry(bench: Bench) -> None:
    await bench.add("mine", lane=1)
    ((entry, parts),) = bench.lane(1)
    assert parts["j"] == b"mine"
    assert bench.record("mine") == {"s": b"q", "p": b"1", "e": entry.encode(), "c": parts["t"]}


async def test_a_custom_id_that_is_known_adds_nothing(bench: Bench) -> None:
    await bench.add("mine")
    before = bench.dump("id", "producer:n")
    assert await bench.add_raw(job("mine")) == [2, 1]
    assert bench.dump("id", "producer:n") == before


async def test_the_same_custom_id_twice_in_one_call_adds_one(bench: Bench) -> None:
    assert await bench.add_raw(job("mine"), job(), job("mine")) == [1, 3]
    assert len(bench.lane()) == 2


@pytest.mark.parametrize("state", ["delayed", "active", "completed", "failed"])
async def test_a_custom_id_is_taken_in_whatever_state_its_job_is(bench: Bench, state: str) -> None:
    if state == "delayed":
        await bench.add("mine", start="+60000")
    elif state == "active":
        await bench.claimed("mine")
    else:
        await bench.ended("done" if state == "completed" else "fail", "mine")
    before = bench.dump("id", "producer:n")
    assert (await bench.add_raw(job("mine")))[1:] == [1]
    assert bench.dump("id", "producer:n") == before


async def test_a_delay_counts_from_the_servers_time(bench: Bench) -> None:
    before = bench.now_ms()
    job_id = await bench.add(start="+5000", lane=4)
    due = bench.scores("delayed")[job_id]
    assert before + 5_000 <= due <= bench.now_ms() + 5_000
    record = bench.record(job_id)
    assert (record["s"], record["p"], int(record["u"]), record["d"]) == (b"d", b"4", due, envelope())
    assert bench.lane(4) == []
    assert bench.events() == [("delayed", job_id)]


async def test_a_moment_is_taken_as_it_is(bench: Bench) -> None:
    await bench.add("later", start="@4102444800000")
    assert bench.scores("delayed") == {"later": 4_102_444_800_000}


async def test_the_same_call_again_gets_the_first_answer_and_adds_nothing(bench: Bench) -> None:
    jobs = [job(), job("mine"), job("mine"), job("late", "+1000")]
    first = await bench.add_raw(*jobs, number=1)
    before = bench.dump()
    assert await bench.add_raw(*jobs, number=1) == first == [1, 3]
    assert bench.dump() == before


async def test_a_call_that_a_later_one_overtook_adds_nothing(bench: Bench) -> None:
    await bench.add_raw(job(), number=2)
    before = bench.dump()
    assert await bench.add_raw(job(), number=1) == [-1]
    assert bench.dump() == before


async def test_producers_do_not_know_of_each_other(bench: Bench) -> None:
    await bench.add_raw(job(), nonce="a", number=1)
    assert await bench.add_raw(job(), nonce="b", number=1) == [2]


async def test_an_add_wakes_one_worker(bench: Bench) -> None:
    await bench.add(count=10)
    await bench.add()
    assert bench.redis.lrange(bench.key("wake"), 0, -1) == [b"1"]


async def test_an_add_to_a_paused_queue_wakes_nobody(bench: Bench) -> None:
    await bench.store.pause()
    await bench.add()
    await bench.add(start="+1")
    assert not bench.woken()


async def test_a_delayed_job_wakes_a_worker_only_if_it_is_the_earliest(bench: Bench) -> None:
    await bench.add(start="+50000")
    assert bench.woken()
    await bench.add(start="+60000")
    assert not bench.woken()
    await bench.add(start="+40000")
    assert bench.woken()


async def test_a_thousand_jobs_fit_one_call(bench: Bench) -> None:
    await bench.add_raw(*[job("" if n % 2 else f"own-{n}", "0" if n % 3 else "+9000") for n in range(1_000)])
    assert len(bench.lane()) + len(bench.scores("delayed")) == 1_000
    assert len(bench.events()) == 1_000


@pytest.mark.parametrize("size", [64, 65, 1_024, 1_025, 200_000])
async def test_a_delayed_jobs_envelope_comes_back_whole(bench: Bench, size: int) -> None:
    job_id = await bench.add(start="+9000", body=envelope_of_size(size))
    stored = await bench.store.get(job_id)
    assert stored is not None
    assert stored.envelope == envelope_of_size(size)


async def test_an_id_of_any_accepted_characters_is_kept_apart(bench: Bench) -> None:
    names = ["a:b", "a b", "1x", "é", "日本", "*", "[a]", "-1", "+", "a\\b", "%s", "1-0", "x" * 256]
    await bench.add_raw(*[job(name) for name in names])
    assert [claim.job_id for claim in await bench.claim(want=50)] == names
    assert all([await bench.store.get(name) for name in names])
