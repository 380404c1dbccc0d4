"""A job's own log: in pages, and live."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from streamq import InvalidInput, Queue, Settings, Worker
from streamq._engine.store import Store
from tests.integration.conftest import PATIENCE, Bench


async def test_lines_are_read_in_pages_after_the_job_has_ended(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> None:
        for n in range(5):
            await job.log(f"line {n}")

    async with bench.worker(run):
        job = await queue.add("a")
        await job.result(PATIENCE)
    assert await queue.logs(job.id) == [f"line {n}" for n in range(5)]
    assert await queue.logs(job.id, start=2, count=2) == ["line 2", "line 3"]
    assert await queue.logs("nobody") == []
    with pytest.raises(InvalidInput):
        await queue.logs(job.id, start=-1)


async def test_a_follower_gets_each_line_as_it_comes_until_the_job_has_ended(queue: Queue, bench: Bench) -> None:
    """The handler writes a line only when the one before has been read: nothing here can pass by polling at the end."""
    read = asyncio.Semaphore(0)

    async def run(job: Any) -> None:
        for n in range(5):
            await job.log(f"line {n}")
            async with asyncio.timeout(PATIENCE):
                await read.acquire()

    job = await queue.add("a", delay=3_600)
    seen: list[str] = []

    async def follows() -> None:
        async for line in queue.follow_logs(job.id):
            seen.append(line)
            read.release()

    follower = asyncio.create_task(follows())
    async with bench.worker(run):
        await queue.promote(job.id)
        async with asyncio.timeout(PATIENCE):
            await follower
    assert seen == [f"line {n}" for n in range(5)]


async def test_a_follower_who_comes_late_gets_what_is_left(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> None:
        for n in range(3):
            await job.log(f"line {n}")

    async with bench.worker(run):
        job = await queue.add("a")
        await job.result(PATIENCE)
    assert [line async for line in queue.follow_logs(job.id, start=1)] == ["line 1", "line 2"]
    assert [line async for line in queue.follow_logs("nobody")] == []


async def test_lines_that_the_cap_drops_before_they_are_read_are_skipped(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, log_cap=3)

    async def run(job: Any) -> None:
        for n in range(10):
            await job.log(f"line {n}")

    async with Queue("q", settings=settings) as queue, Worker("q", run, settings=settings):
        job = await queue.add("a")
        await job.result(PATIENCE)
        assert [line async for line in queue.follow_logs(job.id)] == ["line 7", "line 8", "line 9"]
        assert await queue.logs(job.id, start=0, count=1) == ["line 7"]


async def test_a_job_that_is_removed_ends_its_follower(queue: Queue) -> None:
    job = await queue.add("a")
    waits = asyncio.Event()
    asked = Store.logs

    async def logs(self: Store, job_id: str, start: int, count: int) -> Any:
        page = await asked(self, job_id, start, count)
        waits.set()
        return page

    queue._store.logs = logs.__get__(queue._store)  # type: ignore[method-assign]

    async def follows() -> list[str]:
        async with aclosing(queue.follow_logs(job.id)) as lines:
            return [line async for line in lines]

    follower = asyncio.create_task(follows())
    async with asyncio.timeout(PATIENCE):
        await waits.wait()
        await queue.remove(job.id)
        assert await follower == []


async def test_lines_nobody_follows_leave_the_event_stream_to_other_events(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> None:
        for n in range(50):
            await job.log(f"line {n}")

    async with bench.worker(run):
        job = await queue.add("a")
        assert await bench.history(job.id, "completed") == ["added", "active", "completed"]
