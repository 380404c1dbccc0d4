"""Operations on many jobs: in steps, with progress, beside workers and producers."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest
import redis

from streamq import InvalidInput, JobFailed, JobOptions, JobState, Priority, Queue, Retention, Settings, Unrecoverable
from streamq.errors import JobCancelled, JobNotFound, QueueBusy
from streamq.observer import Observer
from tests.integration.conftest import PATIENCE, Bench

KEEP = JobOptions(keep_completed=Retention(100_000), keep_failed=Retention(100_000), attempts=1)


class Slowest(Observer):
    """Remembers the calls of each transition."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        self.calls.append(name)


async def fails(job: Any) -> None:
    raise (ValueError if job.data % 2 else KeyError)(job.data)


async def run_all(queue: Queue, bench: Bench, handler: Any, count: int, name: str = "a") -> list[str]:
    """Add jobs, run them, and wait until all have ended; returns their ids."""
    jobs = await queue.add_many([(name, n, KEEP) for n in range(count)])
    async with bench.worker(handler, concurrency=50):
        for job in jobs:
            try:
                await job.result(PATIENCE)
            except JobFailed:
                continue
    return [job.id for job in jobs]


async def test_a_large_clean_goes_in_steps_and_tells_its_progress(queue: Queue, settings: Settings) -> None:
    observer, told = Slowest(), []
    async with Queue("q", settings=settings, observer=observer) as other:
        jobs = await queue.add_many([("a", n) for n in range(3_500)])
        ids = await other.clean(0, None, JobState.WAITING, on_progress=lambda done, total: told.append((done, total)))
        assert ids == [job.id for job in jobs]
        assert told == [(done, None) for done in range(500, 3_501, 500)] + [(3_500, None)]
        assert observer.calls == ["clean"] * 8
    assert (await queue.stats()).total == 0


async def test_clean_takes_no_more_than_its_limit(queue: Queue) -> None:
    await queue.add_many([("a", n) for n in range(2_500)])
    assert len(await queue.clean(limit=1_200, state=JobState.WAITING)) == 1_200
    assert len(await queue.clean(limit=5_000, state=JobState.WAITING)) == 1_300


async def test_clean_judges_finished_jobs_by_their_end_and_leaves_the_others(queue: Queue, bench: Bench) -> None:
    ids = await run_all(queue, bench, lambda job: None, 5)
    waiting = await queue.add("a")
    assert await queue.clean(grace=3_600) == []
    assert sorted(await queue.clean()) == sorted(ids)
    assert [job.id for job in await queue.jobs(JobState.WAITING)] == [waiting.id]


@pytest.mark.parametrize("state", [JobState.ACTIVE, "nonsense"])
async def test_no_other_state_can_be_cleaned(queue: Queue, state: Any) -> None:
    with pytest.raises(InvalidInput, match="can't clean jobs of state"):
        await queue.clean(state=state)


async def test_drain_removes_what_waits_and_lets_running_jobs_end(queue: Queue, bench: Bench) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    async def run(job: Any) -> str:
        started.set()
        await go_on.wait()
        return "done"

    async with bench.worker(run, concurrency=1):
        running = await queue.add("a")
        await started.wait()
        waiting = await queue.add_many([("a", n) for n in range(2_500)])
        delayed = await queue.add("a", delay=3_600)
        assert await queue.drain() == 2_500
        assert await waiting[-1].snapshot() is None
        assert await delayed.snapshot() is not None
        assert await queue.drain(delayed=True) == 1
        go_on.set()
        assert await running.result(PATIENCE) == "done"
    assert (await queue.stats()).total == 1


async def test_drain_ends_though_jobs_keep_coming(queue: Queue, settings: Settings) -> None:
    await queue.add_many([("a", n) for n in range(5_000)])
    going = True

    async def produces() -> None:
        async with Queue("q", settings=settings) as other:
            while going:
                await asyncio.gather(*(other.add("late") for _ in range(200)))

    producer = asyncio.create_task(produces())
    async with asyncio.timeout(PATIENCE):
        gone = await queue.drain()
    going = False
    await producer
    assert gone >= 5_000


async def test_obliterate_refuses_while_jobs_run_and_then_leaves_nothing(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    started, go_on, told = asyncio.Event(), asyncio.Event(), []

    async def run(job: Any) -> None:
        started.set()
        await go_on.wait()

    async with bench.worker(run, concurrency=1) as worker:
        await queue.add("a")
        await started.wait()
        await queue.add_many([("a", n) for n in range(1_500)])
        with pytest.raises(QueueBusy, match="queue q runs 1 jobs; stop its workers first, or force it"):
            await queue.obliterate()
        assert (await queue.stats()).waiting == 1_500
        gone = await queue.obliterate(force=True, on_progress=lambda done, total: told.append((done, total)))
        assert gone == 1_501
        assert told == [(500, 1_501), (1_000, 1_501), (1_500, 1_501), (1_501, 1_501)]
        go_on.set()
        assert (await queue.add("b")).id == "1502"
        await bench.happened("completed", "1502")
    assert worker.stale_outcomes == 1
    assert (await queue.stats()).total == 1


async def test_whoever_waits_for_a_result_is_told_that_the_job_was_drained_or_obliterated(
    queue: Queue, bench: Bench
) -> None:
    for takes_away in (queue.drain, queue.obliterate):
        job = await queue.add("a")
        waiters = [asyncio.create_task(job.result(PATIENCE)) for _ in range(3)]
        await queue._endings.watch(job.id)  # the reader is in place
        async with asyncio.timeout(PATIENCE):
            await takes_away()
            for end in await asyncio.gather(*waiters, return_exceptions=True):
                assert isinstance(end, JobCancelled | JobNotFound)


async def test_retry_many_runs_all_failed_jobs_again_in_their_lanes(queue: Queue, bench: Bench) -> None:
    options = msgspec.structs.replace(KEEP, priority=Priority.HIGH)
    jobs = await queue.add_many([("a", n, options) for n in range(450)])
    async with bench.worker(fails, concurrency=50):
        for job in jobs:
            with pytest.raises(JobFailed):
                await job.result(PATIENCE)
    told: list[int] = []
    ids = await queue.retry_many(on_progress=lambda done, total: told.append(done))
    assert sorted(ids, key=int) == [job.id for job in jobs]
    assert told[-1] == 450
    stats = await queue.stats()
    assert (stats.waiting_by_priority[Priority.HIGH], stats.failed, stats.dead) == (450, 0, 0)
    async with bench.worker(lambda job: job.data):
        assert [await job.result(PATIENCE) for job in jobs] == list(range(450))


async def test_retry_many_picks_by_name_error_and_number(queue: Queue, bench: Bench) -> None:
    await run_all(queue, bench, fails, 6, "a")
    await run_all(queue, bench, fails, 6, "ab")
    assert len(await queue.retry_many(name="a", error_type="KeyError")) == 3
    assert len(await queue.retry_many(error_type="ValueError", count=2)) == 2
    assert len(await queue.retry_many(name="ab")) == 6
    assert [job.data % 2 for job in await queue.jobs(JobState.FAILED)] == [1]
    with pytest.raises(InvalidInput, match="can't retry jobs of state waiting"):
        await queue.retry_many(JobState.WAITING)


async def test_a_bulk_retry_of_jobs_that_keep_failing_ends(queue: Queue, bench: Bench) -> None:
    async def fails_at_once(job: Any) -> None:
        raise Unrecoverable("always")

    await run_all(queue, bench, fails_at_once, 300)
    async with bench.worker(fails_at_once, concurrency=50), asyncio.timeout(PATIENCE):
        assert len(await queue.retry_many()) == 300


async def test_jobs_are_listed_in_pages_that_know_the_next_one(queue: Queue) -> None:
    jobs = await queue.add_many([("b" if n % 10 else "a", n) for n in range(1_000)])
    page = await queue.jobs(JobState.WAITING, count=300)
    seen = [job.data for job in page]
    while page.next is not None:
        page = await queue.jobs(JobState.WAITING, page.next, count=300)
        seen += [job.data for job in page]
    assert seen == list(range(1_000))
    named = await queue.jobs(JobState.WAITING, name="a", count=1_000)
    assert [job.data for job in named] == list(range(0, 1_000, 10))
    assert named.next is None
    newest = await queue.jobs(JobState.WAITING, 10, 3, newest_first=True)
    assert [job.id for job in newest] == [job.id for job in jobs[-11:-14:-1]]
    assert (await queue.jobs(JobState.CANCELLED), await queue.jobs(JobState.ACTIVE)) == ([], [])


@pytest.mark.parametrize(
    "said", [{"state": "nonsense"}, {"count": 0}, {"start": -1}, {"start": 1.5}, {"count": math.inf}, {"name": ""}]
)
async def test_a_listing_that_makes_no_sense_is_refused(queue: Queue, said: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await queue.jobs(**{"state": JobState.WAITING, **said})
