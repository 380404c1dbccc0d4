"""Many callers at once: exactly one of them does it, and the others are told the truth."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamq import JobFailed, JobState, Priority, Queue, Retention, Settings, WrongState
from tests.integration.conftest import PATIENCE, Bench

CALLERS = 50
ROUNDS = 100 if os.environ.get("STREAMQ_LONG") == "1" else 8


@pytest.fixture
async def callers(settings: Settings) -> Any:
    """Fifty clients, each with a connection of its own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Queue("q", settings=settings)) for _ in range(CALLERS)]


async def all_at_once(callers: list[Queue], call: Any) -> list[Any]:
    """Let all call at the same moment; returns what each got, `None` for a WrongState."""
    barrier = asyncio.Barrier(len(callers))

    async def one(queue: Queue) -> Any:
        await barrier.wait()
        try:
            return await call(queue)
        except WrongState:
            return None

    return await asyncio.gather(*(one(queue) for queue in callers))


async def test_of_many_adds_of_one_id_one_adds_and_the_job_runs_once(
    callers: list[Queue], queue: Queue, bench: Bench
) -> None:
    """Incident R81."""
    runs: dict[str, int] = {}

    async def run(job: Any) -> None:
        runs[job.id] = runs.get(job.id, 0) + 1

    async with bench.worker(run):
        for n in range(ROUNDS):
            jobs = await all_at_once(callers, lambda each, n=n: each.add("a", job_id=f"own-{n}"))
            assert sum(job.is_new for job in jobs) == 1
            await jobs[0].result(PATIENCE)
    assert runs == {f"own-{n}": 1 for n in range(ROUNDS)}


async def test_of_many_retries_of_one_job_one_retries_it_and_it_runs_once_more(
    callers: list[Queue], queue: Queue, bench: Bench
) -> None:
    """Incident R81."""
    runs = 0

    async def fails(job: Any) -> None:
        nonlocal runs
        runs += 1
        raise ValueError("no")

    async with bench.worker(fails):
        job = await queue.add("a", attempts=1)
        for n in range(ROUNDS):
            with pytest.raises(JobFailed):
                await job.result(PATIENCE)
            assert runs == n + 1
            await queue.pause()

            async def retry(each: Queue) -> bool:
                await each.retry(job.id)
                return True

            assert (await all_at_once(callers, retry)).count(True) == 1
            await queue.resume()
        with pytest.raises(JobFailed):
            await job.result(PATIENCE)
    assert runs == ROUNDS + 1


async def test_of_many_reschedules_of_one_job_the_last_counts_and_it_runs_once(
    callers: list[Queue], queue: Queue, bench: Bench
) -> None:
    """Incident R81."""
    runs: list[int] = []

    async def run(job: Any) -> None:
        runs.append(job.data)

    async with bench.worker(run):
        for n in range(ROUNDS):
            job = await queue.add("a", n, delay=3_600)
            await all_at_once(callers, lambda each, job=job: each.reschedule(job.id, delay=60))
            assert [each.id for each in await queue.jobs(JobState.DELAYED)] == [job.id]
            await all_at_once(callers, lambda each, job=job: each.reschedule(job.id, delay=0.001))
            await job.result(PATIENCE)
    assert runs == list(range(ROUNDS))


async def test_of_many_cancels_of_one_job_one_cancels_it_and_its_reason_stands(
    callers: list[Queue], queue: Queue, bench: Bench
) -> None:
    """Incident R81."""
    for n in range(ROUNDS):
        job = await queue.add("a", delay=3_600 if n % 2 else 0)
        answers = await all_at_once(callers, lambda each, job=job: each.cancel(job.id, str(id(each))))
        winner = callers[answers.index(True)]
        snapshot = await job.snapshot()
        assert snapshot is not None
        assert (answers.count(True), snapshot.cancel_reason) == (1, str(id(winner)))
    events = await bench.history(job.id, "cancelled")
    assert events.count("cancelled") == 1


async def test_of_promote_reschedule_move_and_remove_at_once_a_job_runs_once_or_is_gone(
    callers: list[Queue], queue: Queue, bench: Bench
) -> None:
    """Incident R81, in its form for removal: what the remover is told agrees with what happened."""
    runs: list[int] = []

    async def run(job: Any) -> None:
        runs.append(job.data)

    async with bench.worker(run):
        for n in range(ROUNDS * 4):
            job = await queue.add("a", n, delay=3_600, keep_completed=Retention(0))
            moves = [
                lambda each, job=job: each.promote(job.id),
                lambda each, job=job: each.change_priority(job.id, Priority.HIGH),
                lambda each, job=job, n=n: each.update_data(job.id, n),
                lambda each, job=job: each.remove(job.id),
            ]
            barrier = asyncio.Barrier(4)

            async def one(call: Any, each: Queue, barrier: asyncio.Barrier = barrier) -> Any:
                await barrier.wait()
                return await call(each)

            *_, removed = await asyncio.gather(
                *(one(call, each) for call, each in zip(moves, callers, strict=False)), return_exceptions=True
            )
            if removed is True:
                assert await job.snapshot() is None
                assert n not in runs
            else:
                await bench.happened("completed", job.id)
                assert runs.count(n) == 1
    assert len(runs) == len(set(runs))
    assert (await queue.stats()).total == 0
