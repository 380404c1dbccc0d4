"""Workers die and stop while they gather and run batches: each job comes back by itself, and ends once."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import aclosing

import pytest

from streamq import JobState
from streamq.errors import JobFailed
from tests.faults.scene import LEASE, Scene
from tests.faults.state import pending_of
from tests.faults.workers import eventually


async def completions(scene: Scene) -> Counter[str]:
    """Return how often each job has completed so far."""
    last = await scene.add("noop")
    found: Counter[str] = Counter()
    async with aclosing(scene.queue.events(after="0-0")) as events:
        async for event in events:
            if event.kind == "completed":
                if event.job_id == last.id:
                    break
                found[event.job_id] += 1
    return found


async def test_each_job_of_a_killed_workers_batch_runs_once_more_and_ends_once(scene: Scene) -> None:
    (first,) = await scene.start(1, concurrency=1)
    jobs = await scene.add_many([("sleep-together", 60.0) for _ in range(20)])
    await eventually(lambda: scene.starts() == 20, 15)
    since = scene.ledger.lines("start")[0].at
    first.kill()
    await scene.start(2, concurrency=1)
    await scene.idle(LEASE + 30)
    verdict = scene.nothing_lost([(since, time.monotonic())])
    assert verdict.repeated == {job.id: 2 for job in jobs}
    together = [len(line.more["together"]) for line in scene.ledger.lines("start")]
    assert together == [20] * 20 + [1] * 20, "what stalled runs in a batch of its own"
    for job in jobs:
        snapshot = await job.snapshot()
        assert snapshot is not None
        assert (snapshot.result, snapshot.attempts_made, snapshot.stalls) == (60.0, 1, 1)
    assert await completions(scene) == {job.id: 1 for job in jobs}
    scene.clean()


async def test_jobs_that_were_only_gathered_by_a_killed_worker_run_elsewhere_once(scene: Scene) -> None:
    (first,) = await scene.start(1, concurrency=2)
    jobs = await scene.add_many([("gathered", None) for _ in range(30)])
    await eventually(lambda: pending_of(scene.direct, scene.name) == 30, 15)
    first.kill()
    await scene.start(1, concurrency=2)
    await scene.idle(LEASE + 30)
    scene.each_ran_once()
    assert await completions(scene) == dict.fromkeys((job.id for job in jobs), 1)
    scene.clean()


async def test_a_job_that_kills_its_workers_takes_the_others_of_its_batch_with_it_once(scene: Scene) -> None:
    """P5."""
    (first,) = await scene.start(1, concurrency=1)
    first.expected_to_live = False
    jobs = await scene.add_many([("suicide-together", number == 7) for number in range(20)])
    await eventually(lambda: not first.alive, 15)
    for worker in await scene.start(3, concurrency=1):
        worker.expected_to_live = False
    with pytest.raises(JobFailed, match="WorkerLost"):
        await jobs[7].result(timeout=4 * LEASE + 30)
    await scene.idle(20)
    runs = Counter(line.job for line in scene.ledger.lines("start"))
    assert runs == {job.id: 3 if job is jobs[7] else 2 for job in jobs}
    assert (await scene.queue.stats()).completed == 19
    scene.clean()


async def test_a_worker_that_is_told_to_stop_gives_back_at_once_what_it_has_gathered(scene: Scene) -> None:
    """P4."""
    (worker,) = await scene.start(1, concurrency=2, grace=60)
    jobs = await scene.add_many([("gathered", None) for _ in range(30)])
    await eventually(lambda: pending_of(scene.direct, scene.name) == 30, 15)
    worker.terminate()
    assert await worker.exits(15) == 0
    stats = await scene.queue.stats()
    assert (stats.waiting, stats.active, scene.starts()) == (30, 0, 0)
    for job in jobs:
        snapshot = await job.snapshot()
        assert snapshot is not None
        assert (snapshot.state, snapshot.attempts_made, snapshot.interruptions) == (JobState.WAITING, 0, 0)
