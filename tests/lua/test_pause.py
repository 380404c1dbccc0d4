"""pause: running queue -> paused."""

from __future__ import annotations

from tests.lua.conftest import Bench, done


async def test_a_paused_queue_gives_no_job_and_wakes_nobody(bench: Bench) -> None:
    await bench.add()
    assert await bench.store.pause()
    assert not bench.woken()
    assert await bench.claim() == []
    assert (await bench.store.stats()).paused


async def test_what_runs_goes_on_and_is_settled(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.store.pause()
    assert (await bench.tick(outcomes=[done(claim)])).stale == []
    assert not bench.woken()


async def test_pausing_twice_is_harmless_and_is_told_once(bench: Bench) -> None:
    await bench.store.pause()
    before = bench.dump()
    assert not await bench.store.pause()
    assert bench.dump() == before
    assert bench.events() == [("paused", "")]
