"""The flat functions: one queue per name and event loop, closed together."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import streamq
from streamq import (
    InvalidInput,
    JobFailed,
    JobState,
    Priority,
    QueueName,
    RateLimit,
    WrongState,
    add_job,
    clean_queue,
    close_all_queues,
    create_queue_events,
    create_worker,
    get_job,
    get_queue,
    get_queue_stats,
    pause_queue,
    remove_job,
    resume_queue,
    retry_job,
)
from tests.integration.conftest import PATIENCE


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("QUEUE_CONCURRENCY", "7")
    monkeypatch.setenv("JOB_RETRY_ATTEMPTS", "1")


async def test_a_job_goes_its_whole_way() -> None:
    broken = True

    async def run(job: Any) -> dict[str, Any]:
        if broken:
            raise ValueError("no")
        return {"rows": job.data["rows"]}

    try:
        await pause_queue(QueueName.REPORTS)
        job = await add_job(QueueName.REPORTS, "monthly", {"rows": 3}, priority=Priority.HIGH)
        assert ((await get_queue_stats("reports")).waiting, (await get_queue_stats("reports")).paused) == (1, True)
        worker = create_worker("reports", run, limiter=RateLimit(100, per=1.0))
        assert worker.settings.concurrency == 7
        await resume_queue("reports")
        with pytest.raises(JobFailed, match="ValueError: no"):
            await job.result(PATIENCE)
        broken = False
        await retry_job("reports", job.id)
        assert await job.result(PATIENCE) == {"rows": 3}
        with pytest.raises(WrongState):
            await retry_job("reports", job.id)
        found = await get_job("reports", job.id)
        assert found is not None
        assert (found.state, found.priority) == (JobState.COMPLETED, Priority.HIGH)
        assert await clean_queue("reports", 3_600, 1_000, JobState.COMPLETED) == []
        assert await clean_queue("reports", 0, 1_000, JobState.COMPLETED) == [job.id]
        assert not await remove_job("reports", job.id)
        assert await get_job("reports", job.id) is None
    finally:
        await close_all_queues()


async def test_events_are_told_to_handlers_and_loops() -> None:
    done: asyncio.Queue[str] = asyncio.Queue()
    every: list[str] = []
    try:
        events = create_queue_events("emails")

        def fails(event: Any) -> None:
            raise RuntimeError("a handler that fails does not keep the next ones from being told")

        async def completed(event: Any) -> None:
            await done.put(event.job_id)

        events.on("completed", fails)
        events.on("completed", completed)
        events.on("*", lambda event: every.append(event.kind))
        await events.wait_until_ready()
        create_worker("emails", lambda job: None)
        jobs = [await add_job("emails", "a") for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            assert {await done.get() for _ in jobs} == {job.id for job in jobs}
        assert {"added", "active"} <= set(every)
    finally:
        await close_all_queues()


async def test_a_name_means_the_same_queue_until_all_are_closed() -> None:
    first = get_queue("reports")
    assert get_queue(QueueName.REPORTS) is first
    assert get_queue("emails") is not first
    await first.add("a")
    await close_all_queues()
    again = get_queue("reports")
    assert again is not first
    assert (await again.stats()).waiting == 1
    await close_all_queues()
    await close_all_queues()


async def test_closing_lets_running_jobs_end() -> None:
    started = asyncio.Event()

    async def run(job: Any) -> str:
        started.set()
        await asyncio.sleep(0.1)
        return "done"

    create_worker("reports", run)
    job = await add_job("reports", "a")
    await started.wait()
    await close_all_queues()
    found = await get_job("reports", job.id)
    assert found is not None
    assert (found.state, found.result) == (JobState.COMPLETED, "done")
    await close_all_queues()


def test_each_event_loop_has_queues_of_its_own_and_a_dead_loop_keeps_nothing() -> None:
    async def adds() -> int:
        queue = get_queue("reports")
        await queue.add("a")
        await close_all_queues()
        return id(queue)

    for _ in range(3):
        asyncio.run(adds())
    gc.collect()

    async def counts() -> int:
        waiting = (await get_queue_stats("reports")).waiting
        await close_all_queues()
        return waiting

    assert asyncio.run(counts()) == 3


def test_outside_an_event_loop_it_says_what_to_do() -> None:
    with pytest.raises(InvalidInput, match="call this inside a running event loop"):
        get_queue("reports")
    with pytest.raises(InvalidInput):
        create_worker("reports", lambda job: None)


def test_all_names_are_exported() -> None:
    assert all(hasattr(streamq, name) for name in streamq.__all__)
    assert streamq.__all__ == sorted(streamq.__all__, key=lambda name: (name[0].islower(), name))
