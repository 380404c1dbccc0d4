"""pause_key: a key's jobs start -> they wait; those of other keys go on."""

from __future__ import annotations

from tests.lua.conftest import Bench, done


async def test_no_job_of_a_paused_key_starts_not_even_one_that_stands_in_its_lane(bench: Bench) -> None:
    await bench.add(count=3, key="a")
    other = await bench.add(key="b")
    assert await bench.store.pause_key("a")
    assert [claim.job_id for claim in await bench.claim(want=5)] == [other]
    assert await bench.claim(want=5) == []


async def test_what_runs_goes_on(bench: Bench) -> None:
    await bench.add(count=2, key="a")
    claim = (await bench.claim())[0]
    await bench.store.pause_key("a")
    reply = await bench.tick(want=5, outcomes=[done(claim)])
    assert reply.stale == reply.claimed == []
    assert bench.record(claim.job_id)["s"] == b"c"


async def test_jobs_that_come_in_while_it_is_paused_wait(bench: Bench) -> None:
    await bench.store.pause_key("a")
    await bench.add(count=2, key="a")
    assert bench.lane() == []
    assert not bench.woken() or await bench.claim(want=5) == []
    assert await bench.claim(want=5) == []


async def test_pausing_twice_says_so(bench: Bench) -> None:
    assert await bench.store.pause_key("a")
    assert not await bench.store.pause_key("a")
