"""SIGSTOP beyond the lease by the dozen: others take over, and what the frozen ones say afterwards is dropped."""

from __future__ import annotations

import re

import pytest

from tests.faults.figures import at_most, publish
from tests.faults.load import busy, steady
from tests.faults.scene import Scene, scaled
from tests.faults.state import pending_of
from tests.faults.storm import MANY, endings
from tests.faults.workers import WorkerProcess, eventually, stays

LEASE = 1.0
AT_ONCE = 4


@pytest.mark.timeout(scaled(180, 1_800))
async def test_workers_frozen_beyond_their_lease_end_nothing_a_second_time(scene: Scene) -> None:
    """P3. Void if no outcome came too late."""
    freezes = scaled(20, 200)
    workers = await scene.start(
        6, lease=LEASE, concurrency=5, STREAMQ_MAX_STALLS=MANY, STREAMQ_EVENTS_CAP=MANY, grace=10
    )
    async with steady(scene, lambda count: [("sleep", 0.2)] * count, waiting=40):
        for turn in range(freezes // AT_ONCE):
            frozen = [workers[(turn * AT_ONCE + at) % len(workers)] for at in range(AT_ONCE)]
            for worker in frozen:
                await busy(scene, worker, least=2)
                worker.freeze()
            await eventually(lambda frozen=frozen: not leased(scene, frozen), 15, "the frozen workers are swept")  # type: ignore[misc]
            for worker in frozen:
                worker.thaw()
            await scene.workers_ready(frozen)
    await scene.idle(30)
    verdict = scene.verdict()
    told = endings(scene.direct, scene.name)
    twice = {job: count for job, count in told.items() if count != 1}
    stale = sum(len(re.findall("lease had moved on", worker.log)) for worker in workers)
    jobs = len(scene.accepted)
    publish(
        "freezes", None, {"workers frozen beyond their lease": freezes},
        {
            "jobs": jobs, "lost": at_most(len(verdict.lost), jobs), "ended twice": at_most(len(twice), jobs),
            "outcomes rejected as stale": stale, "run again": len(verdict.repeated),
        },
    )  # fmt: skip
    assert stale > 0, "void: no frozen worker reported anything"
    assert not verdict.lost
    assert not twice
    assert {job for _, job in told} == set(scene.accepted)
    scene.clean()


async def test_a_fleet_that_stood_still_as_a_whole_repeats_nothing(scene: Scene) -> None:
    """P2: the machine slept. The first to be thawed finds all leases lapsed, and takes nobody's jobs."""
    workers = await scene.start(3, lease=2, concurrency=5)
    await scene.add_many([("sleep", 7.0)] * 15)
    await eventually(lambda: scene.starts() == 15, 10)
    for worker in workers:
        worker.freeze()
    await eventually(lambda: scene.live_workers() == 0, 5, "all leases lapse")
    first, *others = workers
    first.thaw()
    await eventually(lambda: re.search(f"-{first.pid}-", newest_lease(scene)), 5, "the first one renews its lease")
    held = pending_of(scene.direct, scene.name)
    await stays(lambda: pending_of(scene.direct, scene.name) == held == 15, 0.5, "nothing is taken from the others")
    for worker in others:
        worker.thaw()
    await scene.idle(15)
    scene.each_ran_once()
    scene.clean()


def newest_lease(scene: Scene) -> str:
    """Return the worker whose lease ends last."""
    return scene.direct.zrange(f"{scene.base}:workers", -1, -1)[0].decode()


def leased(scene: Scene, workers: list[WorkerProcess]) -> bool:
    """Whether any of these still has a lease."""
    names = scene.direct.zrange(f"{scene.base}:workers", 0, -1)
    return any(f"-{worker.pid}-".encode() in name for worker in workers for name in names)
