"""obliterate: a queue -> nothing but its counter and the event that says so."""

from __future__ import annotations

import pytest

from streamq._engine.transitions import NOT_SETTLED, NewJob
from tests.lua.conftest import Bench, done, envelope_of_size


async def furnish(bench: Bench) -> None:
    """Give the queue one of everything that it can have."""
    for state in ("completed", "failed", "delayed", "waiting"):
        for own_id in ("", f"own-{state}"):
            await bench.in_state(state, own_id)
    claim = await bench.claimed()
    await bench.store.log(claim.lane, claim.entry, claim.job_id, "a line")
    await bench.tick(outcomes=[done(claim)])
    await bench.store.max_size(100)


async def obliterate(bench: Bench, *, force: bool = False, limit: int = 100) -> int:
    gone = 0
    while True:
        word, count = await bench.store.obliterate(force, limit)
        gone += count
        if word != "more":
            assert word == "done"
            return gone


def left(bench: Bench) -> set[str]:
    return {key.decode().partition("}:")[2] for key in bench.redis.scan_iter() if b":producer:" not in key}


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_nothing_but_the_counter_and_the_event_is_left(bench: Bench, limit: int) -> None:
    await furnish(bench)
    counter = bench.redis.get(bench.key("id"))
    assert await obliterate(bench, limit=limit) == 9
    assert left(bench) == {"id", "events"}
    assert bench.redis.get(bench.key("id")) == counter
    assert bench.events() == [("obliterated", "")]


async def test_a_committed_batch_that_has_not_wholly_moved_goes_too(bench: Bench) -> None:
    jobs = [NewJob(3, "0", "", envelope_of_size(10))] * 1_500
    await bench.store.stage("b", 0, jobs)
    await bench.store.commit("n", 1, "b", 1)
    assert bench.redis.exists(bench.key("batch:b"))
    await obliterate(bench, limit=1000)
    assert left(bench) == {"id", "events"}


async def test_while_jobs_run_nothing_is_written(bench: Bench) -> None:
    await furnish(bench)
    await bench.claimed()
    before = bench.dump()
    assert await bench.store.obliterate(False, 100) == ("active", 1)
    assert bench.dump() == before


async def test_forced_running_jobs_go_too_and_their_outcome_is_stale(bench: Bench) -> None:
    claim = await bench.claimed("mine")
    await obliterate(bench, force=True)
    assert (await bench.tick(outcomes=[done(claim)])).stale == [NOT_SETTLED]  # its lease went, too
    assert await bench.store.get("mine") is None


async def test_nothing_starts_between_two_steps(bench: Bench) -> None:
    await bench.add(count=5)
    assert (await bench.store.obliterate(False, 2))[0] == "more"
    assert await bench.claim(want=5) == []
    await obliterate(bench)


async def test_the_queue_can_be_used_again(bench: Bench) -> None:
    await bench.ended("done")
    await obliterate(bench)
    job_id = await bench.add()
    assert job_id == "2"
    assert [claim.job_id for claim in await bench.claim()] == [job_id]


async def test_a_second_call_finds_nothing(bench: Bench) -> None:
    await obliterate(bench)
    assert await obliterate(bench) == 0
    assert left(bench) == {"events"}
