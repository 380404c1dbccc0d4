"""Delayed jobs and retries come due once, in time, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from streamq import Backoff, JobOptions
from tests.faults.scene import KEEP, Scene, scaled
from tests.faults.workers import Stalls, eventually

SLOW = pytest.mark.timeout(400)


@SLOW
async def test_delayed_jobs_fire_in_time_on_a_quiet_queue(scene: Scene) -> None:
    """R46 (taskforcesh/bullmq#2534)."""
    chance = random.Random(46)  # noqa: S311
    workers = await scene.start(1)
    late: list[float] = []
    rounds = scaled(24, 200)
    for turn in range(rounds):
        if turn in (rounds // 3, 2 * rounds // 3):
            workers += await scene.start(1)
        delay = round(chance.uniform(0.1, scaled(1.0, 3.0)), 3)
        asked = time.monotonic()
        job = await scene.add("noop", delay=delay)
        accepted = scene.ledger.lines("accepted")[-1].at
        started = await scene.started(job, timeout=delay + 5)
        assert started - asked >= delay
        late.append(started - accepted - delay)
        await scene.idle(2)
    late.sort()
    assert late[int(len(late) * 0.99) - 1] <= 0.5
    assert late[-1] <= 2
    scene.each_ran_once()
    scene.clean()


async def test_a_delayed_job_survives_a_killed_server_and_fires_in_time(scene: Scene) -> None:
    """R47 (Bogdanp/dramatiq#527)."""
    await scene.start(2)
    job = await scene.add("noop", delay=5)
    accepted = time.monotonic()
    await asyncio.sleep(2)
    scene.server.kill()
    await asyncio.sleep(0.5)
    scene.server.start()
    started = await scene.started(job, timeout=6)
    assert 4.95 <= started - accepted <= 7
    await scene.idle(2)
    scene.each_ran_once()
    scene.clean()


@SLOW
async def test_jobs_that_come_due_in_the_same_second_run_once_each(scene: Scene) -> None:
    """R48 (Bogdanp/dramatiq#431)."""
    count = scaled(3_000, 5_000)
    await scene.start(scaled(4, 8), concurrency=20)
    options = JobOptions(delay=2, keep_completed=KEEP)
    jobs = await scene.queue.add_many([("noop", i, options) for i in range(count)])
    scene.note([job.id for job in jobs])
    await scene.idle(60)
    scene.each_ran_once()
    scene.clean()


@pytest.mark.parametrize("how", ["delay", "retry"])
async def test_a_due_time_beyond_the_lease_is_kept_and_the_job_handed_out_once(scene: Scene, how: str) -> None:
    """R49 (celery/kombu#337)."""
    wait = scaled(6, 20)
    await scene.start(3, lease=2)
    if how == "delay":
        job = await scene.add("noop", delay=wait)
        since = scene.ledger.lines("accepted")[0].at
    else:
        job = await scene.add("echo-later", {"failures": 1, "value": 1}, attempts=2, backoff=Backoff.fixed(wait))
        await scene.started(job)
        since = scene.ledger.lines("start")[0].at
    runs = 1 if how == "delay" else 2
    started = await scene.started(job, runs=runs, timeout=wait + 3)
    assert started - since >= wait - 0.05
    await scene.idle(3)
    verdict = scene.verdict()
    assert verdict.runs_of(job.id) == runs
    assert not verdict.duplicates
    scene.clean()


@SLOW
async def test_due_jobs_are_not_lost_when_workers_are_killed_while_promoting_them(scene: Scene) -> None:
    """R59 (sidekiq/sidekiq#843)."""
    count, kills = scaled(10_000, 200_000), scaled(5, 20)
    scene.direct.config_set("slowlog-log-slower-than", 100_000)
    options: Any = JobOptions(delay=1, keep_completed=KEEP)
    jobs = await scene.queue.add_many([("noop", i, options) for i in range(count)])
    scene.note([job.id for job in jobs])
    await asyncio.sleep(1)
    workers = await scene.start(2, lease=1, concurrency=50, STREAMQ_MAX_STALLS="100")
    with Stalls(scene.server.pid) as stalls:
        for turn in range(kills):
            before = scene.starts()
            await eventually(lambda before=before: scene.starts() > before + 200, 20)  # type: ignore[misc]
            victim = workers[turn % 2]
            victim.kill()
            victim.start()
        await scene.idle(scaled(60, 300))
    killed = {line.pid for line in scene.ledger.lines("killed")}
    verdict = scene.verdict()
    assert not verdict.lost
    for first, _ in verdict.duplicates:
        assert first.pid in killed, "a job ran again whose first worker was not killed"
    slow: Any = scene.direct.slowlog_get(1000)
    limit = 100_000 + stalls.worst * 1_000_000  # a command that the machine gave no turn is not a slow one
    assert not [(entry["command"][:60], entry["duration"], limit) for entry in slow if entry["duration"] > limit]
    scene.clean()
