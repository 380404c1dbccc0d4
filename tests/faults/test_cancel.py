"""Cancels meet starts, ends, deaths and freezes of workers: each job has one ending, the one its caller was told."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from streamq import Job, JobState
from streamq.errors import JobCancelled
from tests.faults.scene import LEASE, SWEEP, Scene, scaled
from tests.faults.workers import eventually, stays

SOON = 1.0
"""Seconds within which a running handler must hear of it, however busy its worker is."""


async def ends_cancelled(job: Job, within: float) -> None:
    with pytest.raises(JobCancelled):
        await job.result(timeout=within)


@pytest.mark.parametrize("concurrency", [1, 20])
async def test_a_running_job_is_interrupted_within_a_second_by_any_process(scene: Scene, concurrency: int) -> None:
    """The worker is full, or parked with free slots; its lease would be renewed seconds later."""
    await scene.start(lease=30, concurrency=concurrency)
    for _ in range(scaled(3, 20)):
        job = await scene.add("sleep", 600.0, attempts=5)
        await scene.started(job)
        asked = time.monotonic()
        assert await scene.open_queue().cancel(job.id, "enough")
        await ends_cancelled(job, 5)
        (end,) = scene.ledger.lines("end", job=job.id)
        assert end.at - asked <= SOON
    await stays(lambda: scene.starts() == len(scene.accepted), 0.5, "nothing runs again")
    scene.clean()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cancelled_job_of_a_killed_worker_does_not_run_again(scene: Scene, when: str) -> None:
    (first,) = await scene.start()
    job = await scene.add("sleep", 600.0, attempts=5)
    await scene.started(job)
    if when == "before":
        first.freeze()  # it can't hear of the cancel
        assert await job.cancel("stop")
    first.kill()
    if when == "after":
        assert await job.cancel("stop")
    await scene.start()
    await ends_cancelled(job, LEASE + SWEEP + 5)
    assert scene.starts() == 1
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert (snapshot.state, snapshot.cancel_reason, snapshot.stalls) == (JobState.CANCELLED, "stop", 1)
    scene.clean()


async def test_a_worker_that_was_frozen_past_its_lease_changes_nothing_about_a_cancelled_job(scene: Scene) -> None:
    (first,) = await scene.start()
    job = await scene.add("sleep", LEASE + 2.0)
    await scene.started(job)
    first.freeze()
    assert await job.cancel("stop")
    await scene.start()
    await ends_cancelled(job, LEASE + SWEEP + 5)
    first.thaw()
    await first.logs(f"job {job.id}: its lease had moved on")
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert snapshot.state == JobState.CANCELLED
    assert scene.starts() == 1
    scene.clean()


async def test_a_request_that_is_lost_with_the_connection_is_told_again(scene: Scene) -> None:
    """The token is taken by nobody, or by a reader that died: the next renewal tells of the request all the same."""
    (worker,) = await scene.start(lease=3)
    job = await scene.add("sleep", 600.0)
    await scene.started(job)
    (name,) = (raw.decode() for raw in scene.direct.zrange(f"{scene.base}:workers", 0, -1))
    scene.direct.client_kill_filter(_type="normal", skipme=True)
    assert await job.cancel("stop")
    scene.direct.delete(f"{scene.base}:control:{name}")
    await ends_cancelled(job, 10)
    assert worker.alive
    scene.clean()


async def test_an_unknown_id_can_be_cancelled_without_harm_to_a_later_job_of_that_id(scene: Scene) -> None:
    """R80 (python-arq/arq#485)."""
    await scene.start()
    assert not await scene.queue.cancel("X")
    job = await scene.add("echo", 1, job_id="X")
    assert await job.result(timeout=10) == 1
    assert not await scene.queue.cancel("X")
    assert await scene.queue.remove("X")
    assert not await scene.queue.cancel("X")
    again = await scene.queue.add("echo", 2, job_id="X")
    assert await again.result(timeout=10) == 2
    running = await scene.queue.add("sleep", 600.0, job_id="Y")
    await scene.started(running)
    assert await running.cancel()
    assert await scene.queue.remove("Y", force=True)
    third = await scene.queue.add("echo", 3, job_id="Y")
    assert await third.result(timeout=10) == 3


async def test_of_a_cancel_and_a_start_or_an_end_at_once_one_wins_and_the_caller_is_told_which(scene: Scene) -> None:
    """R81 (chrisguidry/docket#100): cancel vs start, and vs completion; three callers each."""
    chance = random.Random(81)  # noqa: S311
    callers = [scene.open_queue() for _ in range(3)]
    await scene.start(2, concurrency=5)
    told: dict[str, list[bool]] = {}

    async def one_round(number: int) -> None:
        job = await scene.add(*chance.choice([("noop", None), ("sleep", 0.005)]))
        await asyncio.sleep(chance.uniform(0, 0.012))
        told[job.id] = list(await asyncio.gather(*(each.cancel(job.id, str(number)) for each in callers)))

    for number in range(scaled(60, 400)):
        await one_round(number)
    await scene.idle(20)
    verdict = scene.verdict()
    for job_id, answers in told.items():
        snapshot = await scene.queue.get_job(job_id)
        assert snapshot is not None
        assert (snapshot.state == JobState.CANCELLED) == any(answers), (job_id, answers, snapshot)
        assert snapshot.state in (JobState.CANCELLED, JobState.COMPLETED)
        assert verdict.runs_of(job_id) <= 1
    assert sorted(endings(scene)) == sorted(told)
    assert {any(answers) for answers in told.values()} == {True, False}, "both happened"
    scene.clean()


def endings(scene: Scene) -> list[str]:
    """Return the job of each event so far that tells of an end."""
    found: list[str] = []
    for _, fields in scene.direct.xrange(f"{scene.base}:events"):
        for kind, ids in fields.items():
            if kind in (b"completed", b"failed", b"cancelled"):
                found += ids.decode().split("\0")
    return found


async def test_cancels_in_bulk_beside_workers_and_kills_leave_one_ending_each(scene: Scene) -> None:
    workers = await scene.start(3, lease=1, concurrency=10)
    await scene.add_many([("sleep", 0.05) for _ in range(scaled(300, 3_000))])
    cancelled: set[str] = set()
    for round_ in range(6):
        for state in (JobState.ACTIVE, JobState.WAITING):
            cancelled.update(await scene.queue.cancel_many(state, 20, reason=f"round {round_}"))
        before = scene.ends()
        workers[round_ % 3].kill()
        workers[round_ % 3].start()
        await eventually(lambda before=before: scene.ends() > before, 15)  # type: ignore[misc]
    await scene.idle(60)
    kept = {found.id for found in await scene.queue.jobs(JobState.CANCELLED, count=5_000)}
    assert kept == cancelled
    assert [key for key in scene.direct.scan_iter(count=1000) if b":cancels:" in key] == []
    scene.clean()


async def test_a_thread_whose_time_is_up_frees_its_slot_and_the_worker_still_stops(scene: Scene) -> None:
    (worker,) = await scene.start(concurrency=1)
    stuck = await scene.add("thread-sleep", 20.0, timeout=0.3, attempts=1)
    await scene.started(stuck)
    nxt = await scene.add("echo", 1)
    assert await nxt.result(timeout=10) == 1
    await worker.logs("its thread can't be stopped and is left")
    snapshot = await stuck.snapshot()
    assert snapshot is not None
    assert snapshot.state == JobState.FAILED
    worker.terminate()
    assert await worker.exits(10) == 0
    scene.clean()
