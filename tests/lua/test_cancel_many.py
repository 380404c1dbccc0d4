"""cancel_many: jobs of one state, or those named -> cancelled, or asked to, in bounded steps."""

from __future__ import annotations

import pytest

from streamq import FlowJob
from streamq._engine import codec
from streamq._engine.pages import Step
from streamq._engine.transitions import Claim
from tests.lua.conftest import Bench, done, envelope
from tests.lua.flows import add_flow, job


async def cancel_all(bench: Bench, state: str, limit: int = 200, name: str | None = None) -> list[str]:
    """Cancel jobs of a state in steps of `limit`."""
    step, found = Step(), list[str]()
    named = b"" if name is None else codec.encode_text(name)
    while not step.done:
        step = await bench.store.cancel_many(state, step, limit, named, "stop")
        assert len(step.ids) <= limit
        found += step.ids
    return found


@pytest.mark.parametrize("limit", [1, 2, 200])
@pytest.mark.parametrize("state", ["waiting", "delayed"])
async def test_all_jobs_of_a_state_are_cancelled_and_no_others(bench: Bench, state: str, limit: int) -> None:
    start = "+60000" if state == "delayed" else "0"
    ids = [await bench.add(f"job-{i}" if i % 2 else "", lane=lane, start=start) for i, lane in enumerate((3, 1, 3, 4))]
    other = await bench.add(start="0" if state == "delayed" else "+60000")
    assert sorted(await cancel_all(bench, state, limit)) == sorted(ids)
    assert sorted(bench.scores("cancelled")) == sorted(ids)
    assert {bench.record(job_id)["w"] for job_id in ids} == {b"stop"}
    stored = await bench.store.get(other)
    assert stored is not None
    assert stored.state == ("waiting" if state == "delayed" else "delayed")


async def test_the_workers_of_active_jobs_are_asked_and_waiting_ones_stay(bench: Bench) -> None:
    mine = await claims(bench, "ann", 3)
    await claims(bench, "bob", 1)
    waiting = await bench.add()
    assert len(await cancel_all(bench, "active", 2)) == 4
    assert set((await bench.store.renew("ann", 60_000)).cancels) == {claim.entry for claim in mine}
    assert len((await bench.store.renew("bob", 60_000)).cancels) == 1
    held = (await bench.tick("ann", list_held=True)).held
    await bench.tick("ann", outcomes=[done(claim) for claim in held])
    assert len(bench.scores("cancelled")) == 3
    assert (await bench.store.get(waiting)).state == "waiting"  # type: ignore[union-attr]


async def test_parents_that_end_on_the_way_hide_nobody_behind_them(bench: Bench) -> None:
    middle = [FlowJob("middle", job_id=f"m{i}", children=[FlowJob("low")]) for i in range(3)]
    await add_flow(bench, job("above", *middle))
    bench.redis.zadd(bench.key("waiting_children"), {"above": 1, "m0": 2, "m1": 3, "m2": 4})
    assert await cancel_all(bench, "waiting_children", 2, name="middle") == ["m0", "m1", "m2"]
    assert set(bench.scores("failed")) == {"above"}


async def claims(bench: Bench, worker: str, count: int) -> list[Claim]:
    """Add so many jobs and claim them."""
    await bench.add(count=count)
    return await bench.claim(worker, count)


@pytest.mark.parametrize("state", ["waiting", "delayed"])
async def test_a_name_picks_from_them(bench: Bench, state: str) -> None:
    start = "+60000" if state == "delayed" else "0"
    wanted = [await bench.add(body=envelope("mail"), start=start) for _ in range(3)]
    await bench.add(body=envelope("mailing"), start=start)
    await bench.add(body=envelope("report"), start=start)
    assert sorted(await cancel_all(bench, state, 2, "mail")) == sorted(wanted)
    assert len(bench.scores("cancelled")) == 3


@pytest.mark.parametrize("state", ["waiting", "delayed"])
async def test_jobs_that_come_in_between_two_steps_stay(bench: Bench, state: str) -> None:
    start = "+60000" if state == "delayed" else "0"
    old = [await bench.add(start=start) for _ in range(2)]
    step = await bench.store.cancel_many(state, Step(), 1, b"", "")
    assert len(step.ids) == 1
    moment = int(step.bound)
    while bench.now_ms() <= moment:
        pass
    late = await bench.add(start=start)
    found = list(step.ids)
    while not step.done:
        step = await bench.store.cancel_many(state, step, 1, b"", "")
        found += step.ids
    assert (sorted(found), list(bench.scores("cancelled"))) == (sorted(old), sorted(old, key=int))
    assert (await bench.store.get(late)).state == state  # type: ignore[union-attr]


async def test_named_jobs_are_cancelled_in_whatever_state_unless_they_ended(bench: Bench) -> None:
    completed = await bench.in_state("completed")
    failed = await bench.in_state("failed")
    active = await bench.in_state("active")
    waiting, delayed = await bench.in_state("waiting"), await bench.in_state("delayed", "late")
    ids = [completed, failed, "nobody", active, waiting, delayed]
    step = await bench.store.cancel_many("", Step(), 10, b"", "stop", ids)
    assert (step.done, step.ids) == (True, [active, waiting, delayed])
    assert sorted(bench.scores("cancelled")) == sorted([waiting, delayed])
    before = bench.dump("control:ann")
    assert (await bench.store.cancel_many("", Step(), 10, b"", "again", ids)).ids == [active]
    assert bench.dump("control:ann") == before


@pytest.mark.parametrize("state", ["waiting", "delayed", "active"])
async def test_of_an_empty_queue_nothing_is_written(bench: Bench, state: str) -> None:
    assert await cancel_all(bench, state) == []
    assert bench.dump() == {}
