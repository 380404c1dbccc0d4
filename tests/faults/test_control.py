"""Pause, remove, retry, reschedule: each call wins or loses against workers and against its twins, never halfway."""

from __future__ import annotations

import asyncio
import time

import pytest

from streamq import Backoff, JobNotFound, JobState, Queue, StreamqError, WrongState
from tests.faults.scene import LEASE, Scene, scaled
from tests.faults.state import pending_of
from tests.faults.workers import eventually, stays

SLOW = pytest.mark.timeout(300)


async def test_nothing_starts_in_a_paused_queue_whatever_comes_due(scene: Scene) -> None:
    """R76 (OptimalBits/bull#1087)."""
    (worker,) = await scene.start(lease=1, concurrency=20)
    retrying = await scene.add("echo-later", {"failures": 1, "value": 1}, attempts=2, backoff=Backoff.fixed(2))
    await scene.started(retrying)
    await eventually(lambda: scene.ends() == 1, 5)
    await scene.queue.upsert_schedule("tick", every=1, name="noop", missed="once")
    await eventually(lambda: any("tick@" in line.job for line in scene.ledger.lines("start")), 5)
    await scene.queue.pause()
    await eventually(lambda: scene.starts() == scene.ends(), 5)
    paused_at = scene.starts()
    delayed = await scene.add("noop", delay=1)
    waiting = await scene.add("noop")
    scene.direct.xreadgroup("w", "lost-worker", {f"{scene.base}:lane:3": ">"}, count=1)
    scene.direct.zadd(f"{scene.base}:workers", {"lost-worker": scene.now_ms() - 1})
    await stays(lambda: scene.starts() == paused_at, 5, "nothing starts while paused")
    stats = await scene.queue.stats()
    assert stats.paused
    assert stats.active == 0
    assert stats.waiting >= 3
    assert stats.delayed == 0
    await scene.queue.remove_schedule("tick")
    await scene.queue.resume()
    resumed = time.monotonic()
    for job, runs in ((retrying, 2), (delayed, 1), (waiting, 1)):
        await scene.started(job, runs=runs, timeout=2)
    await scene.idle(2)
    assert time.monotonic() - resumed <= 2.5
    verdict = scene.verdict()
    assert not verdict.duplicates
    assert worker.alive
    scene.clean()


async def test_a_running_job_is_removed_for_good_or_not_at_all(scene: Scene) -> None:
    """R79 (OptimalBits/bull#291): by another client."""
    (worker,) = await scene.start()
    for ends_with in ("returned", "ValueError"):
        gate = scene.ledger.path.with_name(f"gate-{ends_with}")
        fails = 9 if ends_with == "ValueError" else 0
        job = await scene.queue.add("gate", {"path": str(gate), "fails": fails}, attempts=3)
        await scene.started(job)
        with pytest.raises(WrongState):
            await scene.queue.remove(job.id)
        assert (await scene.queue.get_job(job.id)).state == JobState.ACTIVE  # type: ignore[union-attr]
        assert await scene.queue.remove(job.id, force=True)
        assert not await scene.queue.remove(job.id, force=True)
        before = scene.ends()
        gate.touch()
        await eventually(lambda before=before: scene.ends() > before, 5)  # type: ignore[misc]
        await worker.logs(f"job {job.id}: its lease had moved on")
        assert await scene.queue.get_job(job.id) is None
        assert scene.verdict().runs_of(job.id) == 1
        assert not scene.direct.exists(f"{scene.base}:job:{job.id}", f"{scene.base}:log:{job.id}")
    await stays(lambda: scene.starts() == 2, 1, "nothing comes back")
    stats = await scene.queue.stats()
    assert stats.total == 0
    assert "Traceback" not in worker.log
    scene.clean()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_job_may_remove_itself(scene: Scene, fails: bool) -> None:
    """R79 (OptimalBits/bull#291): in its own handler, which then returns or raises."""
    (worker,) = await scene.start()
    job = await scene.queue.add("remove-itself", {"fails": fails}, attempts=3)
    await scene.started(job)
    await eventually(lambda: scene.ends() == 1, 5)
    await worker.logs("its lease had moved on")
    assert await scene.queue.get_job(job.id) is None
    assert not scene.direct.exists(f"{scene.base}:job:{job.id}", f"{scene.base}:log:{job.id}")
    await stays(lambda: scene.starts() == 1, 1, "it does not come back")
    scene.clean()


async def test_a_job_that_is_removed_while_it_is_reclaimed_is_gone(scene: Scene) -> None:
    """R79 (OptimalBits/bull#291): during reclaim."""
    jobs = await scene.queue.add_many([("noop", i) for i in range(300)])
    assert scene.orphan(300) == 300
    scene.fleet.start(concurrency=20)

    async def remove(job_id: str) -> str:
        return job_id if await scene.queue.remove(job_id, force=True) else ""

    found = await asyncio.gather(*(remove(job.id) for job in jobs), return_exceptions=True)
    removed = {job_id for job_id in found if isinstance(job_id, str)}
    assert len(removed) == len(jobs)
    await eventually(lambda: pending_of(scene.direct, scene.name) == 0, LEASE + 5)
    await scene.idle(10)
    for job in jobs:
        assert await scene.queue.get_job(job.id) is None
    scene.clean()


async def test_acting_on_an_unknown_id_does_not_touch_a_later_job_of_that_id(scene: Scene) -> None:
    """R80 (python-arq/arq#485)."""
    await scene.start()
    for _ in range(3):
        assert not await scene.queue.remove("X")
        assert not await scene.queue.remove("X", force=True)
        for call in (scene.queue.retry, scene.queue.promote):
            with pytest.raises(JobNotFound):
                await call("X")
        job = await scene.queue.add("echo", "ran", job_id="X")
        assert job.is_new
        assert await job.result(timeout=5) == "ran"
        assert await scene.queue.remove("X")
    scene.clean()


@SLOW
async def test_of_many_callers_at_once_exactly_one_wins(scene: Scene) -> None:
    """R81 (chrisguidry/docket#100)."""
    await scene.start(2, attempts=1)
    clients = [scene.open_queue() for _ in range(10)]
    rounds = scaled(8, 100)
    for turn in range(rounds):
        added = await _all_at_once(clients, lambda q, turn=turn: q.add("noop", job_id=f"same-{turn}"))
        assert sum(getattr(job, "is_new", False) for job in added) == 1
        assert {getattr(job, "id", job) for job in added} == {f"same-{turn}"}
        scene.note([f"same-{turn}"])

        failing = await scene.add("echo-later", {"failures": 1, "value": 1}, attempts=1)
        await eventually(lambda: scene.direct.zscore(f"{scene.base}:failed", failing.id), 5)  # noqa: B023
        await scene.queue.pause()  # or it may have failed again before the last caller comes
        retried = await _all_at_once(clients, lambda q, id=failing.id: q.retry(id))
        assert sum(outcome is None for outcome in retried) == 1, retried
        assert {type(outcome) for outcome in retried} == {type(None), WrongState}
        await scene.queue.resume()
        await eventually(lambda: scene.direct.zscore(f"{scene.base}:failed", failing.id), 5)  # noqa: B023

        delayed = await scene.add("noop", delay=3600)
        moved = await _all_at_once(clients, lambda q, id=delayed.id: q.promote(id))
        assert sum(outcome is None for outcome in moved) == 1, moved

        raced = await scene.queue.add("noop")
        outcomes = await _all_at_once(clients, lambda q, id=raced.id: q.remove(id))
        await scene.idle(5)
        assert sum(outcome is True for outcome in outcomes) <= 1
        snapshot, runs = await scene.queue.get_job(raced.id), scene.verdict().runs_of(raced.id)
        if any(outcome is True for outcome in outcomes):
            assert snapshot is None
            assert runs <= 1
        else:
            assert snapshot is not None
            assert runs == 1
    verdict = scene.verdict()
    for turn in range(rounds):
        assert verdict.runs_of(f"same-{turn}") == 1
    assert all(len(runs) <= 2 for runs in verdict.runs.values())
    scene.clean()


async def _all_at_once(clients: list[Queue], call: object) -> list[object]:
    """Have 50 callers on ten connections make the same call in the same instant."""
    barrier = asyncio.Barrier(50)

    async def one(client: Queue) -> object:
        await barrier.wait()
        try:
            return await call(client)  # type: ignore[operator]
        except StreamqError as error:
            return error

    return list(await asyncio.gather(*(one(clients[i % len(clients)]) for i in range(50))))


async def test_a_rescheduled_job_runs_once_at_the_last_time_that_was_set(scene: Scene) -> None:
    """R81 (chrisguidry/docket#100): reschedule."""
    await scene.start()
    job = await scene.add("noop", delay=3600)
    clients = [scene.open_queue() for _ in range(10)]
    outcomes = await _all_at_once(clients, lambda q: q.reschedule(job.id, delay=1))
    assert outcomes == [None] * 50
    since = time.monotonic()
    started = await scene.started(job, timeout=4)
    assert started - since <= 2
    await scene.idle(2)
    assert scene.direct.zcard(f"{scene.base}:delayed") == 0
    with pytest.raises(WrongState):
        await scene.queue.reschedule(job.id, delay=1)
    scene.each_ran_once()
    scene.clean()


async def test_a_retry_at_any_moment_leaves_one_job_in_one_state(scene: Scene) -> None:
    """Retry against retention, removal and itself."""
    await scene.start(attempts=1)
    for _ in range(scaled(10, 100)):
        job = await scene.queue.add("raise", {"kind": "ValueError"}, attempts=1)
        await eventually(lambda: scene.direct.zscore(f"{scene.base}:failed", job.id), 5)  # noqa: B023
        outcomes = await asyncio.gather(
            scene.queue.retry(job.id), scene.queue.remove(job.id), scene.queue.retry(job.id), return_exceptions=True
        )
        assert all(o is None or isinstance(o, bool | StreamqError) for o in outcomes), outcomes
        await scene.idle(5)
        places = [name for name in ("completed", "failed") if scene.direct.zscore(f"{scene.base}:{name}", job.id)]
        known = await scene.queue.get_job(job.id)
        assert len(places) == (known is not None)
        assert scene.direct.exists(f"{scene.base}:job:{job.id}") == (known is not None)
    scene.clean()
