"""How long an attempt may take, who says so, and how a handler gets more time, wherever it runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from streamq import InvalidInput, JobFailed, JobOptions, Processors, Queue, Worker
from streamq.observer import Observer
from tests.faults.workers import eventually
from tests.integration.conftest import PATIENCE, Bench
from tests.integration.processors_for_processes import processors as in_processes

SHORT, LONG = 0.05, 60.0


async def forever(job: Any) -> None:
    await asyncio.Event().wait()


def registered(handler: Any, **options: Any) -> Processors:
    processors = Processors()
    processors.register("a", attempts=1, **options)(handler)
    return processors


@pytest.mark.parametrize(
    ("of_job", "of_processor", "of_settings"),
    [(SHORT, LONG, LONG), (None, SHORT, LONG), (None, None, SHORT), (SHORT, None, None)],
)
async def test_the_jobs_own_timeout_comes_first_then_the_processors_then_the_default(
    queue: Queue, bench: Bench, of_job: float | None, of_processor: float | None, of_settings: float | None
) -> None:
    settings = msgspec.structs.replace(bench.settings, job_timeout=of_settings)
    job = await queue.add("a", timeout=of_job)
    async with bench.worker(registered(forever, timeout=of_processor), settings=settings):
        with pytest.raises(JobFailed, match=r"HandlerTimeout: it ran longer than its timeout of 0\.05 s"):
            await job.result(PATIENCE)


async def test_a_queue_may_have_a_default_for_all_that_is_added_through_it(bench: Bench, settings: Any) -> None:
    async with Queue("q", settings=settings, defaults=JobOptions(timeout=SHORT)) as queue:
        job = await queue.add("a", attempts=1)
        async with bench.worker(forever):
            with pytest.raises(JobFailed, match=r"its timeout of 0\.05 s"):
                await job.result(PATIENCE)


async def test_an_async_handler_gets_more_time_as_often_as_it_asks(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> str:
        for _ in range(5):
            job.extend_timeout(1.0)
            await asyncio.sleep(SHORT)
        return "made it"

    job = await queue.add("a", attempts=1, timeout=SHORT)
    async with bench.worker(run):
        assert await job.result(PATIENCE) == "made it"


async def test_a_handler_that_does_not_ask_again_ends_when_the_extension_is_over(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> None:
        job.extend_timeout(2 * SHORT)
        await asyncio.Event().wait()

    job = await queue.add("a", attempts=1, timeout=SHORT)
    async with bench.worker(run):
        with pytest.raises(JobFailed, match=r"longer than its timeout of 0\.05 s, which was extended, after 0\."):
            await job.result(PATIENCE)


async def test_an_extension_never_shortens_and_is_nothing_without_a_timeout(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> str:
        job.extend_timeout(0.001)
        await asyncio.sleep(SHORT)
        return "made it"

    jobs = await queue.add_many([("a", 1, JobOptions(timeout=LONG, attempts=1)), ("a", 2, JobOptions(attempts=1))])
    async with bench.worker(run):
        for job in jobs:
            assert await job.result(PATIENCE) == "made it"


@pytest.mark.parametrize("value", [0, -1, float("nan"), "5", None])
async def test_an_extension_that_makes_no_sense_is_refused(queue: Queue, bench: Bench, value: Any) -> None:
    async def run(job: Any) -> str:
        with pytest.raises(InvalidInput, match="seconds must be"):
            job.extend_timeout(value)
        return "told"

    job = await queue.add("a", attempts=1, timeout=LONG)
    async with bench.worker(run):
        assert await job.result(PATIENCE) == "told"


class Left(Observer):
    """Counts threads that were left behind."""

    def __init__(self) -> None:
        self.count = 0

    def thread_left(self, queue: str, processor: str) -> None:
        self.count += 1


@pytest.fixture
async def let_go() -> AsyncIterator[threading.Event]:
    """Ends the handlers that were left behind."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("threads", [None, 1])
async def test_threads_whose_time_is_up_are_left_told_and_reported_and_take_nobodys_place(
    queue: Queue, bench: Bench, let_go: threading.Event, caplog: pytest.LogCaptureFixture, threads: int | None
) -> None:
    told: list[Any] = []

    def run(job: Any) -> Any:
        if job.data is None:
            let_go.wait(PATIENCE)
            told.append(job.cancelled)
        return job.data

    left = Left()
    settings = msgspec.structs.replace(bench.settings, threads=threads)
    stuck = await queue.add_many([("a", None, JobOptions(attempts=1, timeout=SHORT))] * 3)
    async with bench.worker(run, concurrency=1, settings=settings, observer=left):
        for job in stuck:
            with pytest.raises(JobFailed, match="HandlerTimeout"):
                await job.result(PATIENCE)
        assert await (await queue.add("a", 5, timeout=LONG)).result(PATIENCE) == 5
        assert left.count == 3
        assert "timed out; its thread can't be stopped and is left" in caplog.text
        let_go.set()
        await eventually(lambda: len(told) == 3, PATIENCE, "the threads have ended")
    assert told == [True] * 3


async def test_a_thread_gets_more_time(queue: Queue, bench: Bench) -> None:
    def run(job: Any) -> str:
        for _ in range(5):
            job.extend_timeout(1.0)
            threading.Event().wait(SHORT)
        return "made it"

    job = await queue.add("a", attempts=1, timeout=SHORT)
    async with bench.worker(run):
        assert await job.result(PATIENCE) == "made it"


async def test_a_handler_in_a_process_gets_more_time(bench: Bench) -> None:
    worker = Worker("processes", in_processes, settings=bench.settings, concurrency=1)
    async with Queue("processes", settings=bench.settings) as queue, worker:
        await (await queue.add("compute", 1)).result(PATIENCE)  # the process is there: what is timed is the handler
        job = await queue.add("extend", {"each": 0.3, "steps": 4}, timeout=0.6)
        assert await job.result(PATIENCE) == "made it"
