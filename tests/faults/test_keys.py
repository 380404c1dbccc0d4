"""Keys keep their limits and their order while workers and the server die: a place is neither lost nor given twice."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.faults.scene import LEASE, Scene
from tests.faults.workers import WorkerProcess, eventually

KEY = "tenant"


def one_key(job: str) -> str:
    return KEY


def starts(scene: Scene) -> list[str]:
    """Return the jobs in the order of their starts, repeats included."""
    return [line.job for line in scene.ledger.lines("start")]


def holder_of(scene: Scene, workers: list[WorkerProcess], job: str) -> WorkerProcess:
    pid = scene.ledger.lines("start", job=job)[-1].pid
    return next(worker for worker in workers if worker.pid == pid)


async def add(scene: Scene, count: int, **data: Any) -> list[str]:
    """Add jobs of the key, one after the other."""
    return [(await scene.add("slow-echo", {"value": n, **data}, key=KEY, attempts=3)).id for n in range(count)]


async def test_a_job_whose_worker_is_killed_runs_again_before_all_that_stand_behind_it(scene: Scene) -> None:
    await scene.queue.limit_key(KEY, concurrency=1)
    workers = await scene.start(3)
    first, *others = await add(scene, 8, seconds=0.3)
    await eventually(lambda: starts(scene) == [first], 5, "the first of the key runs")
    holder_of(scene, workers, first).kill()
    await scene.idle(LEASE + 30)
    assert starts(scene) == [first, first, *others]
    verdict = scene.verdict()
    assert not verdict.overlapping_by(one_key)
    assert not verdict.duplicates_without_a_death
    scene.clean()


async def test_a_job_that_waits_for_its_retry_keeps_its_turn_when_its_worker_is_killed(scene: Scene) -> None:
    await scene.queue.limit_key(KEY, concurrency=1)
    workers = await scene.start(2, retry_delay_ms=1_000)
    first = await scene.add("echo-later", {"failures": 1, "value": 1}, key=KEY, attempts=3)
    others = await add(scene, 3, seconds=0.05)
    await eventually(lambda: scene.ends() == 1, 5, "its first attempt has failed")
    holder_of(scene, workers, first.id).kill()
    await scene.idle(LEASE + 30)
    assert starts(scene) == [first.id, first.id, *others]
    assert not scene.verdict().overlapping_by(one_key)
    scene.clean()


async def test_the_places_of_a_killed_worker_are_taken_again_and_by_no_more_than_there_are(scene: Scene) -> None:
    await scene.queue.limit_key(KEY, concurrency=2)
    (doomed,) = await scene.start()
    jobs = await add(scene, 8, seconds=0.5)
    await eventually(lambda: len(starts(scene)) == 2, 5, "one worker has both places")
    doomed.kill()
    await scene.start(2)
    await scene.idle(LEASE + 30)
    verdict = scene.verdict()
    assert verdict.most_at_once(one_key) == {KEY: 2}
    assert verdict.repeated == dict.fromkeys(jobs[:2], 2)
    assert sorted(starts(scene)[2:4]) == sorted(jobs[:2])
    scene.clean()


async def test_a_server_that_is_killed_while_jobs_of_a_key_run_and_are_parked_changes_nothing(scene: Scene) -> None:
    await scene.queue.limit_key(KEY, concurrency=1)
    await scene.start(3, lease=LEASE)
    jobs = await add(scene, 10, seconds=0.3)
    for at in (2, 5):
        await eventually(lambda at=at: len(starts(scene)) >= at, 20, f"{at} of the key have started")  # type: ignore[misc]
        scene.server.kill()
        await asyncio.sleep(0.5)
        scene.server.start()
    await scene.idle(60)
    assert starts(scene) == jobs
    assert not scene.verdict().overlapping_by(one_key)
    scene.clean()
