"""Keys with workers at work: order, limits, fairness, and what a caller may say."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from streamq import Backoff, InvalidInput, JobOptions, Queue, RateLimit, Retention
from tests.integration.conftest import PATIENCE, Bench
from tests.lua.places import misplaced

KEEP_ALL = Retention(count=10_000)
AT_ONCE = Backoff.fixed(0)
SOON = Backoff.fixed(0.02)


def options(key: str, **more: Any) -> JobOptions:
    return JobOptions(key=key, keep_completed=KEEP_ALL, **more)


@pytest.mark.parametrize("backoff", [AT_ONCE, SOON])
async def test_of_a_key_with_concurrency_1_never_two_run_and_order_holds_over_many_workers(
    queue: Queue, bench: Bench, client: redis.Redis, backoff: Backoff
) -> None:
    """Every third job fails at first; its retry comes before the next job all the same."""
    keys, each = [f"tenant-{n}" for n in range(8)], 15
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    ran: dict[str, list[int]] = defaultdict(list)
    left = len(keys) * each
    all_done = asyncio.Event()

    async def run(job: Any) -> None:
        nonlocal left
        running[job.key] += 1
        most[job.key] = max(most[job.key], running[job.key])
        await asyncio.sleep(0)
        running[job.key] -= 1
        if job.data % 3 == 0 and job.attempt == 1:
            raise ValueError("once more")
        ran[job.key].append(job.data)
        left -= 1
        if not left:
            all_done.set()

    await queue.limit_key(concurrency=1)
    await queue.add_many([("a", n, options(key, attempts=3, backoff=backoff)) for n in range(each) for key in keys])
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(bench.worker(run, concurrency=5))
        async with asyncio.timeout(PATIENCE):
            await all_done.wait()
    assert most == dict.fromkeys(keys, 1)
    assert ran == {key: list(range(each)) for key in keys}
    assert misplaced(client, "sq:{q}") == []


async def test_a_tenant_with_very_many_jobs_does_not_hold_up_another_one(queue: Queue, bench: Bench) -> None:
    started: list[str] = []
    full, may_go = asyncio.Event(), asyncio.Semaphore(0)

    async def run(job: Any) -> None:
        started.append(job.key)
        if len(started) == 5:
            full.set()
        await may_go.acquire()

    await queue.add_many([("a", None, options("big"))] * 3_000)
    async with bench.worker(run, concurrency=5) as worker:
        async with asyncio.timeout(PATIENCE):
            await full.wait()
        small = await queue.add("a", options=options("small"))
        may_go.release()
        await bench.happened("active", small.id)
        assert started.index("small") <= 6
        await queue.pause()
        for _ in range(10):
            may_go.release()
        await worker.stop()


async def test_a_rate_of_one_group_does_not_throttle_the_others(queue: Queue, bench: Bench) -> None:
    """Incident R84."""
    starts: Counter[str] = Counter()
    third = asyncio.Event()

    async def run(job: Any) -> None:
        starts[job.key] += 1
        if starts["A"] == 3:
            third.set()

    await queue.limit_key("A", rate=RateLimit(1, per=1))
    await queue.add_many([("a", None, options("A"))] * 1_000)
    others = await queue.add_many([("a", None, options(key)) for key in "BCDEFGHIJ" for _ in range(20)])
    begun = time.monotonic()
    async with bench.worker(run, concurrency=10):
        await asyncio.gather(*(job.result(PATIENCE) for job in others))
        within = time.monotonic() - begun
        assert 1 <= starts["A"] <= within + 2
        async with asyncio.timeout(PATIENCE):
            await third.wait()  # and it goes on
    assert sum(starts.values()) - starts["A"] == 180


async def test_a_job_knows_its_key(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> Any:
        return job.key

    job = await queue.add("a", key="tenant-42", keep_completed=KEEP_ALL)
    snapshot = await queue.get_job(job.id)
    assert snapshot is not None
    assert snapshot.key == "tenant-42"
    async with bench.worker(run):
        assert await job.result(PATIENCE) == "tenant-42"


async def test_keys_tell_how_many_jobs_they_have_and_what_is_set(queue: Queue) -> None:
    await queue.limit_key(concurrency=2)
    await queue.limit_key("b", rate=RateLimit(5, per=60), weight=3)
    await queue.pause_key("b")
    await queue.add_many([("a", None, options("a"))] * 4)
    found = await queue.keys()
    assert found.total == 2
    assert found.limits.concurrency == 2
    assert [(one.key, one.jobs, one.parked, one.paused) for one in found] == [("a", 4, 3, False), ("b", 0, 0, True)]
    one = await queue.get_key("b")
    assert (one.limits.rate, one.limits.weight, one.limits.concurrency) == (RateLimit(5, per=60), 3, None)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda queue: queue.add("a", key=""), "key must not be empty"),
        (lambda queue: queue.add("a", key="a{b"), "key must not contain braces"),
        (lambda queue: queue.add("a", key="x" * 257), "key takes 257 bytes, over the limit of 256"),
        (lambda queue: queue.add("a", key=7), "key must be text, not int"),
        (lambda queue: queue.limit_key("a", concurrency=0), "concurrency must be between 1 and 1,000,000, not 0"),
        (lambda queue: queue.limit_key("a", weight=0), "weight must be between 1 and 1,000, not 0"),
        (lambda queue: queue.limit_key("a", rate=5), "rate must be a RateLimit or None, not 5"),
        (lambda queue: queue.pause_key(""), "key must not be empty"),
        (lambda queue: queue.keys(0), "limit must be between 1 and 10,000, not 0"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    queue: Queue, client: redis.Redis, call: Any, said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await call(queue)
    assert said in str(refused.value)
    assert client.dbsize() == 0
