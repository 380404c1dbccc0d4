"""Redis goes away, answers late, answers no, or loses the answer: workers and producers stay and go on."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from typing import cast

import pytest
import redis

from streamq import Queue, StreamqError
from streamq.errors import StoreError
from tests.faults.proxy import FaultProxy
from tests.faults.scene import LEASE, Scene, gather_within, scaled
from tests.faults.workers import eventually, stays

SLOW = pytest.mark.timeout(300)


async def wait_and_note(scene: Scene, seconds: float) -> None:
    """Let a fault last, while nothing else is to happen: no worker may give up meanwhile."""
    await stays(lambda: all(w.alive for w in scene.fleet.workers), seconds, "all workers live through the fault")


async def produce(scene: Scene, queue: Queue, per_second: float, until: asyncio.Event) -> list[BaseException]:
    """Add jobs at a rate, note those that were accepted, and return the errors that reached the caller."""
    errors: list[BaseException] = []

    async def one() -> None:
        try:
            await scene.add("noop", via=queue)
        except StreamqError as error:
            errors.append(error)

    async with asyncio.TaskGroup() as group:
        while not until.is_set():
            group.create_task(one())
            await asyncio.sleep(1 / per_second)
    return errors


async def test_an_idle_worker_takes_jobs_again_after_the_server_was_killed_and_restarted(scene: Scene) -> None:
    """R01 (python-arq/arq#435)."""
    (worker,) = await scene.start()
    pid = worker.pid
    scene.server.kill()
    await wait_and_note(scene, 5)
    scene.server.start()
    answers_at = time.monotonic()
    await scene.add_many([("noop", i) for i in range(20)])
    await scene.idle(10 - (time.monotonic() - answers_at))
    assert worker.alive
    assert worker.pid == pid
    scene.each_ran_once()
    scene.clean()


async def test_a_worker_that_waits_long_for_a_server_neither_grows_nor_gives_up(scene: Scene) -> None:
    """R02 (python-arq/arq#311)."""
    scene.server.kill()
    worker = scene.fleet.start()
    await worker.logs("again in|could not be renewed")
    await wait_and_note(scene, 2)
    before = worker.rss
    await wait_and_note(scene, scaled(8, 30))
    grown = worker.rss - before
    scene.server.start()
    job = await scene.add("noop")
    await scene.started(job, timeout=5)
    await scene.idle(5)
    assert grown < 5_000_000
    assert "RecursionError" not in worker.log
    scene.each_ran_once()
    scene.clean()


async def test_several_resets_within_seconds_do_not_leave_a_worker_connected_but_idle(
    scene: Scene, proxy: FaultProxy
) -> None:
    """R03 (celery/celery#8030)."""
    await scene.start(url=proxy.url, concurrency=5)
    await scene.add_many([("sleep", 0.2) for _ in range(100)])
    for _ in range(5):
        proxy.reset_all()
        await wait_and_note(scene, 0.6)
    await scene.idle(15)
    assert scene.live_workers() == 1
    scene.each_ran_once()
    scene.clean()


async def test_a_running_handler_lives_through_a_cut_connection(scene: Scene, proxy: FaultProxy) -> None:
    """R05 (taskiq-python/taskiq-redis#65)."""
    (worker,) = await scene.start(url=proxy.url, lease=30)
    job = await scene.add("sleep", 8.0)
    started = await scene.started(job)
    await wait_and_note(scene, 2 - (time.monotonic() - started))
    proxy.cut()
    await wait_and_note(scene, 3)
    proxy.heal()
    assert await job.result(timeout=15) == 8.0
    snapshot = await scene.queue.get_job(job.id)
    assert snapshot is not None
    assert snapshot.attempts_made == 1
    assert worker.alive
    scene.each_ran_once()
    scene.clean()


async def test_a_cancelled_call_never_leaves_its_answer_to_the_next_one(scene: Scene, proxy: FaultProxy) -> None:
    """R06 (redis/redis-py#2665)."""
    await scene.start()
    jobs = await scene.add_many([("echo", f"result {i}") for i in range(200)])
    await scene.idle(15)
    expected = {job.id: f"result {i}" for i, job in enumerate(jobs)}
    client = scene.open_queue(proxy.url)
    assert (await client.get_job(jobs[0].id)) is not None
    proxy.latency(100)
    chance = random.Random(6)  # noqa: S311
    wrong: list[tuple[str, object]] = []

    async def look(job_id: str) -> None:
        snapshot = await client.get_job(job_id)
        if snapshot is None or snapshot.id != job_id or snapshot.result != expected[job_id]:
            wrong.append((job_id, snapshot))

    async def wait(job_id: str) -> None:
        result = await client.result(job_id, timeout=30)
        if result != expected[job_id]:
            wrong.append((job_id, result))

    calls = [asyncio.create_task(look(job.id) if i % 2 else wait(job.id)) for i, job in enumerate(jobs * 2)]
    doomed = chance.sample(calls, len(calls) // 2)
    for call in doomed:
        asyncio.get_running_loop().call_later(chance.uniform(0.001, 0.15), call.cancel)
    outcomes = await gather_within(60, *calls)
    unexpected = [x for x in outcomes if isinstance(x, BaseException) and not isinstance(x, asyncio.CancelledError)]
    assert not unexpected
    await gather_within(60, *(look(job.id) for job in jobs))
    assert not wrong
    assert proxy.open_connections <= 2
    scene.each_ran_once()
    scene.clean()


@SLOW
async def test_calls_into_a_black_hole_end_in_time_and_the_same_processes_go_on_when_it_heals(
    scene: Scene, proxy: FaultProxy
) -> None:
    """R07 (PrefectHQ/prefect#22478)."""
    (worker,) = await scene.start(url=proxy.url)
    client = scene.open_queue(proxy.url, timeout=2)
    await scene.add("noop", via=client)
    await scene.idle(5)
    proxy.black_hole()
    took: list[float] = []
    errors: list[BaseException] = []

    async def add() -> None:
        since = time.monotonic()
        try:
            await scene.add("noop", via=client)
        except StoreError as error:
            errors.append(error)
        took.append(time.monotonic() - since)

    rounds = scaled(2, 10)
    for _ in range(rounds):
        await gather_within(30, *(add() for _ in range(100)))
    assert len(errors) == 100 * rounds
    assert max(took) <= 2 + 1
    proxy.heal()
    healed = time.monotonic()
    await eventually(lambda: _accepts(scene, client), 10, "the same client adds again")
    job = await scene.add("noop", via=client)
    await scene.started(job, timeout=10 - (time.monotonic() - healed))
    await scene.idle(10)
    assert worker.alive
    scene.nothing_lost()
    scene.clean()


async def _accepts(scene: Scene, client: Queue) -> bool:
    try:
        await scene.add("noop", via=client)
    except StoreError:
        return False
    return True


@SLOW
async def test_flushed_scripts_are_loaded_again_and_nobody_notices(scene: Scene) -> None:
    """R10 (Openpanel-dev/groupmq#16)."""
    await scene.start(4)
    over = asyncio.Event()
    producer = asyncio.create_task(produce(scene, scene.queue, 200, over))
    for _ in range(scaled(6, 20)):
        await wait_and_note(scene, 1)
        scene.direct.script_flush()
    over.set()
    assert await producer == []
    await scene.idle(15)
    assert len(scene.accepted) > 200
    scene.each_ran_once()
    scene.clean()


async def test_a_batch_is_whole_and_in_order_when_the_scripts_are_flushed_before_it(scene: Scene) -> None:
    """R11 (redis/ioredis#1497)."""
    warm = scene.open_queue()
    for turn in range(scaled(10, 50)):
        for client in (warm, scene.open_queue()):
            before = scene.direct.xlen(f"{scene.base}:lane:3")
            scene.direct.script_flush()
            try:
                jobs = await client.add_many([("echo", i) for i in range(500)])
            except StoreError:
                assert scene.direct.xlen(f"{scene.base}:lane:3") == before
                continue
            numbers = [int(job.id) for job in jobs]
            assert numbers == list(range(numbers[0], numbers[0] + 500)), turn
            assert scene.direct.xlen(f"{scene.base}:lane:3") == before + 500
            for at in (0, 1, 250, 499):
                snapshot = await client.get_job(jobs[at].id)
                assert snapshot is not None
                assert snapshot.data == at


async def test_no_job_is_lost_when_the_server_runs_out_of_memory(scene: Scene) -> None:
    """R15 (sidekiq/sidekiq#5558)."""
    await scene.start(concurrency=100, attempts=2)
    gate = scene.ledger.path.with_name("gate")
    jobs = [("gate", {"path": str(gate), "fails": i % 2, "value": i}) for i in range(100)]
    await scene.add_many(jobs)
    await eventually(lambda: scene.starts() == 100, 15)
    used = cast(dict[str, int], scene.direct.info("memory"))["used_memory"]
    scene.direct.config_set("maxmemory", used // 2)
    with pytest.raises(redis.OutOfMemoryError):
        scene.direct.set("filler", "x")
    with pytest.raises(StoreError, match="memory"):
        await scene.add("noop")
    gate.touch()
    await eventually(lambda: scene.ends() >= 100, 15)
    await wait_and_note(scene, scaled(3, 10))
    scene.direct.config_set("maxmemory", 0)
    await scene.idle(15)
    verdict = scene.nothing_lost()
    returned = {run.job for runs in verdict.runs.values() for run in runs if run.outcome == "returned"}
    completed = {raw.decode() for raw in cast(list[bytes], scene.direct.zrange(f"{scene.base}:completed", 0, -1))}
    assert completed == returned == set(scene.accepted)
    scene.clean()


async def test_workers_and_producers_wait_while_the_server_loads(scene: Scene, proxy: FaultProxy) -> None:
    """R16 (certtools/intelmq#1334)."""
    await scene.start(3, url=proxy.url)
    client = scene.open_queue(proxy.url)
    await scene.add_many([("noop", i) for i in range(20)], via=client)
    await scene.idle(10)
    proxy.reply_with("LOADING Redis is loading the dataset in memory")
    scene.server.kill()
    scene.server.start()
    over = asyncio.Event()
    producer = asyncio.create_task(produce(scene, client, 5, over))
    lasts = scaled(5, 10)
    await wait_and_note(scene, lasts)
    attempts = proxy.answered
    proxy.heal()
    healed = time.monotonic()
    await eventually(lambda: _accepts(scene, client), 5, "the producer adds again")
    job = await scene.add("noop", via=client)
    await scene.started(job, timeout=5 - (time.monotonic() - healed))
    over.set()
    await producer
    await scene.idle(10)
    assert attempts / lasts / 4 < 20
    scene.nothing_lost()
    scene.clean()


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed_under_load(scene: Scene) -> None:
    """The same workers and producer go on over several power cuts of a server that writes to disk before it answers."""
    await scene.start(2)
    over = asyncio.Event()
    producer = asyncio.create_task(produce(scene, scene.queue, 100, over))
    cuts = []
    for _ in range(scaled(3, 10)):
        await wait_and_note(scene, 1)
        since = time.monotonic()
        scene.server.kill()
        await wait_and_note(scene, 0.5)
        scene.server.start()
        cuts.append((since, time.monotonic() + LEASE))
    restarted = time.monotonic()
    job = await scene.add("noop")
    await scene.started(job, timeout=5 - (time.monotonic() - restarted))
    over.set()
    await producer
    await scene.idle(15)
    scene.nothing_lost(cuts)
    scene.clean()


@pytest.mark.parametrize(
    "error",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "NOAUTH Authentication required.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "nonsense",
    ],
    ids=lambda error: error.split()[0],
)
async def test_a_server_that_refuses_everything_stops_nobody(scene: Scene, proxy: FaultProxy, error: str) -> None:
    """Workers stay, nothing is lost, and work flows within five seconds of the end of the trouble."""
    await scene.start(2, url=proxy.url, concurrency=5)
    client = scene.open_queue(proxy.url, timeout=1)
    await scene.add_many([("sleep", 0.3) for _ in range(30)])
    await eventually(lambda: scene.starts() >= 5, 10)
    if error == "nonsense":
        proxy.talk_nonsense()
    else:
        proxy.reply_with(error)
    with pytest.raises(StoreError):
        await client.add("noop")
    await wait_and_note(scene, 2)
    proxy.heal()
    job = await scene.add("noop")
    await scene.started(job, timeout=5)
    await scene.idle(10)
    scene.each_ran_once()
    scene.clean()


async def test_a_server_with_no_room_for_more_clients_stops_nobody(scene: Scene, proxy: FaultProxy) -> None:
    """Connections are refused after they were accepted, for as long as others use them all up."""
    await scene.start(2, url=proxy.url)
    taken = scene.direct.info("clients")["connected_clients"]
    scene.direct.config_set("maxclients", max(taken - 3, 1))
    proxy.reset_all()
    await wait_and_note(scene, 2)
    scene.direct.config_set("maxclients", 1000)
    job = await scene.add("noop")
    await scene.started(job, timeout=5)
    await scene.idle(5)
    scene.each_ran_once()
    scene.clean()


@pytest.mark.parametrize("count", [1, 2], ids=["by the same worker", "by another worker"])
@pytest.mark.parametrize("how", ["flushed", "restarted without its data"])
async def test_jobs_whose_numbers_are_given_out_again_are_not_taken_for_the_lost_ones(
    scene: Scene, how: str, count: int
) -> None:
    """P3: Redis loses its data under running jobs, and new jobs get their numbers. Those run, and end as themselves."""
    workers = await scene.start(count, concurrency=20 // count)
    await scene.add_many([("sleep", 2.0) for _ in range(10)])
    await eventually(lambda: scene.starts() == 10, 5)
    if how == "flushed":
        scene.direct.flushall()
    else:
        scene.server.kill()
        shutil.rmtree(scene.server.folder / "appendonlydir")
        scene.server.start()
    scene.accepted.clear()
    after = [await scene.add("slow-echo", {"seconds": 2.5, "value": i}) for i in range(10)]
    assert {job.id for job in after} == {str(n) for n in range(1, 11)}
    assert [await job.result(timeout=10) for job in after] == list(range(10))
    await eventually(lambda: scene.ends() == 20, 5)
    await scene.idle(5)
    assert scene.direct.zcard(f"{scene.base}:completed") == 10
    assert any("its lease had moved on" in worker.log for worker in workers)
    scene.clean()


async def test_a_frozen_server_stops_nobody(scene: Scene) -> None:
    """A server that stands still (SIGSTOP) and goes on: calls end in time, work flows within five seconds."""
    await scene.start(2)
    scene.server.pause()
    with pytest.raises(StoreError):
        await asyncio.wait_for(scene.queue.add("noop"), 3)
    await wait_and_note(scene, 3)
    scene.server.cont()
    job = await scene.add("noop")
    await scene.started(job, timeout=5)
    await scene.idle(10)
    scene.nothing_lost()
    scene.clean()


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_an_outage_longer_than_the_lease_takes_nobodys_jobs_but_those_of_the_dead(scene: Scene, how: str) -> None:
    """P2: when the server is back all leases have lapsed, whoever lives; the dead show a lease later."""
    lease = 2.0
    workers = await scene.start(4, lease=lease, concurrency=5)
    await scene.add_many([("sleep", 6.0) for _ in range(20)])
    await eventually(lambda: scene.starts() == 20, 10)
    dead = workers[0]
    scene.server.kill() if how == "killed" else scene.server.pause()
    await wait_and_note(scene, 0.5)
    dead.kill()
    await stays(lambda: all(w.alive for w in workers[1:]), lease + 1, "the others live through the outage")
    scene.server.start() if how == "killed" else scene.server.cont()
    back = time.monotonic()
    await scene.idle(6 + 2 * lease + 5)
    verdict = scene.verdict()
    assert len(verdict.repeated) == 5
    assert not verdict.duplicates_without_a_death
    again = [runs[1].start - back for runs in verdict.runs.values() if len(runs) == 2]
    assert max(again) <= lease + 2
    scene.clean()


async def test_a_slow_network_changes_nothing_but_the_time(scene: Scene, proxy: FaultProxy) -> None:
    """Replies drip in pieces of a few bytes, requests take their time."""
    proxy.drip(64, every_ms=1)
    await scene.start(url=proxy.url)
    await scene.add_many([("echo", "x" * 500) for _ in range(50)])
    await scene.idle(20)
    proxy.latency(50)
    await scene.add_many([("echo", "y") for _ in range(50)])
    await scene.idle(20)
    scene.each_ran_once()
    scene.clean()
