"""Workers die in every way: their jobs run elsewhere soon, a job that kills is stopped, nothing stays behind."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, cast

import pytest

from streamq import Job, JobState, Retention
from streamq.errors import JobFailed, WrongState
from tests.faults.proxy import FaultProxy
from tests.faults.scene import LEASE, SWEEP, Scene, scaled
from tests.faults.state import pending_of
from tests.faults.workers import WorkerProcess, eventually

SLOW = pytest.mark.timeout(300)


async def test_a_killed_workers_job_runs_elsewhere_within_the_lease_and_five_seconds(scene: Scene) -> None:
    """P6."""
    first, second = await scene.start(2, concurrency=1)
    jobs = await scene.add_many([("sleep", 2.0), ("sleep", 2.0)])
    await eventually(lambda: scene.starts() == 2, 5)
    owner = {line.pid: line.job for line in scene.ledger.lines("start")}
    first.kill()
    killed = time.monotonic()
    lost = next(job for job in jobs if job.id == owner[first.pid])
    again = await scene.started(lost, runs=2, timeout=LEASE + 5)
    assert again - killed <= LEASE + 5
    await scene.idle(10)
    assert second.alive
    verdict = scene.nothing_lost([(killed - 2.1, killed + LEASE + 5)])
    assert verdict.repeated == {lost.id: 2}
    scene.clean()


@SLOW
async def test_recovery_goes_on_however_often_workers_are_killed(scene: Scene) -> None:
    """R17 (taskiq-python/taskiq-redis#131)."""
    chance = random.Random(17)  # noqa: S311
    workers = await scene.start(4, lease=1, concurrency=5)
    await scene.add_many([("sleep", 0.1) for _ in range(scaled(600, 4000))])
    for _ in range(scaled(12, 100)):
        victim = chance.choice(workers)
        before = scene.ends()
        await eventually(lambda before=before: scene.ends() > before + 3, 15)  # type: ignore[misc]
        victim.kill()
        victim.start()
    left_alone = time.monotonic()
    await eventually(lambda: scene.ledger.count("start") >= len(scene.accepted), 60)
    await scene.idle(60)
    assert time.monotonic() - left_alone < 60
    verdict = scene.verdict()
    assert not verdict.lost
    assert not verdict.overlapping
    scene.clean()


async def test_a_job_with_retries_left_is_never_out_of_sight_when_its_worker_is_killed(scene: Scene) -> None:
    """R19 (rq/rq#2015)."""
    workers = await scene.start(2)
    job = await scene.add("who", {"seconds": 1.0}, attempts=3)
    await scene.started(job)
    first = next(worker for worker in workers if worker.pid == scene.ledger.lines("start")[0].pid)
    second = next(worker for worker in workers if worker is not first)
    first.kill()
    states: list[JobState] = []
    while not states or not states[-1].ended:
        snapshot = await scene.queue.get_job(job.id)
        assert snapshot is not None, f"out of sight after {states}"
        if not states or states[-1] != snapshot.state:
            states.append(snapshot.state)
        await asyncio.sleep(0.05)
        assert time.monotonic() - scene.ledger.lines("start")[0].at < 20
    assert states[-1] == JobState.COMPLETED
    assert await job.result(timeout=1) == second.name
    scene.clean()


async def test_the_job_timeout_does_not_delay_recovery(scene: Scene) -> None:
    """R20 (python-arq/arq#343)."""
    workers = await scene.start(2)
    job = await scene.add("sleep", 1.5, timeout=3600)
    await scene.started(job)
    next(worker for worker in workers if worker.pid == scene.ledger.lines("start")[0].pid).kill()
    killed = time.monotonic()
    again = await scene.started(job, runs=2, timeout=LEASE + SWEEP + 2)
    assert again - killed <= LEASE + SWEEP + 2
    await scene.idle(10)
    scene.clean()


@pytest.mark.parametrize("what", ["every key with a TTL", "the leases"])
async def test_jobs_whose_lease_record_is_gone_are_run_again(scene: Scene, what: str) -> None:
    """R21 (hibiken/asynq#1144)."""
    (first,) = await scene.start(concurrency=20)
    await scene.add_many([("sleep", 2.0) for _ in range(20)])
    await eventually(lambda: scene.starts() == 20, 10)
    first.kill()
    if what == "the leases":
        scene.direct.delete(f"{scene.base}:workers")
    for key in cast("list[bytes]", scene.direct.keys("sq:*")):
        if scene.direct.ttl(key) >= 0:
            scene.direct.delete(key)
    await scene.start(concurrency=20)
    restarted = time.monotonic()
    await eventually(lambda: scene.starts() == 40, 2 * LEASE + 5)
    await scene.idle(2 * LEASE + 5 - (time.monotonic() - restarted))
    stats = await scene.queue.stats()
    assert (stats.waiting, stats.active, stats.delayed, stats.failed, stats.completed) == (0, 0, 0, 0, 20)
    scene.clean()


@SLOW
async def test_jobs_that_ended_while_replies_were_lost_do_not_stay_active(scene: Scene, proxy: FaultProxy) -> None:
    """R22 (hibiken/asynq#1051)."""
    await scene.start(2, url=proxy.url)
    producer = scene.open_queue(proxy.url)
    await scene.add_many([("noop", i) for i in range(500)], via=producer)
    proxy.drop_replies(0.3)
    until = time.monotonic() + scaled(8, 20)
    while time.monotonic() < until and len(scene.accepted) < 2000:
        await scene.add_many([("noop", i) for i in range(50)])
        await asyncio.sleep(0.1)
    while time.monotonic() < until:
        await scene.add("sleep", 0.01)
        await asyncio.sleep(0.05)
    assert proxy.refused_replies > 10
    proxy.heal()
    await scene.idle(2 * LEASE)
    scene.each_ran_once()
    scene.clean()


@SLOW
async def test_a_job_that_kills_its_worker_is_failed_after_three_and_takes_no_other_with_it(scene: Scene) -> None:
    """R23 (Bogdanp/dramatiq#383)."""
    workers = await scene.start(2, concurrency=10)
    poison = await scene.add("suicide", {})
    normal = await scene.add_many([("sleep", 0.05) for _ in range(100)])
    over = asyncio.Event()

    async def supervise(worker: WorkerProcess) -> None:
        while not over.is_set():
            if worker.alive:
                await asyncio.sleep(0.05)
                continue
            await worker.exits(1)
            worker.start()

    async with asyncio.TaskGroup() as group:
        for worker in workers:
            worker.expected_to_live = False
            group.create_task(supervise(worker))
        with pytest.raises(JobFailed, match="WorkerLost"):
            await poison.result(timeout=40)
        await scene.idle(20)
        over.set()
    verdict = scene.verdict()
    assert verdict.runs_of(poison.id) == 3
    completed = {raw.decode() for raw in cast("list[bytes]", scene.direct.zrange(f"{scene.base}:completed", 0, -1))}
    assert completed == {job.id for job in normal}
    scene.clean()


@SLOW
async def test_new_jobs_are_served_while_orphans_are_taken_back(scene: Scene) -> None:
    """R25 (OptimalBits/bull#313)."""
    count = scaled(8_000, 30_000)
    await scene.add_many([("noop", i) for i in range(count)])
    assert scene.orphan(count) == count
    scene.fleet.start(concurrency=20)
    fresh: list[Job] = []
    while pending_of(scene.direct, scene.name) > 100 or len(fresh) < 5:
        fresh.append(await scene.add("who", {"seconds": 0}))
        await asyncio.sleep(scaled(0.25, 1))
        assert len(fresh) < 200
    await scene.idle(120)
    accepted = {line.job: line.at for line in scene.ledger.lines("accepted")}
    started = {line.job: line.at for line in scene.ledger.lines("start")}
    waits = [started[job.id] - accepted[job.id] for job in fresh]
    assert waits[0] <= 5
    assert max(waits) <= 30
    scene.each_ran_once()
    scene.clean()


@SLOW
async def test_jobs_that_are_removed_on_completion_are_never_picked_up_again(scene: Scene) -> None:
    """R26 (OptimalBits/bull#356)."""
    count = scaled(5_000, 20_000)
    workers = await scene.start(4, lease=30)
    none = scene.open_queue(defaults=scene.queue.defaults.__class__(keep_completed=Retention(count=0)))
    await scene.add_many([("noop", i) for i in range(count)], via=none)
    await scene.idle(60)
    scene.each_ran_once()
    for worker in workers:
        assert "ERROR" not in worker.log, worker.log_tail()
    scene.clean(removed=True)


async def test_entries_that_vanished_under_a_dead_worker_do_not_stop_recovery(scene: Scene) -> None:
    """R27 (redis/redis#10198)."""
    (first,) = await scene.start()
    jobs = await scene.add_many([("sleep", 1.0) for _ in range(10)])
    await eventually(lambda: scene.starts() == 10, 10)
    first.kill()
    for job in jobs[:5]:
        with pytest.raises(WrongState):
            await scene.queue.remove(job.id)
        assert await scene.queue.remove(job.id, force=True)
    for job in jobs[5:7]:
        scene.direct.xdel(f"{scene.base}:lane:3", f"{job.id}-0")
    (second,) = await scene.start()
    await scene.idle(2 * LEASE + 5)
    verdict = scene.verdict()
    for job in jobs[:7]:
        assert verdict.runs_of(job.id) == 1
        assert await scene.queue.get_job(job.id) is None
    for job in jobs[7:]:
        assert verdict.runs_of(job.id) == 2
        assert await job.result(timeout=1) == 1.0
    assert pending_of(scene.direct, scene.name) == 0
    assert "Traceback" not in second.log
    scene.clean(removed=True)


@pytest.mark.parametrize("what", ["the groups", "everything"])
async def test_workers_go_on_when_the_consumer_groups_are_destroyed_under_them(scene: Scene, what: str) -> None:
    """R28 (ag2ai/faststream#2945)."""
    workers = await scene.start(2)
    await scene.add_many([("noop", i) for i in range(10)])
    await scene.idle(5)
    await scene.queue.pause()
    if what == "the groups":
        waiting = await scene.add_many([("noop", i) for i in range(10)])
        await scene.queue.resume()
        for lane in range(1, 5):
            scene.direct.xgroup_destroy(f"{scene.base}:lane:{lane}", "w")
    else:
        scene.direct.flushall()
        scene.accepted.clear()
        waiting = []
    before, lines, since = (
        [w.cpu_seconds for w in workers],
        [len(w.log.splitlines()) for w in workers],
        time.monotonic(),
    )
    jobs = [*waiting, *await scene.add_many([("noop", i) for i in range(50)])]
    await scene.idle(10)
    await asyncio.sleep(max(0.0, 3 - (time.monotonic() - since)))  # what a tight loop costs shows in a span of time
    took = time.monotonic() - since
    for worker, cpu, count in zip(workers, before, lines, strict=True):
        assert (worker.cpu_seconds - cpu) / took < 0.25
        assert (len(worker.log.splitlines()) - count) / took < 20
    for job in jobs:
        assert (await scene.queue.get_job(job.id)).state == JobState.COMPLETED  # type: ignore[union-attr]
    scene.clean()


KINDS = ["SystemExit", "KeyboardInterrupt", "CancelledError", "GeneratorExit", "OddError"]


async def test_whatever_a_handler_raises_fails_its_job_and_nothing_else(scene: Scene) -> None:
    """R29 (dask/distributed#5958)."""
    (worker,) = await scene.start(concurrency=3)
    ways = [(name, kind) for name in ("raise", "raise-in-thread") for kind in KINDS]
    for name, kind in ways:
        job = await scene.add(name, {"kind": kind}, attempts=2)
        with pytest.raises(JobFailed, match=kind):
            await job.result(timeout=15)
        snapshot = await scene.queue.get_job(job.id)
        assert snapshot is not None
        assert snapshot.error is not None
        assert snapshot.error.type == kind
        assert snapshot.attempts_made == 2
        assert scene.verdict().runs_of(job.id) == 2
    await scene.add_many([("noop", i) for i in range(10)])
    await scene.idle(5)
    assert worker.alive
    assert len(scene.accepted) == len(ways) + 10
    scene.clean()


async def test_nothing_that_a_live_job_needs_ever_expires(scene: Scene) -> None:
    """R32 (python-arq/arq#320)."""
    month = 30 * 86_400
    await scene.start(concurrency=1)
    gate = scene.ledger.path.with_name("gate")
    retrying = await scene.add("retry-after", [0.05, 0.05, 0.05, 0.05, month], attempts=1000)
    await scene.started(retrying, runs=5)
    await eventually(lambda: scene.direct.zscore(f"{scene.base}:delayed", retrying.id), 5)
    delayed = await scene.add("noop", delay=month)
    own = await scene.add("noop", delay=month, job_id="an id of its own")
    running = await scene.add("gate", {"path": str(gate)})
    await scene.started(running)
    waiting = await scene.add("noop", "x" * 100)
    states = [(await scene.queue.get_job(job.id)) for job in (retrying, delayed, own, running, waiting)]
    assert [s.state.value for s in states if s] == ["delayed", "delayed", "delayed", "active", "waiting"]
    expiring = [key for key in cast("list[bytes]", scene.direct.keys("sq:*")) if scene.direct.ttl(key) >= 0]
    assert all(b":producer:" in key for key in expiring), expiring
    gate.touch()
    for job in (retrying, delayed, own):
        assert await scene.queue.remove(job.id)
    await scene.idle(5)
    scene.clean(removed=True)


async def test_a_frozen_worker_that_comes_back_ends_nothing_twice(scene: Scene) -> None:
    """P3: longer than the lease under SIGSTOP, with ten jobs in hand."""
    frozen, other = await scene.start(2, lease=2, concurrency=10)
    await scene.add_many([("who", {"seconds": 0.5}) for _ in range(20)])
    await eventually(lambda: scene.starts() == 20, 10)
    frozen.freeze()
    await eventually(lambda: scene.starts() == 30, 10)
    await eventually(lambda: pending_of(scene.direct, scene.name) == 0, 10)
    before = await _endings(scene)
    frozen.thaw()
    await eventually(lambda: scene.ends() == 30, 10)
    await frozen.logs("lease had moved on")
    assert await _endings(scene) == before == dict.fromkeys(scene.accepted, 1)
    assert other.alive
    scene.clean()


async def _endings(scene: Scene) -> dict[str, int]:
    """Count the `completed` events of each job."""
    found: dict[str, int] = {}
    entries: Any = scene.direct.xrange(f"{scene.base}:events")
    for _, fields in entries:
        for kind, ids in fields.items():
            if kind == b"completed":
                for job in ids.decode().split("\0"):
                    found[job] = found.get(job, 0) + 1
    return found
