"""In what order jobs start, and that a paused queue starts none; what events cost."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import aclosing
from typing import Any

import pytest
import redis

from streamq import InvalidInput, JobState, Priority, Queue, Retention, Settings, Worker
from tests.integration.conftest import PATIENCE, Bench

LONG = os.environ.get("STREAMQ_LONG") == "1"


async def test_priority_is_strict_and_each_level_first_in_first_out(queue: Queue, bench: Bench) -> None:
    """Incident R85."""
    count = 15_000 if LONG else 3_000
    rng = random.Random(85)  # noqa: S311
    chosen = [rng.choice(list(Priority)) for _ in range(count)]
    ran: list[int] = []
    done = asyncio.Event()

    async def run(job: Any) -> None:
        ran.append(job.data)
        if len(ran) == count:
            done.set()

    await queue.pause()
    async with bench.worker(run, concurrency=1):
        for start in range(0, count, 500):
            await asyncio.gather(*(queue.add("a", n, priority=chosen[n]) for n in range(start, start + 500)))
        assert ran == []
        await queue.resume()
        async with asyncio.timeout(90):
            await done.wait()
    assert ran == sorted(range(count), key=lambda n: (chosen[n], n))


async def test_a_paused_queue_starts_nothing_that_comes_due_and_all_of_it_once_resumed(
    queue: Queue, settings: Settings, bench: Bench, client: redis.Redis
) -> None:
    """Incident R76: a delayed and a promoted job, a retry, a schedule's slot and an orphan come due meanwhile."""
    runs: list[str] = []
    fails_first = True

    async def run(job: Any) -> str:
        nonlocal fails_first
        runs.append(job.name)
        if job.name == "retried" and fails_first:
            fails_first = False
            await queue.pause()
            raise ValueError("again")
        return "done"

    orphan = await queue.add("orphan")
    client.xgroup_create("sq:{q}:lane:3", "w", "0")
    client.xreadgroup("w", "dead", {"sq:{q}:lane:3": ">"})
    async with bench.worker(run):
        retried = await queue.add("retried", backoff=None)
        await bench.happened("retrying", retried.id)
        delayed = await queue.add("delayed", delay=0.02)
        promoted = await queue.add("promoted", delay=3_600)
        await queue.promote(promoted.id)
        client.zadd("sq:{q}:workers", {"dead": 1})
        await queue.upsert_schedule("s", every=0.1, name="cron", limit=1)
        async with asyncio.timeout(PATIENCE), aclosing(queue.events(after="0-0")) as events:
            fired = await anext(e.job_id async for e in events if e.kind == "added" and e.job_id.startswith("s@"))
        for kind, job in (("promoted", retried), ("promoted", delayed), ("stalled", orphan)):
            await bench.happened(kind, job.id)
        stats = await queue.stats()
        assert (stats.waiting, stats.active, stats.delayed, stats.paused) == (5, 0, 0, True)
        assert runs == ["retried"]
        due = (retried, delayed, promoted, orphan)
        await queue.resume()
        async with asyncio.timeout(2):
            assert [await queue.result(job_id) for job_id in (*(j.id for j in due), fired)] == ["done"] * 5
    assert sorted(runs) == ["cron", "delayed", "orphan", "promoted", "retried", "retried"]


async def test_results_that_are_not_kept_leave_no_trace_in_the_event_stream(
    redis_url: str, client: redis.Redis
) -> None:
    """Incident R73."""
    count, size = (20_000, 10_000) if LONG else (2_000, 10_000)
    settings = Settings(redis_url=redis_url, events_cap=1_000)

    runs, done = 0, asyncio.Event()

    async def run(job: Any) -> bytes:
        nonlocal runs
        runs += 1
        if runs > count:
            done.set()
        return bytes(size)

    async with Queue("q", settings=settings) as queue:
        async with Worker("q", run, settings=settings):
            await (await queue.add("a", keep_completed=Retention(1))).result(PATIENCE)
        baseline = client.info("memory")["used_memory"]
        async with Worker("q", run, settings=settings, concurrency=100):
            for _ in range(0, count, 500):
                await asyncio.gather(*(queue.add("a", keep_completed=Retention(0)) for _ in range(500)))
            async with asyncio.timeout(90):
                await done.wait()
        used = client.info("memory")["used_memory"] - baseline
        assert (await queue.stats()).total == 1
    assert used <= settings.events_cap * 1_000
    assert client.memory_usage("sq:{q}:events", samples=0) <= settings.events_cap * 1_000


async def test_a_start_that_no_page_gave_is_refused(redis_url: str) -> None:
    async with Queue("q", redis_url) as queue:
        with pytest.raises(InvalidInput, match="start must be a number or a page's next, not 'zz'"):
            await queue.jobs(JobState.WAITING, start="zz")
