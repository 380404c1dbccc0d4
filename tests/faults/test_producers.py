"""What `add` says is so: a job that it returned exists once, one that it refused does not exist."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from streamq import Queue
from streamq.errors import StoreError, StoreUnavailable
from tests.faults.proxy import FaultProxy
from tests.faults.scene import Scene, gather_within, scaled
from tests.faults.workers import eventually

SLOW = pytest.mark.timeout(300)


def lane_size(scene: Scene) -> int:
    return scene.direct.xlen(f"{scene.base}:lane:3")


async def values_that_ran(scene: Scene) -> list[Any]:
    """Run everything and return the data that handlers saw, in order of value."""
    await scene.start(concurrency=50)
    await scene.idle(30)
    return sorted(int(line.more["data"]) for line in scene.ledger.lines("start"))


@SLOW
async def test_adds_whose_replies_are_lost_add_each_job_once(scene: Scene, proxy: FaultProxy) -> None:
    """P1: Redis did the work, the connection broke, the caller is told of success and there is one job."""
    clients = [scene.open_queue(proxy.url) for _ in range(3)]
    proxy.drop_replies(0.3)
    refused: list[int] = []
    count = scaled(300, 3000)

    async def one(at: int) -> None:
        try:
            await scene.add("noop", at, via=clients[at % len(clients)])
        except StoreUnavailable:
            refused.append(at)

    for start in range(0, count, 30):
        await gather_within(30, *(one(at) for at in range(start, start + 30)))
    proxy.heal()
    assert proxy.refused_replies > 10
    ran = await values_that_ran(scene)
    assert len(ran) == len(set(ran)), "a job was added twice"
    assert set(ran) >= set(range(count)) - set(refused)
    assert len(refused) < count * 0.1
    assert len(set(scene.accepted)) == len(scene.accepted)
    scene.clean(removed=False)


@SLOW
async def test_a_large_batch_is_whole_and_single_however_its_replies_are_lost(scene: Scene, proxy: FaultProxy) -> None:
    """P1 for `add_many`: all or none, in order, and none twice."""
    size = 3_000
    client = scene.open_queue(proxy.url)
    proxy.drop_replies(0.15)
    whole = unknown = 0
    for turn in range(scaled(6, 40)):
        before = lane_size(scene)
        try:
            jobs = await client.add_many([("noop", turn * size + i) for i in range(size)])
        except StoreError:
            unknown += 1
            await eventually(lambda before=before: lane_size(scene) in (before, before + size), 15)  # type: ignore[misc]
            continue
        whole += 1
        scene.note([job.id for job in jobs])
        assert lane_size(scene) == before + size
        numbers = [int(job.id) for job in jobs]
        assert numbers == sorted(set(numbers))
    proxy.heal()
    assert whole > unknown
    ran = await values_that_ran(scene)
    assert len(ran) == len(set(ran)), "a job was added twice"
    assert len(ran) % size == 0
    assert len(ran) >= whole * size


async def test_a_cancelled_add_neither_harms_its_neighbours_nor_adds_twice(scene: Scene, proxy: FaultProxy) -> None:
    """Adds that share a round trip: some callers give up, the others get their own ids."""
    client = scene.open_queue(proxy.url)
    await client.add("noop", 0)
    proxy.latency(20)
    calls = [asyncio.create_task(client.add("noop", at)) for at in range(1, 201)]
    for at, call in enumerate(calls):
        if at % 3 == 0:
            asyncio.get_running_loop().call_later(0.001 * (at % 50), call.cancel)
    outcomes = await gather_within(20, *calls)
    unexpected = [o for o in outcomes if isinstance(o, BaseException) and not isinstance(o, asyncio.CancelledError)]
    assert not unexpected
    added = {outcome.id: at for at, outcome in enumerate(outcomes, 1) if not isinstance(outcome, BaseException)}
    snapshots = await gather_within(10, *(client.get_job(job_id) for job_id in added))
    assert {snapshot.id: snapshot.data for snapshot in snapshots} == added
    proxy.heal()
    ran = await values_that_ran(scene)
    assert len(ran) == len(set(ran))
    assert set(ran) >= {0, *added.values()}


async def test_adds_held_up_by_an_outage_go_through_when_it_is_shorter_than_their_patience(scene: Scene) -> None:
    """A restart of Redis is waited for, not told to every caller."""
    await scene.start()
    client = scene.open_queue(timeout=5)
    await scene.add("noop", via=client)
    scene.server.kill()
    adds = [asyncio.create_task(scene.add("noop", i, via=client)) for i in range(50)]
    since = time.monotonic()
    await eventually(lambda: time.monotonic() - since > 1, 3)
    scene.server.start()
    outcomes = await gather_within(8, *adds)
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    await scene.idle(10)
    scene.each_ran_once()
    scene.clean()


async def test_a_producer_that_is_one_way_deaf_adds_once(scene: Scene, proxy: FaultProxy) -> None:
    """Requests arrive, replies do not: the call ends in time, its repeat under the same number adds nothing."""
    client: Queue = scene.open_queue(proxy.url, timeout=3)
    await client.add("noop", 0)
    proxy.one_way()
    waiting = asyncio.create_task(client.add("noop", 1))
    await eventually(lambda: lane_size(scene) == 2, 3)
    proxy.reset_all()
    proxy.heal()
    job = await asyncio.wait_for(waiting, 4)
    snapshot = await client.get_job(job.id)
    assert snapshot is not None
    assert snapshot.data == 1
    assert lane_size(scene) == 2
    assert await values_that_ran(scene) == [0, 1]
