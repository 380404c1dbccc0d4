"""get: reads one job, in each state."""

from __future__ import annotations

import pytest

from streamq._engine.transitions import StoredJob
from tests.lua.conftest import Bench, done, envelope, fail, retry


async def look(bench: Bench, job_id: str) -> StoredJob:
    """Read a job; the look itself writes nothing."""
    before = bench.dump()
    stored = await bench.store.get(job_id)
    assert bench.dump() == before
    assert stored is not None
    return stored


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_a_waiting_job(bench: Bench, own_id: str) -> None:
    job_id = await bench.add(own_id, lane=2)
    stored = await look(bench, job_id)
    assert (stored.state, stored.lane, stored.envelope, stored.started_ms) == ("waiting", 2, envelope(), None)
    assert stored.created_ms == int(bench.lane(2)[0][1]["t"])


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_an_active_job_has_started_when_it_was_claimed(bench: Bench, own_id: str) -> None:
    await bench.add(own_id)
    before = bench.now_ms()
    job_id = (await bench.claim())[0].job_id
    after = bench.now_ms()
    stored = await look(bench, job_id)
    assert stored.state == "active"
    assert stored.started_ms is not None
    assert before - 1 <= stored.started_ms <= after + 1


async def test_a_delayed_job(bench: Bench) -> None:
    job_id = await bench.add(start="+9000")
    stored = await look(bench, job_id)
    assert (stored.state, stored.number("u")) == ("delayed", bench.scores("delayed")[job_id])


@pytest.mark.parametrize("own_id", ["", "mine"])
async def test_a_completed_job(bench: Bench, own_id: str) -> None:
    claim = await bench.claimed(own_id)
    await bench.tick(outcomes=[done(claim, b"\x05")])
    stored = await look(bench, claim.job_id)
    assert (stored.state, stored.record["r"], stored.number("a")) == ("completed", b"\x05", 1)
    assert (stored.envelope, stored.started_ms) == (envelope(), 1_790_000_000_000)
    assert stored.number("f") == bench.scores("completed")[claim.job_id]


async def test_a_failed_job(bench: Bench) -> None:
    claim = await bench.claimed()
    outcome = fail(claim)
    await bench.tick(outcomes=[outcome])
    stored = await look(bench, claim.job_id)
    assert (stored.state, stored.record["x"], stored.envelope) == ("failed", outcome.body, envelope())


async def test_a_job_that_waits_again_is_found_under_its_new_entry(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[retry(claim)])
    stored = await look(bench, claim.job_id)
    assert (stored.state, stored.number("a"), stored.created_ms) == ("waiting", 1, claim.since_ms)


async def test_the_envelopes_pieces_are_not_among_the_fields(bench: Bench) -> None:
    job_id = await bench.add(start="+9000", body=bytes(500))
    stored = await look(bench, job_id)
    assert stored.envelope == bytes(500)
    assert set(stored.record) == {"s", "p", "c", "u"}


@pytest.mark.parametrize("job_id", ["nobody", "17", "0", "99999999999999999999999", "1-0"])
async def test_an_unknown_id_is_none(bench: Bench, job_id: str) -> None:
    await bench.add()
    before = bench.dump()
    assert await bench.store.get(job_id) is None
    assert bench.dump() == before


async def test_a_number_that_another_jobs_entry_bears_is_unknown(bench: Bench) -> None:
    await bench.add("mine")  # its entry is 1-0
    assert await bench.store.get("1") is None


async def test_a_job_that_ended_without_a_record_is_unknown(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim, keep=0)])
    assert await bench.store.get(claim.job_id) is None
