"""SIGTERM by the dozen, under load: what P4 promises, as a figure."""

from __future__ import annotations

import pytest

from tests.faults.figures import at_most, publish
from tests.faults.load import busy, steady
from tests.faults.scene import Scene, scaled
from tests.faults.storm import MANY

AT_ONCE = 2
CONCURRENCY = 10


async def stop_again_and_again(scene: Scene, stops: int, grace: float, nap: float) -> int:
    """Stop workers while they are busy, two of four at a time; return how many jobs they held when they were told."""
    workers = await scene.start(4, grace=grace, concurrency=CONCURRENCY, STREAMQ_EVENTS_CAP=MANY)
    held = 0
    async with steady(scene, lambda count: [("sleep", nap)] * count, attempts=1):
        for turn in range(stops // AT_ONCE):
            leaving = [workers[(turn * AT_ONCE + at) % len(workers)] for at in range(AT_ONCE)]
            for worker in leaving:
                held += await busy(scene, worker, least=3)
                worker.terminate()
            for worker in leaving:
                assert await worker.exits(grace + 8) == 0
                worker.start()
            await scene.workers_ready(leaving)
    await scene.idle(30)
    return held


@pytest.mark.timeout(scaled(180, 1_800))
async def test_stops_under_load_lose_nothing_repeat_nothing_and_spend_no_attempt(scene: Scene) -> None:
    """P4."""
    stops = scaled(20, 200)
    held = await stop_again_and_again(scene, stops, grace=10, nap=0.1)
    verdict = scene.verdict()
    spent = sum(line.attempt != 1 for line in scene.ledger.lines("start"))
    publish(
        "clean stops", None, {"workers stopped while busy": stops, "jobs held at the signal": held},
        {
            "jobs": len(scene.accepted), "lost": at_most(len(verdict.lost), len(scene.accepted)),
            "repeated": at_most(len(verdict.repeated), len(scene.accepted)), "attempts spent": spent,
        },
    )  # fmt: skip
    assert held >= 3 * stops, "void: the workers were not busy"
    assert not spent
    scene.each_ran_once()
    scene.clean()


@pytest.mark.timeout(scaled(180, 1_800))
async def test_jobs_that_outlast_the_grace_run_elsewhere_and_have_all_their_attempts(scene: Scene) -> None:
    """P4: each job has one attempt, and none of them loses it to a stop."""
    stops = scaled(10, 100)
    await stop_again_and_again(scene, stops, grace=0.05, nap=0.6)
    verdict = scene.verdict()
    handed_back = [run for runs in verdict.runs.values() for run in runs if run.outcome == "CancelledError"]
    completed = scene.direct.zcard(f"{scene.base}:completed")
    spent = sum(line.attempt != 1 for line in scene.ledger.lines("start"))
    publish(
        "stops without grace", None, {"workers stopped while busy": stops, "runs interrupted": len(handed_back)},
        {
            "jobs": len(scene.accepted), "completed": completed, "at two places at once": len(verdict.overlapping),
            "attempts spent": spent,
        },
    )  # fmt: skip
    assert len(handed_back) >= stops, "void: too little was interrupted"
    assert completed == len(scene.accepted)
    assert not spent
    assert not verdict.overlapping
    assert verdict.total_runs == len(scene.accepted) + len(handed_back)
    scene.clean()
