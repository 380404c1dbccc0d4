"""A Redis that is out of memory takes no new jobs, writes nothing by halves, and can be drained."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streamq._engine.transitions import NewJob
from streamq.errors import StoreRefused
from tests.lua.conftest import Bench, done, envelope, fail, retry


@pytest.fixture
async def full(bench: Bench) -> AsyncIterator[Bench]:
    """A queue with a delayed, a failed, a running and two waiting jobs, on a server whose memory is used up."""
    await bench.ended("fail", "failed")
    await bench.add("late", start="+90000")
    await bench.claimed("running")
    await bench.add(count=2)
    await bench.store.stage("b", 0, [NewJob(3, "0", "", envelope())])
    await bench.store.wake()  # loads the script: a server that is full still knows it
    bench.redis.config_set("maxmemory", 1)
    try:
        yield bench
    finally:
        bench.redis.config_set("maxmemory", 0)


async def test_no_job_is_taken_and_nothing_is_written(full: Bench) -> None:
    claim = (await full.tick(list_held=True)).held[0]
    before = full.dump()
    calls = [
        full.add(),
        full.store.stage("c", 0, [NewJob(3, "0", "", envelope())]),
        full.store.commit("b", 1, "b", 1),
        full.store.retry("failed"),
        full.store.progress(claim.lane, claim.entry, claim.job_id, b"\x01"),
        full.store.log(claim.lane, claim.entry, claim.job_id, "a line"),
    ]
    for call in calls:
        with pytest.raises(StoreRefused, match="OOM"):
            await call
    assert full.dump() == before


async def test_jobs_are_claimed_settled_delayed_and_failed(full: Bench) -> None:
    running = (await full.tick(list_held=True)).held[0]
    one, two = await full.claim(want=5)
    reply = await full.tick(outcomes=[done(running), fail(one), retry(two, 60_000)])
    assert reply.stale == []
    counts = await full.store.stats()
    assert (counts.active, counts.completed, counts.failed, counts.delayed) == (0, 1, 2, 2)


async def test_jobs_are_looked_at_cancelled_and_removed(full: Bench) -> None:
    assert await full.store.get("late") is not None
    assert await full.store.cancel("running", "make room") == "asked"
    assert (await full.store.renew("ann", 60_000)).cancels != {}
    assert await full.store.cancel("late", "make room") == "cancelled"
    assert await full.store.remove("late") == "removed"


async def test_workers_keep_their_leases_sign_off_and_are_paused(full: Bench) -> None:
    assert await full.store.renew("ann", 60_000)
    assert await full.store.pause()
    assert await full.store.resume()
    await full.store.wake()
    assert await full.store.leave("ann") == 1
