"""Workers are killed while flows are under way: each parent starts once, after its children, and with their results."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing

import pytest

from streamq import FlowJob, Job
from streamq.errors import JobFailed
from tests.faults.scene import LEASE, Scene, scaled
from tests.faults.workers import WorkerProcess, eventually

SLOW = pytest.mark.timeout(300)


def tree(levels: int) -> FlowJob:
    children = [tree(levels - 1) for _ in range(3)] if levels else [FlowJob("echo", 1)]
    return FlowJob("sum-up", children=children)


async def endings(scene: Scene, kind: str, last: set[str]) -> Counter[str]:
    """Count the events of a kind, by job, until each of `last` has completed."""
    found: Counter[str] = Counter()
    left = set(last)
    async with asyncio.timeout(30), aclosing(scene.queue.events(after="0-0")) as events:
        async for event in events:
            assert event.kind != "gap"
            found[event.job_id] += event.kind == kind
            if event.kind == "completed":
                left.discard(event.job_id)
            if not left:
                return found
    raise AssertionError("the events ended")


@SLOW
async def test_workers_that_are_killed_all_the_time_start_no_parent_twice_and_none_too_early(scene: Scene) -> None:
    """Incident R36, for those that wait: whichever run of a child counts, it is told of once."""
    chance = random.Random(36)  # noqa: S311
    workers = await scene.start(4, lease=1, concurrency=10)
    flows: list[Job] = [await scene.queue.add_flow(tree(2)) for _ in range(scaled(10, 60))]
    grown: list[Job] = [await scene.queue.add("count-tree", 3) for _ in range(scaled(10, 60))]
    for _ in range(scaled(12, 60)):
        victim = chance.choice(workers)
        before = scene.ends()
        await eventually(lambda before=before: scene.ends() > before + 5 or _all_ended(scene), 15)  # type: ignore[misc]
        victim.kill()
        victim.start()
    for job in flows:
        assert await job.result(timeout=60) == 9
    for job in grown:
        assert await job.result(timeout=60) == 1 + 3 + 9 + 27
    await scene.idle(30)
    told = await endings(scene, "children_ended", {job.id for job in (*flows, *grown)})
    assert set(told.values()) <= {0, 1}
    # The parents of a flow of two levels, and those of a tree that has grown to three.
    assert sum(told.values()) == len(flows) * (1 + 3 + 9) + len(grown) * (1 + 3 + 9)
    scene.clean()


def _all_ended(scene: Scene) -> bool:
    return int(scene.direct.zcard(f"{scene.base}:waiting_children")) == 0


@SLOW
async def test_a_child_that_kills_its_workers_fails_its_parent(scene: Scene) -> None:
    """R23, R87: a parent of a poisoned child does not wait for ever."""
    workers = await scene.start(2, lease=1)
    job = await scene.queue.add_flow(FlowJob("sum-up", children=[FlowJob("suicide", {}), FlowJob("echo", 1)]))

    async def supervise(worker: WorkerProcess) -> None:
        while True:
            if not worker.alive:
                await worker.exits(1)
                worker.start()
            await asyncio.sleep(0.05)

    watches = [asyncio.create_task(supervise(worker)) for worker in workers]
    try:
        with pytest.raises(JobFailed, match=r"ChildFailed: child \d+ failed: WorkerLost"):
            await job.result(timeout=20 * LEASE)
    finally:
        for watch in watches:
            watch.cancel()
    await scene.idle(10)
