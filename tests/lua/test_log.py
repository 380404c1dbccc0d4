"""log: an active job's log -> one line longer."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, done


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_lines_are_kept_in_order(bench: Bench, own_id: str) -> None:
    claim = await bench.claimed(own_id)
    for line in ("one", "two"):
        assert await bench.store.log(claim.lane, claim.entry, claim.job_id, line)
    assert bench.redis.lrange(bench.key(f"log:{claim.job_id}"), 0, -1) == [b"one", b"two"]


async def test_the_latest_lines_up_to_the_cap_are_kept(bench: Bench) -> None:
    claim = await bench.claimed()
    for n in range(5):
        await bench.call("log", claim.lane, claim.entry, claim.job_id, n, 3)
    assert bench.redis.lrange(bench.key(f"log:{claim.job_id}"), 0, -1) == [b"2", b"3", b"4"]


async def test_a_lease_that_moved_on_writes_nothing(bench: Bench) -> None:
    frozen = await bench.claimed(worker="frozen")
    bench.lapse("frozen")
    await bench.claim("ann")
    before = bench.dump()
    assert not await bench.store.log(frozen.lane, frozen.entry, frozen.job_id, "late")
    assert bench.dump() == before


async def test_a_job_that_has_ended_writes_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim, keep=0)])
    before = bench.dump()
    assert not await bench.store.log(claim.lane, claim.entry, claim.job_id, "late")
    assert bench.dump() == before


async def test_a_log_outlives_a_completion_that_is_kept(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.store.log(claim.lane, claim.entry, claim.job_id, "a line")
    await bench.tick(outcomes=[done(claim)])
    assert bench.redis.lrange(bench.key(f"log:{claim.job_id}"), 0, -1) == [b"a line"]
