"""What is over leaves nothing behind: memory, keys, consumers, connections and tasks come back to where they were."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, cast

import psutil
import pytest

from streamq import JobOptions, Retention
from streamq.errors import StoreError
from tests.faults.scene import LEASE, Scene, scaled
from tests.faults.state import pending_of
from tests.faults.workers import eventually, stays

SLOW = pytest.mark.timeout(600)


def used(scene: Scene) -> int:
    """Return the server's memory in use."""
    return int(scene.direct.info("memory")["used_memory"])


def lasting_keys(scene: Scene) -> set[bytes]:
    """Return the keys that no TTL will remove, but for two that come and go by themselves, each of them capped."""
    own = {f"{scene.base}:wake".encode(), f"{scene.base}:minutes".encode()}
    return {key for key in cast("list[bytes]", scene.direct.keys("*")) if scene.direct.ttl(key) == -1} - own


@SLOW
async def test_a_drained_queue_takes_the_room_that_it_took_before(scene: Scene) -> None:
    """R71 (taskiq-python/taskiq-redis#114)."""
    brief = JobOptions(keep_completed=Retention(count=1_000_000, age=1))
    await scene.start(2, concurrency=100)
    warm = await scene.queue.add("unrecorded", 0, options=brief)
    await warm.result(timeout=5)
    await eventually(lambda: scene.direct.zcard(f"{scene.base}:completed") == 0, 10)
    baseline, keys = used(scene), lasting_keys(scene)
    for _ in range(scaled(5, 20)):
        await scene.queue.add_many([("unrecorded", i, brief) for i in range(scaled(4_000, 10_000))])
    await scene.idle(scaled(60, 300))
    await eventually(lambda: scene.direct.zcard(f"{scene.base}:completed") == 0, 5, "the results expire")
    lanes = [scene.direct.xlen(f"{scene.base}:lane:{lane}") for lane in range(1, 5)]
    assert lanes == [0, 0, 0, 0]
    assert pending_of(scene.direct, scene.name) == 0
    assert lasting_keys(scene) <= keys
    assert used(scene) <= baseline + 5_000_000
    scene.clean()


@SLOW
async def test_events_carry_no_results(scene: Scene) -> None:
    """R73 (taskforcesh/bullmq#366)."""
    none = JobOptions(keep_completed=Retention(count=0))
    count = scaled(4_000, 20_000)
    await scene.start(2, concurrency=100)
    warm = await scene.queue.add("unrecorded-result", 10_000, options=none)
    await eventually(lambda: pending_of(scene.direct, scene.name) == 0, 5)
    assert await scene.queue.get_job(warm.id) is None
    baseline = used(scene)
    await scene.queue.add_many([("unrecorded-result", 10_000, none) for _ in range(count)])
    await scene.idle(60)
    assert used(scene) <= baseline + scene.queue.settings.events_cap * 1024
    assert used(scene) <= baseline + count * 1024
    scene.clean()


@SLOW
async def test_workers_that_are_gone_leave_no_trace(scene: Scene) -> None:
    """R74 (Bogdanp/dramatiq#401)."""
    (keeper,) = await scene.start(name="keeper", lease=2)
    await scene.add_many([("noop", i) for i in range(10)])
    await scene.idle(5)
    keys = lasting_keys(scene)
    for turn in range(scaled(4, 50)):
        batch = await scene.start(4, lease=2, concurrency=5)
        await scene.add_many([("sleep", 0.05) for _ in range(40)])
        target = scene.ends() + 10
        await eventually(lambda target=target: scene.ends() >= target, 10)  # type: ignore[misc]
        for at, worker in enumerate(batch):
            if at % 2:
                worker.terminate()
            else:
                worker.kill()
        for worker in batch[1::2]:
            assert await worker.exits(10) == 0, turn
    await scene.idle(20)
    await eventually(lambda: scene.direct.zcard(f"{scene.base}:workers") == 1, 2 * 2 + 5)
    for lane in range(1, 5):
        consumers = cast("list[Any]", scene.direct.xinfo_consumers(f"{scene.base}:lane:{lane}", "w"))
        assert len(consumers) <= 2
    assert lasting_keys(scene) - keys <= {f"{scene.base}:job:{job}".encode() for job in scene.accepted}
    verdict = scene.verdict()
    assert not verdict.lost
    killed = {line.pid for line in scene.ledger.lines("killed")}
    assert all(first.pid in killed for first, _ in verdict.duplicates)
    assert keeper.alive
    scene.clean()


@SLOW
async def test_a_producer_neither_hangs_nor_grows_while_redis_is_down(scene: Scene) -> None:
    """R75 (celery/celery#3436)."""
    (worker,) = await scene.start()
    client = scene.open_queue(timeout=1)
    await scene.add("noop", via=client)
    await scene.idle(5)
    me = psutil.Process(os.getpid())
    tasks, files, worker_files = len(asyncio.all_tasks()), me.num_fds(), worker.open_files
    scene.server.kill()
    took: list[float] = []
    accepted: list[str] = []

    async def add() -> None:
        since = time.monotonic()
        try:
            accepted.append((await client.add("noop", "x" * 1000)).id)
        except StoreError:
            took.append(time.monotonic() - since)

    memory, worker_memory = 0, 0
    calls: list[asyncio.Task[None]] = []
    started = time.monotonic()
    lasts = scaled(8, 60)
    while time.monotonic() - started < lasts:
        calls.append(asyncio.create_task(add()))
        calls = [call for call in calls if not call.done()]
        await asyncio.sleep(0.01)
        if not memory and time.monotonic() - started > 2:
            memory, worker_memory = me.memory_info().rss, worker.rss
    grown, worker_grown = me.memory_info().rss - memory, worker.rss - worker_memory
    await asyncio.gather(*calls)
    assert not accepted
    assert len(took) > lasts * 30
    assert max(took) <= 1.5
    assert grown < 10_000_000
    assert worker_grown < 10_000_000
    scene.server.start()
    job = await scene.add("noop", via=client)
    await scene.started(job, timeout=5)
    await scene.idle(5)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, 5)
    await eventually(lambda: me.num_fds() <= files + 1, 5)
    await eventually(lambda: worker.open_files <= worker_files + 1, 5)
    scene.nothing_lost()
    scene.clean()


async def test_connections_and_memory_of_a_worker_stay_level_over_many_cuts(scene: Scene, proxy: Any) -> None:
    """Each cut costs a reconnect, and nothing else."""
    (worker,) = await scene.start(url=proxy.url)
    files = worker.open_files
    for _ in range(scaled(15, 200)):
        proxy.reset_all()
        await eventually(lambda: proxy.open_connections >= 2, 5)
    await stays(lambda: worker.alive, LEASE / 3 + 0.5, "the worker lives")
    assert worker.open_files <= files + 2
    assert proxy.open_connections <= 4
    await scene.add_many([("noop", i) for i in range(20)])
    await scene.idle(5)
    scene.each_ran_once()
    scene.clean()
