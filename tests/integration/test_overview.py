"""What a queue tells of its workers, its limits, its past and its speed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import redis

from streamq import ActiveJob, Priority, Queue, RateLimit
from tests.integration.conftest import PATIENCE, Bench


async def test_a_worker_tells_what_it_runs(bench: Bench, queue: Queue) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def work(_: ActiveJob[None]) -> None:
        running.set()
        await go_on.wait()

    assert await queue.workers() == []
    job = await queue.add("slow", priority=Priority.HIGH)
    async with bench.worker({"slow": work}) as worker:
        async with asyncio.timeout(PATIENCE):
            await running.wait()
        (told,) = await queue.workers()
        assert (told.id, told.alive, told.running) == (worker.id, True, 1)
        assert 0 < told.lease_left <= worker.settings.lease
        assert told.held == {Priority.CRITICAL: 0, Priority.HIGH: 1, Priority.NORMAL: 0, Priority.LOW: 0}
        assert [(run.id, run.name, run.priority) for run in told.jobs] == [(job.id, "slow", Priority.HIGH)]
        go_on.set()
        await job.result(PATIENCE)
        (idle,) = await queue.workers()
        assert (idle.running, idle.jobs) == (0, [])
    gone = await queue.workers()
    assert (gone, gone.total) == ([], 0)


async def test_limits_read_back_as_they_were_set(queue: Queue, client: redis.Redis) -> None:
    free = await queue.limits()
    assert (free.paused, free.rate, free.concurrency, free.max_size, free.held_for) == (False, None, None, None, None)
    await queue.pause()
    await queue.set_rate_limit(RateLimit(10, per=0.5))
    await queue.set_concurrency(3)
    await queue.set_max_size(1_000)
    limits = await queue.limits()
    assert (limits.paused, limits.rate, limits.concurrency, limits.max_size) == (True, RateLimit(10, 0.5), 3, 1_000)
    seconds, _ = client.time()
    client.hset("sq:{q}:meta", "hold_until", seconds * 1000 + 60_000)
    held = (await queue.limits()).held_for
    assert held is not None
    assert 50 < held <= 61
    client.hset("sq:{q}:meta", "hold_until", seconds * 1000 - 1)
    assert (await queue.limits()).held_for is None


async def test_a_job_s_history_holds_its_own_events_only_in_order(bench: Bench, queue: Queue) -> None:
    failed = False

    async def work(_: ActiveJob[None]) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise ValueError("not yet")

    await queue.pause()
    jobs = [await queue.add("work") for _ in range(12)]
    await queue.resume()
    async with bench.worker({"work": work}, concurrency=1):
        for job in jobs:
            await job.result(PATIENCE)
    kinds = [event.kind for event in await queue.history(jobs[0].id)]
    assert [kind for kind in kinds if kind not in ("delayed", "promoted")][:3] == ["added", "active", "retrying"]
    assert kinds[-1] == "completed"
    assert [event.kind for event in await queue.history(jobs[-1].id)] == ["added", "active", "completed"]
    snapshot = await jobs[-1].snapshot()
    assert snapshot is not None
    assert len(await queue.history(jobs[-1].id, since=snapshot.created_at)) == 3
    assert await queue.history(jobs[-1].id, since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert await queue.history("unheard-of") == []


async def test_tallies_one_after_another_lose_nothing_and_tell_nothing_twice(queue: Queue) -> None:
    first = await queue.tally(over=60)
    assert (dict(first.counts), first.complete, first.rate("added")) == ({}, True, 0.0)
    assert (first.until - first.since).total_seconds() == 60
    total, since = 0, first.since
    for size in (1, 250, 3):
        await queue.add_many([("work", None)] * size)
        tally = await queue.tally(since)
        assert tally.since == since
        total, since = total + tally.counts.get("added", 0), tally.until
    while total < 254:
        tally = await queue.tally(since)
        total, since = total + tally.counts.get("added", 0), tally.until
    assert total == 254


async def test_a_tally_goes_through_many_entries_and_gives_a_rate(queue: Queue) -> None:
    since = (await queue.tally()).until
    await queue.add_many([("work", None)] * 100)
    ids = [(await queue.add("work", delay=60)).id for _ in range(3)]
    for _ in range(400):
        await queue.reschedule(ids[0], delay=90)
    kinds = await queue.tally(since)
    while kinds.counts.get("rescheduled", 0) < 400:
        kinds = await queue.tally(since)
    assert (kinds.counts["added"], kinds.counts["delayed"], kinds.counts["rescheduled"]) == (100, 3, 400)
    span = (kinds.until - kinds.since).total_seconds()
    assert kinds.rate("added", "delayed") * span == 103


async def test_a_tally_says_when_the_cap_has_dropped_a_part(queue: Queue, client: redis.Redis) -> None:
    await queue.add_many([("work", None)] * 100)
    for _ in range(5):
        await queue.pause()
        await queue.resume()
    assert (await queue.tally(over=60)).complete
    client.xtrim("sq:{q}:events", maxlen=2, approximate=False)
    tally = await queue.tally(over=60)
    assert not tally.complete
    assert "added" not in tally.counts
    assert (tally.until - tally.since).total_seconds() < 60
