"""resume: paused queue -> running."""

from __future__ import annotations

from tests.lua.conftest import Bench


async def test_a_resumed_queue_gives_jobs_and_wakes_a_worker(bench: Bench) -> None:
    await bench.store.pause()
    await bench.add()
    assert await bench.store.resume()
    assert bench.woken()
    assert len(await bench.claim()) == 1
    assert not (await bench.store.stats()).paused
    assert [kind for kind, _ in bench.events()] == ["paused", "added", "resumed", "active"]


async def test_resuming_a_queue_that_runs_writes_nothing(bench: Bench) -> None:
    assert not await bench.store.resume()
    assert bench.dump() == {}


async def test_resuming_twice_is_harmless(bench: Bench) -> None:
    await bench.store.pause()
    await bench.store.resume()
    before = bench.dump()
    assert not await bench.store.resume()
    assert bench.dump() == before
