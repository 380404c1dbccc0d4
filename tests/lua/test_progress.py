"""progress: an active job -> the same, further on."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, done


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_an_active_jobs_progress_is_kept_and_told(bench: Bench, own_id: str) -> None:
    claim = await bench.claimed(own_id)
    assert await bench.store.progress(claim.lane, claim.entry, claim.job_id, b"\x0a")
    assert bench.record(claim.job_id)["g"] == b"\x0a"
    assert bench.events_of(claim.job_id) == ["added", "active", "progress"]
    stored = await bench.store.get(claim.job_id)
    assert stored is not None
    assert (stored.state, stored.created_ms) == ("active", claim.since_ms)


async def test_the_last_one_counts(bench: Bench) -> None:
    claim = await bench.claimed()
    for value in (b"\x01", b"\x02", b"\x02"):
        assert await bench.store.progress(claim.lane, claim.entry, claim.job_id, value)
    assert bench.record(claim.job_id)["g"] == b"\x02"


async def test_a_lease_that_moved_on_writes_nothing(bench: Bench) -> None:
    frozen = await bench.claimed(worker="frozen")
    bench.lapse("frozen")
    await bench.claim("ann")
    before = bench.dump()
    assert not await bench.store.progress(frozen.lane, frozen.entry, frozen.job_id, b"\x0a")
    assert bench.dump() == before


async def test_a_job_that_has_ended_writes_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim, keep=0)])
    before = bench.dump()
    assert not await bench.store.progress(claim.lane, claim.entry, claim.job_id, b"\x0a")
    assert bench.dump() == before


async def test_a_queue_without_a_group_writes_nothing(bench: Bench) -> None:
    assert not await bench.store.progress(3, "1-0", "1", b"\x0a")
    assert bench.dump() == {}


async def test_an_entry_that_was_deleted_behind_our_back_writes_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    bench.redis.xdel(bench.key("lane:3"), claim.entry)
    before = bench.dump()
    assert not await bench.store.progress(claim.lane, claim.entry, claim.job_id, b"\x0a")
    assert bench.dump() == before


async def test_a_job_with_progress_completes_and_leaves_nothing_if_nothing_is_kept(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.store.progress(claim.lane, claim.entry, claim.job_id, b"\x0a")
    await bench.tick(outcomes=[done(claim, keep=0)])
    assert bench.redis.keys("*:job:*") == []
