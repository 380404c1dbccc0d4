"""Clients that wait, many at once, on few connections and on a server that holds more than queues."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest
import redis.asyncio

from streamq import JobState
from tests.faults.scene import LEASE, Scene, gather_within, scaled
from tests.faults.workers import eventually

SLOW = pytest.mark.timeout(300)


def clients_of(scene: Scene, name: str) -> int:
    """Return how many connections of that name the server has."""
    return sum(client["name"] == name for client in scene.direct.client_list())


async def test_everyone_who_waits_gets_a_result_when_a_worker_freezes_and_dies(scene: Scene) -> None:
    """R95 (tobymao/saq#118)."""
    workers = await scene.start(3, concurrency=3)
    jobs = await scene.add_many([("who", {"seconds": 1.0}) for _ in range(20)])
    waits = [asyncio.create_task(job.result(timeout=30)) for job in jobs]
    await eventually(lambda: scene.starts() >= 9, 5)
    workers[0].freeze()
    frozen = time.monotonic()
    await eventually(lambda: time.monotonic() - frozen > 1, 3)
    workers[0].kill()
    results = await gather_within(30, *waits)
    rest = 3 * 1.0  # what three workers have left of twenty jobs
    assert time.monotonic() - frozen <= LEASE + rest + 1.0 + 3
    assert set(results) <= {worker.name for worker in workers}
    scene.clean()


async def test_a_wait_without_workers_ends_at_its_timeout_and_leaves_nothing_behind(scene: Scene) -> None:
    """R95 (tobymao/saq#118): no worker at all."""
    job = await scene.add("noop")
    await scene.queue.get_job(job.id)
    tasks = len(asyncio.all_tasks())
    connections = cast("dict[str, int]", scene.direct.info("clients"))["connected_clients"]
    since = time.monotonic()
    outcomes = await asyncio.gather(*(job.result(timeout=3) for _ in range(20)), return_exceptions=True)
    took = time.monotonic() - since
    assert {type(outcome) for outcome in outcomes} == {TimeoutError}
    assert 3 <= took <= 3.5
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, 2)
    await eventually(
        lambda: cast("dict[str, int]", scene.direct.info("clients"))["connected_clients"] <= connections, 2
    )
    assert await scene.queue.remove(job.id)
    scene.clean(removed=True)


async def test_a_small_pool_serves_any_number_of_calls_and_waits(scene: Scene) -> None:
    """R97 (redis/redis-py#2517)."""
    await scene.start(concurrency=50)
    pool = redis.asyncio.Redis.from_url(scene.server.url, max_connections=5, client_name="small")
    client = scene.open_queue(pool)
    first = await scene.add_many([("sleep", 0.5) for _ in range(50)], via=client)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, clients_of(scene, "small"))
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    outcomes = await gather_within(
        20, *(job.result(timeout=15) for job in first), *(scene.add("noop", i, via=client) for i in range(500))
    )
    watching.cancel()
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert 1 <= most <= 5 + 1
    await scene.idle(10)
    await pool.aclose()
    scene.each_ran_once()
    scene.clean()


@SLOW
async def test_a_million_foreign_keys_cost_nothing(scene: Scene) -> None:
    """R99 (tastyware/streaq#163)."""
    scene.direct.config_set("appendonly", "no")
    fill = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'foreign:' .. i, i) end"
    for start in range(0, scaled(200_000, 1_000_000), 50_000):
        scene.direct.eval(fill, 0, str(start), str(start + 49_999))
    await scene.start()
    jobs = await scene.add_many([("noop", i) for i in range(500)])
    await scene.idle(10)
    delayed = await scene.queue.add("noop", delay=3600)
    scene.direct.config_resetstat()
    took: dict[str, list[float]] = {}

    async def time_of(what: str, call: Any) -> None:
        since = time.monotonic()
        await call
        took.setdefault(what, []).append(time.monotonic() - since)

    for _ in range(40):
        await time_of("stats", scene.queue.stats())
        await time_of("get_job", scene.queue.get_job(jobs[7].id))
        for state in JobState:
            await time_of(f"jobs {state}", scene.queue.jobs(state))
        await time_of("clean", scene.queue.clean(grace=3600))
    for what, times in took.items():
        assert sorted(times)[int(len(times) * 0.95)] <= 0.2, what
    called = set(scene.direct.info("commandstats"))
    assert not {name for name in called if name.lower() in ("cmdstat_scan", "cmdstat_keys")}
    assert await scene.queue.remove(delayed.id)
    scene.clean()


async def test_a_client_that_gives_up_waiting_does_not_disturb_the_others(scene: Scene) -> None:
    """Waits of one process share a reader: cancelling some leaves the rest."""
    await scene.start()
    gate = scene.ledger.path.with_name("gate")
    job = await scene.add("gate", {"path": str(gate), "value": "open"})
    waits = [asyncio.create_task(job.result(timeout=20)) for _ in range(50)]
    await scene.started(job)
    for wait in waits[::2]:
        wait.cancel()
    gate.touch()
    assert await gather_within(10, *waits[1::2]) == ["open"] * 25
    scene.clean()
