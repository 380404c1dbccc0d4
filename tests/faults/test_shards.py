"""Workers of a queue with shards die, and stop: every job of every shard ends, and none runs twice without a reason."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from streamq import Queue
from streamq._engine.shards import SPAN
from tests.faults.scene import LEASE, Scene, scaled
from tests.faults.workers import eventually, stays

SHARDS = 3


async def is_empty(queue: Queue, seconds: float) -> None:
    """Wait until nothing of any shard waits, runs or is delayed."""
    found = await queue.stats()

    async def empty() -> bool:
        nonlocal found
        found = await queue.stats()
        return not (found.waiting or found.active or found.delayed)

    await eventually(empty, seconds, lambda: f"all shards are empty; there is left: {found}")


@pytest.mark.timeout(300)
async def test_no_shard_loses_a_job_however_often_workers_are_killed(scene: Scene) -> None:
    chance = random.Random(13)  # noqa: S311
    queue = scene.open_queue(shards=SHARDS)
    await queue.stats()
    workers = await scene.start(3, lease=1, concurrency=6, shards=SHARDS)
    jobs = await scene.add_many([("sleep", 0.05) for _ in range(scaled(450, 4000))], via=queue)
    assert {int(job.id) // SPAN for job in jobs} == set(range(SHARDS))
    for _ in range(scaled(6, 60)):
        victim = chance.choice(workers)
        before = scene.ends()
        await eventually(lambda before=before: scene.ends() > before + 20, 30)  # type: ignore[misc]
        victim.kill()
        victim.start()
    await is_empty(queue, 60)
    verdict = scene.verdict()
    assert not verdict.lost
    assert not verdict.overlapping
    assert not verdict.duplicates_without_a_death
    assert not verdict.unknown
    stats = await queue.stats()
    assert (stats.completed, stats.failed) == (len(jobs), 0)


@pytest.mark.timeout(200)
async def test_a_killed_workers_jobs_of_every_shard_run_elsewhere_soon(scene: Scene) -> None:
    """P6."""
    queue = scene.open_queue(shards=SHARDS)
    await queue.stats()
    (first,) = await scene.start(1, concurrency=12, shards=SHARDS)
    jobs = await scene.add_many([("sleep", 2.5) for _ in range(12)], via=queue)
    await eventually(lambda: scene.starts() == 12, 10)
    first.kill()
    killed = time.monotonic()
    await scene.start(1, concurrency=12, shards=SHARDS)
    await eventually(lambda: scene.starts() == 24, LEASE + 5, "all twelve start again")
    await is_empty(queue, 15)
    verdict = scene.nothing_lost([(killed - 10, killed + LEASE + 5)])
    assert verdict.repeated == {job.id: 2 for job in jobs}


@pytest.mark.timeout(200)
async def test_a_deploy_loses_and_repeats_nothing_and_spends_no_attempt(scene: Scene) -> None:
    """P4."""
    queue = scene.open_queue(shards=SHARDS)
    await queue.stats()
    (first,) = await scene.start(1, concurrency=6, shards=SHARDS)
    jobs = await scene.add_many([("sleep", 0.05) for _ in range(200)], via=queue)
    await eventually(lambda: scene.ends() > 30, 20)
    await scene.start(1, concurrency=6, shards=SHARDS)
    first.terminate()
    await is_empty(queue, 40)
    scene.each_ran_once()
    found = await asyncio.gather(*(job.snapshot() for job in jobs))
    assert {job.attempts_made for job in found if job} == {1}


@pytest.mark.timeout(200)
async def test_adds_and_workers_of_all_shards_connect_again_when_their_connections_are_cut(scene: Scene) -> None:
    queue = scene.open_queue(shards=SHARDS, timeout=20.0)
    await queue.stats()
    await scene.start(1, concurrency=6, shards=SHARDS)
    await scene.add_many([("sleep", 0.01) for _ in range(60)], via=queue)
    scene.direct.client_kill_filter(_type="normal", skipme=True)
    for _ in range(30):
        await scene.add("sleep", 0.01, via=queue)
    await is_empty(queue, 40)
    scene.each_ran_once()


@pytest.mark.timeout(200)
async def test_an_outage_of_redis_is_waited_for_by_adds_and_workers_of_all_shards(scene: Scene) -> None:
    queue = scene.open_queue(shards=SHARDS, timeout=20.0)
    await queue.stats()
    (worker,) = await scene.start(1, concurrency=6, shards=SHARDS)
    await scene.add_many([("sleep", 0.01) for _ in range(60)], via=queue)
    scene.server.kill()
    adds = [asyncio.create_task(scene.add("sleep", 0.01, via=queue)) for _ in range(30)]
    await stays(lambda: worker.alive and not any(add.done() for add in adds), 2, "no add is answered by nobody")
    scene.server.start()
    jobs = await asyncio.gather(*adds)
    assert {int(job.id) // SPAN for job in jobs} == set(range(SHARDS))
    await is_empty(queue, 40)
    scene.each_ran_once()
