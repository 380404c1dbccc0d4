"""SIGTERM: nothing is lost, nothing runs twice, no attempt is spent."""

from __future__ import annotations

import time

import pytest

from streamq import JobState
from tests.faults.scene import LEASE, Scene, scaled
from tests.faults.workers import WorkerProcess, eventually


async def exits_soon(worker: WorkerProcess, within: float) -> None:
    """Assert that a worker ends with exit code 0 within so many seconds."""
    assert await worker.exits(within) == 0


async def test_the_lease_is_kept_while_a_stopping_worker_finishes_its_job(scene: Scene) -> None:
    """R40 (taskforcesh/bullmq#2258)."""
    (first,) = await scene.start(name="first", grace=30)
    job = await scene.add("who", {"seconds": scaled(8.0, 15.0)})
    started = await scene.started(job)
    await scene.start(name="second", grace=30)
    await eventually(lambda: time.monotonic() - started > 1, 5)
    first.terminate()
    await exits_soon(first, scaled(10, 17))
    ended = scene.ledger.lines("end")[0].at
    assert time.monotonic() - ended < 1.5
    assert await job.result(timeout=2) == "first"
    scene.each_ran_once()
    scene.clean()


async def test_a_job_that_fails_while_its_worker_stops_is_retried_elsewhere(scene: Scene) -> None:
    """R41 (taskforcesh/bullmq#834)."""
    (first,) = await scene.start(retry_delay_ms=1500)
    gate = scene.ledger.path.with_name("gate")
    job = await scene.add("gate", {"path": str(gate), "fails": 1, "value": "done"}, attempts=2)
    await scene.started(job)
    first.terminate()
    await first.logs("stopping")
    gate.touch()
    await exits_soon(first, 3)
    snapshot = await scene.queue.get_job(job.id)
    assert snapshot is not None
    assert snapshot.state == JobState.DELAYED
    assert snapshot.attempts_made == 1
    assert snapshot.interruptions == 0
    await scene.start()
    assert await job.result(timeout=5) == "done"
    assert [line.attempt for line in scene.ledger.lines("start")] == [1, 2]
    scene.clean()


async def test_a_stopping_worker_starts_nothing_more_and_hands_back_what_it_has_not_started(scene: Scene) -> None:
    """R42 (taskiq-python/taskiq#380)."""
    (first,) = await scene.start(name="first")
    await scene.add_many([("who", {"seconds": 0.2}) for _ in range(scaled(300, 1000))])
    await eventually(lambda: scene.ends() >= 30, 10)
    told = time.monotonic()
    first.terminate()
    await exits_soon(first, 1.2)
    late = [line for line in scene.ledger.lines("start") if line.at > told + 0.1]
    assert not late
    assert not _holders(scene)
    done = scene.ends()
    assert done == scene.starts()
    stats = await scene.queue.stats()
    assert (stats.active, stats.waiting) == (0, len(scene.accepted) - done)
    (_,) = await scene.start(name="second", concurrency=50)
    await eventually(lambda: scene.starts() > done, 1)
    await scene.idle(30)
    assert {line.attempt for line in scene.ledger.lines("start")} == {1}
    scene.each_ran_once()
    scene.clean()


def _holders(scene: Scene) -> list[bytes]:
    """Return who holds entries of the normal lane; what `spare` has was given back unstarted, and waits."""
    consumers = scene.direct.xinfo_consumers(f"{scene.base}:lane:3", "w")
    return [one["name"] for one in consumers if one["pending"] and one["name"] != b"spare"]


async def test_a_job_that_outlasts_the_grace_period_is_run_elsewhere_and_keeps_its_attempts(scene: Scene) -> None:
    """P4."""
    (first,) = await scene.start(name="first", grace=1)
    job = await scene.add("who", {"seconds": 3.0}, attempts=1)
    await scene.started(job)
    first.terminate()
    await exits_soon(first, 3)
    snapshot = await scene.queue.get_job(job.id)
    assert snapshot is not None
    assert snapshot.state == JobState.WAITING
    assert (snapshot.attempts_made, snapshot.interruptions, snapshot.stalls) == (0, 1, 0)
    await scene.start(name="second")
    assert await job.result(timeout=6) == "second"
    assert [line.attempt for line in scene.ledger.lines("start")] == [1, 1]
    scene.clean()


async def test_a_second_signal_hands_everything_back_at_once(scene: Scene) -> None:
    """P4, in a hurry."""
    (first,) = await scene.start(grace=60)
    job = await scene.add("sleep", 2.0)
    await scene.started(job)
    first.terminate()
    await first.logs("stopping")
    first.terminate()
    await exits_soon(first, 2)
    await scene.start()
    await scene.idle(6)
    assert [line.attempt for line in scene.ledger.lines("start")] == [1, 1]
    scene.clean()


@pytest.mark.parametrize("name", ["thread-sleep", "block"])
async def test_a_handler_that_cannot_be_interrupted_does_not_run_at_two_places(scene: Scene, name: str) -> None:
    """P4: what blocks its thread or the loop ends on its own time, or with the process."""
    (first,) = await scene.start(grace=6)
    job = await scene.add(name, 3.0)
    await scene.started(job)
    first.terminate()
    await exits_soon(first, 6)
    await scene.idle(1)
    scene.each_ran_once()
    scene.clean()


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_worker_stopped_while_redis_is_away_exits_and_its_jobs_run_elsewhere(scene: Scene, how: str) -> None:
    """P4 where it can't be kept: exit code 1 says so, the lease does the rest."""
    (first,) = await scene.start(grace=1)
    job = await scene.add("sleep", 1.5)
    await scene.started(job)
    if how == "killed":
        scene.server.kill()
    else:
        scene.server.pause()
    first.terminate()
    assert await first.exits(12) == 1
    if how == "killed":
        scene.server.start()
    else:
        scene.server.cont()
    await scene.start()
    await scene.idle(LEASE + 8)
    assert await job.result(timeout=1) == 1.5
    scene.clean()


async def test_rolling_restarts_lose_nothing_repeat_nothing_and_spend_no_attempt(scene: Scene) -> None:
    """P4: every worker is replaced, one after the other, under load."""
    old = await scene.start(3, concurrency=5)
    await scene.add_many([("sleep", 0.05) for _ in range(scaled(600, 3000))])
    for worker in old:
        await eventually(lambda: scene.ends() > 30, 10)
        await scene.start(concurrency=5)
        worker.terminate()
        await exits_soon(worker, 5)
    await scene.idle(30)
    assert {line.attempt for line in scene.ledger.lines("start")} == {1}
    scene.each_ran_once()
    scene.clean()
