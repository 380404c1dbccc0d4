"""A job is one worker's at a time, for as long as that worker shows that it lives, and not longer."""

from __future__ import annotations

import time
from typing import cast

import psutil
import pytest

from tests.faults.scene import LEASE, Scene, scaled
from tests.faults.state import pending_of
from tests.faults.workers import eventually

SLOW = pytest.mark.timeout(300)


def events(scene: Scene, wanted: str) -> list[str]:
    """Return the ids in all events of a kind."""
    found: list[str] = []
    for _, fields in cast("list[tuple[bytes, dict[bytes, bytes]]]", scene.direct.xrange(f"{scene.base}:events")):
        found += [job for kind, ids in fields.items() if kind.decode() == wanted for job in ids.decode().split("\0")]
    return found


async def test_a_job_longer_than_the_lease_runs_once(scene: Scene) -> None:
    """R33 (taskiq-python/taskiq-redis#101)."""
    await scene.start(3)
    job = await scene.add("sleep", scaled(10.0, 30.0))
    await scene.started(job)
    await scene.idle(scaled(12, 35))
    scene.each_ran_once()
    assert not events(scene, "stalled")
    scene.clean()


@pytest.mark.parametrize("name", ["block", "burn"])
async def test_a_handler_that_blocks_the_event_loop_keeps_its_lease_and_is_warned_of(scene: Scene, name: str) -> None:
    """R34 (tobymao/saq#209)."""
    workers = await scene.start(3)
    job = await scene.add(name, scaled(9.0, 12.0))
    await scene.started(job)
    await scene.idle(scaled(13, 18))
    scene.each_ran_once()
    assert not events(scene, "stalled")
    owner = next(w for w in workers if w.pid == scene.ledger.lines("start")[0].pid)
    assert "stood still" in owner.log
    scene.clean()


@SLOW
async def test_tiny_jobs_are_never_taken_from_a_worker_under_load(scene: Scene) -> None:
    """R35 (tobymao/saq#277)."""
    count = scaled(5_000, 20_000)
    workers = await scene.start(4, lease=30)
    burner = scene.fleet.start("another", lease=30)
    other = scene.open_queue()
    other_queue = type(other)("another", scene.server.url, settings=other.settings)
    await other_queue.add_many([("burn", 0.5) for _ in range(4)])
    await scene.add_many([("noop", i) for i in range(count)])
    await scene.idle(90)
    await other_queue.close()
    verdict = scene.verdict()
    assert {job: n for job, n in verdict.repeated.items() if job in verdict.accepted and job not in "1234"} == {}
    assert not verdict.lost
    assert not events(scene, "stalled")
    assert all("taken back" not in w.log for w in [*workers, burner])
    scene.clean()


async def test_a_worker_that_was_frozen_cannot_complete_a_job_that_another_has_done(scene: Scene) -> None:
    """R36 (OptimalBits/bull#308)."""
    (frozen,) = await scene.start(name="A", lease=2)
    job = await scene.add("who", {"seconds": 1.0})
    await scene.started(job)
    frozen.freeze()
    (other,) = await scene.start(name="B", lease=2)
    await scene.started(job, runs=2, timeout=8)
    assert await job.result(timeout=5) == "B"
    frozen.thaw()
    await frozen.logs("lease had moved on")
    assert events(scene, "completed") == [job.id]
    assert await job.result(timeout=1) == "B"
    other.terminate()
    assert await other.exits(5) == 0
    again = await scene.add("who", {"seconds": 0})
    assert await again.result(timeout=5) == "A"
    assert frozen.alive
    scene.clean()


@SLOW
async def test_every_orphan_is_run_once_however_many_workers_take_them_back_at_once(scene: Scene) -> None:
    """R37 (taskiq-python/taskiq-redis#123)."""
    await scene.start(scaled(4, 8), concurrency=20)
    for turn in range(scaled(3, 20)):
        await scene.queue.pause()
        await scene.add_many([("noop", i) for i in range(1_000)])
        assert scene.orphan(1_000, worker=f"lost-{turn}") == 1_000
        await scene.queue.resume()
        await scene.idle(30)
        scene.each_ran_once()
    assert len(events(scene, "stalled")) == 1_000 * scaled(3, 20)
    scene.clean()


async def test_a_cut_longer_than_the_lease_gives_the_job_to_another_and_the_first_drops_its_outcome(
    scene: Scene,
) -> None:
    """P2 and P3: one worker behind a broken network, one beside it."""
    from tests.faults.proxy import FaultProxy

    assert scene.server.port is not None
    with FaultProxy(("127.0.0.1", scene.server.port)) as proxy:
        (cut,) = await scene.start(name="cut", url=proxy.url)
        job = await scene.add("who", {"seconds": 5.0})
        await scene.started(job)
        proxy.cut()
        await scene.start(name="other")
        await scene.started(job, runs=2, timeout=LEASE + 5)
        await eventually(lambda: scene.ends() == 1, 10)
        proxy.heal()
        assert await job.result(timeout=10) == "other"
        await eventually(lambda: pending_of(scene.direct, scene.name) == 0, 5)
        assert events(scene, "completed") == [job.id]
        assert cut.alive
        again = [await scene.add("who", {"seconds": 0.2}) for _ in range(30)]
        assert {await one.result(timeout=10) for one in again} == {"cut", "other"}
        scene.clean()
        cut.terminate()
        assert await cut.exits(5) == 0


async def test_an_idle_fleet_costs_next_to_nothing(scene: Scene) -> None:
    """Leases are renewed on a beat, not in a loop."""
    workers = await scene.start(3)
    since, before = time.monotonic(), [w.cpu_seconds for w in workers]
    await eventually(lambda: time.monotonic() - since > 3, 5)
    shares = [(w.cpu_seconds - cpu) / (time.monotonic() - since) for w, cpu in zip(workers, before, strict=True)]
    assert max(shares) < 0.05, shares
    assert all(psutil.pid_exists(w.pid) for w in workers)
