"""update_data: waiting | delayed | failed -> the same, with another envelope."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, envelope_of_size, retry

OLD, NEW = envelope_of_size(200), envelope_of_size(90)[::-1]


async def stored(bench: Bench, job_id: str) -> bytes:
    job = await bench.store.get(job_id)
    assert job is not None
    return job.envelope


@pytest.mark.parametrize("own_id", ["", "mine"])
@pytest.mark.parametrize("state", ["waiting", "delayed", "failed"])
async def test_the_new_envelope_is_what_is_kept(bench: Bench, state: str, own_id: str) -> None:
    job_id = await bench.in_state(state, own_id, body=OLD)
    assert await bench.store.update_data(job_id, OLD, NEW) == "updated"
    job = await bench.store.get(job_id)
    assert job is not None
    assert (job.state, job.envelope) == (state, NEW)
    assert bench.events_of(job_id)[-1] == "updated"


@pytest.mark.parametrize("size", [1, 63, 64, 65, 128, 1_024, 1_025, 5_000])
@pytest.mark.parametrize("before", [10, 64, 1_000, 2_000])
async def test_no_piece_of_the_old_envelope_is_left(bench: Bench, before: int, size: int) -> None:
    job_id = await bench.add(start="+60000", body=envelope_of_size(before))
    await bench.store.update_data(job_id, envelope_of_size(before), envelope_of_size(size))
    await bench.store.promote(job_id)
    assert (await bench.claim())[0].envelope == envelope_of_size(size)


async def test_a_waiting_job_whose_entry_holds_its_envelope_goes_to_the_end(bench: Bench) -> None:
    job_id = await bench.add(body=OLD)
    other = await bench.add()
    await bench.store.update_data(job_id, OLD, NEW)
    claims = await bench.claim(want=5)
    assert [claim.job_id for claim in claims] == [other, job_id]
    assert claims[1].envelope == NEW


async def test_a_waiting_job_whose_record_holds_it_keeps_its_place(bench: Bench) -> None:
    job_id = await bench.add(start="+60000", body=OLD)
    await bench.store.promote(job_id)
    other = await bench.add()
    await bench.store.update_data(job_id, OLD, NEW)
    assert [claim.job_id for claim in await bench.claim(want=5)] == [job_id, other]


async def test_a_job_that_was_retried_keeps_its_attempts(bench: Bench) -> None:
    claim = await bench.claimed(body=OLD)
    await bench.tick(outcomes=[retry(claim)])
    await bench.store.update_data(claim.job_id, OLD, NEW)
    again = (await bench.claim())[0]
    assert (again.attempts_made, again.envelope) == (1, NEW)


@pytest.mark.parametrize("state", ["waiting", "delayed", "failed"])
async def test_an_update_of_what_others_have_changed_writes_nothing(bench: Bench, state: str) -> None:
    job_id = await bench.in_state(state, body=OLD)
    before = bench.dump()
    assert await bench.store.update_data(job_id, b"something else", NEW) == "changed"
    assert bench.dump() == before


@pytest.mark.parametrize("state", ["active", "completed"])
async def test_in_any_other_state_nothing_is_written(bench: Bench, state: str) -> None:
    job_id = await bench.in_state(state, body=OLD)
    before = bench.dump()
    assert await bench.store.update_data(job_id, OLD, NEW) == state
    assert bench.dump() == before
    assert await stored(bench, job_id) == OLD


async def test_an_unknown_job_writes_nothing(bench: Bench) -> None:
    assert await bench.store.update_data("nobody", OLD, NEW) == "unknown"
    assert bench.dump() == {}
