"""remember: an active job -> the same, with something kept for its next attempts."""

from __future__ import annotations

import pytest

from streamq._engine.transitions import Claim
from tests.lua.conftest import Bench, done, fail, release, retry


async def remember(bench: Bench, claim: Claim, field: str = "scharge", value: bytes = b"\x05") -> bool:
    return await bench.store.remember(claim.lane, claim.entry, claim.job_id, field, value)


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_what_is_remembered_is_kept_for_the_next_attempt(bench: Bench, own_id: str) -> None:
    claim = await bench.claimed(own_id)
    assert await remember(bench, claim)
    assert await remember(bench, claim, "c", b"\x07")
    await bench.tick(outcomes=[retry(claim)])
    (again,) = await bench.claim()
    assert again.cursor == b"\x07"
    assert await bench.store.recall(again.lane, again.entry, again.job_id) == {"scharge": b"\x05", "c": b"\x07"}


async def test_a_cursor_comes_with_jobs_taken_back_from_a_lost_worker(bench: Bench) -> None:
    claim = await bench.claimed(worker="frozen")
    await remember(bench, claim, "c", b"\x07")
    bench.lapse("frozen")
    assert [found.cursor for found in await bench.claim("ann")] == [b"\x07"]


async def test_a_cursor_comes_with_what_a_worker_lists_as_held(bench: Bench) -> None:
    claim = await bench.claimed()
    await remember(bench, claim, "c", b"\x07")
    assert [held.cursor for held in (await bench.tick(list_held=True)).held] == [b"\x07"]


async def test_other_jobs_have_no_cursor(bench: Bench) -> None:
    await remember(bench, await bench.claimed(), "c", b"\x07")
    other = await bench.claimed("other")
    assert other.cursor == b""


async def test_a_lease_that_moved_on_writes_nothing(bench: Bench) -> None:
    frozen = await bench.claimed(worker="frozen")
    bench.lapse("frozen")
    await bench.claim("ann")
    before = bench.dump()
    assert not await remember(bench, frozen)
    assert bench.dump() == before


async def test_a_job_that_has_ended_writes_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim, keep=0)])
    before = bench.dump()
    assert not await remember(bench, claim)
    assert bench.dump() == before


@pytest.mark.parametrize("keep", [0, 1])
async def test_a_job_that_completes_forgets_its_steps(bench: Bench, keep: int) -> None:
    claim = await bench.claimed()
    await remember(bench, claim)
    await bench.tick(outcomes=[done(claim, keep=keep)])
    assert bench.redis.keys("*:steps:*") == []


async def test_a_failed_job_keeps_its_steps_for_a_retry_and_loses_them_with_its_record(bench: Bench) -> None:
    claim = await bench.claimed()
    await remember(bench, claim)
    await bench.tick(outcomes=[fail(claim)])
    await bench.store.retry(claim.job_id)
    (again,) = await bench.claim()
    assert await bench.store.recall(again.lane, again.entry, again.job_id) == {"scharge": b"\x05"}
    await bench.tick(outcomes=[fail(again, keep=0)])
    assert bench.redis.keys("*:steps:*") == []


@pytest.mark.parametrize("how", ["remove", "force", "clean", "drain", "obliterate"])
async def test_steps_go_with_a_job_that_is_removed(bench: Bench, how: str) -> None:
    claim = await bench.claimed()
    await remember(bench, claim)
    if how in ("remove", "clean"):
        await bench.tick(outcomes=[fail(claim)])
    elif how != "force":
        await bench.tick(outcomes=[release(claim)])
    if how in ("remove", "force"):
        await bench.store.remove(claim.job_id, force=how == "force")
    elif how == "clean":
        await bench.call("clean", "failed", 0, "", 0, 10, 1, 10)
    elif how == "drain":
        await bench.call("drain", 0, "", "", 10, 10)
    else:
        await bench.call("obliterate", 0, 10, 10)
    assert bench.redis.keys("*:job:*") + bench.redis.keys("*:steps:*") == []
