"""recall: reads what earlier attempts of an active job have remembered."""

from __future__ import annotations

from tests.lua.conftest import Bench, done


async def test_a_job_that_has_remembered_nothing_has_nothing_to_recall(bench: Bench) -> None:
    claim = await bench.claimed()
    before = bench.dump()
    assert await bench.store.recall(claim.lane, claim.entry, claim.job_id) == {}
    assert bench.dump() == before


async def test_a_lease_that_moved_on_is_told_nothing(bench: Bench) -> None:
    frozen = await bench.claimed(worker="frozen")
    await bench.store.remember(frozen.lane, frozen.entry, frozen.job_id, "sa", b"\x01")
    bench.lapse("frozen")
    (held,) = await bench.claim("ann")
    assert await bench.store.recall(frozen.lane, frozen.entry, frozen.job_id) is None
    assert await bench.store.recall(held.lane, held.entry, held.job_id) == {"sa": b"\x01"}


async def test_a_job_that_has_ended_is_told_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim)])
    assert await bench.store.recall(claim.lane, claim.entry, claim.job_id) is None


async def test_a_queue_without_a_group_tells_nothing(bench: Bench) -> None:
    assert await bench.store.recall(3, "1-0", "1") is None
    assert bench.dump() == {}
