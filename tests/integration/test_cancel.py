"""Cancelling jobs with workers at work: handlers are interrupted, told or killed, and each job has one ending."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from streamq import (
    InvalidInput,
    Job,
    JobNotFound,
    JobState,
    Processors,
    Queue,
    RateLimit,
    Retention,
    Settings,
    Snooze,
    Worker,
)
from streamq.errors import JobCancelled
from streamq.observer import Observer
from streamq.policy import Backoff
from tests.faults.workers import eventually
from tests.integration.conftest import PATIENCE, Bench, Calls
from tests.integration.processors_for_processes import processors as in_processes


class Runs:
    """Handlers that say that they have started, and how they end."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.interrupted: list[str] = []
        self.loop = asyncio.get_running_loop()

    async def forever(self, job: Any) -> None:
        self.started.put_nowait(job.id)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.interrupted.append(job.id)
            raise

    async def swallows(self, job: Any) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await self.forever(job)
        return "done all the same"

    async def raises_instead(self, job: Any) -> None:
        try:
            await self.forever(job)
        except asyncio.CancelledError:
            raise ValueError("could not clean up") from None

    async def snoozes_instead(self, job: Any) -> None:
        try:
            await self.forever(job)
        except asyncio.CancelledError:
            raise Snooze(0) from None

    def in_a_thread(self, job: Any) -> str:
        self.loop.call_soon_threadsafe(self.started.put_nowait, job.id)
        while not job.cancelled:
            threading.Event().wait(0.005)
        return "stopped half way"

    async def start(self) -> str:
        """Wait until another handler runs; returns its job's id."""
        async with asyncio.timeout(PATIENCE):
            return await self.started.get()


@pytest.fixture
async def runs() -> Runs:
    return Runs()


async def cancelled(job: Job, reason: str) -> None:
    """Wait for the job's end, which must be that it was cancelled for this reason."""
    with pytest.raises(JobCancelled, match=f"job {job.id} was cancelled: {reason}") as caught:
        await job.result(PATIENCE)
    assert caught.value.reason == reason
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert (snapshot.state, snapshot.cancel_reason, snapshot.error) == (JobState.CANCELLED, reason, None)
    assert snapshot.finished_at is not None


@pytest.mark.parametrize("concurrency", [1, 5])
@pytest.mark.parametrize("kind", ["forever", "swallows", "raises_instead", "snoozes_instead", "in_a_thread"])
async def test_a_running_job_ends_as_cancelled_however_its_handler_takes_it(
    queue: Queue, bench: Bench, runs: Runs, kind: str, concurrency: int
) -> None:
    """The worker is full, or parked with free slots."""
    job = await queue.add("a", attempts=5)
    async with bench.worker(getattr(runs, kind), concurrency=concurrency) as worker:
        assert await runs.start() == job.id
        assert await job.cancel("enough")
        await cancelled(job, "enough")
        assert runs.interrupted == ([] if kind == "in_a_thread" else [job.id])
        assert worker.stale_outcomes == 0
        nxt = await queue.add("a")
        assert await runs.start() == nxt.id  # its slot is free
        assert await nxt.cancel("enough")
        await cancelled(nxt, "enough")
    kinds = await bench.history(job.id, "cancelled")
    assert kinds == ["added", "active", "cancelled"]
    stats = await queue.stats()
    assert (stats.cancelled, stats.active, stats.waiting, stats.dead, stats.total) == (2, 0, 0, 0, 2)


async def test_the_process_of_a_handler_that_runs_in_one_is_killed(queue: Queue, bench: Bench, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    worker = Worker("processes", in_processes, settings=bench.settings, concurrency=1)
    async with Queue("processes", settings=bench.settings) as queue, worker:
        job = await queue.add("spin", str(note), timeout=60)
        await eventually(lambda: note.exists() and note.read_text().isdigit(), PATIENCE, "the handler runs")
        assert await job.cancel("stop it")
        await cancelled(job, "stop it")
        assert not psutil.pid_exists(int(note.read_text()))
        assert (await (await queue.add("compute", 1)).result(PATIENCE))["data"] == 1


async def test_one_job_of_many_is_interrupted_and_the_others_go_on(queue: Queue, bench: Bench, runs: Runs) -> None:
    jobs = await queue.add_many([("a", n) for n in range(4)])
    async with bench.worker(runs.forever, concurrency=4):
        for _ in jobs:
            await runs.start()
        await jobs[2].cancel("this one")
        await cancelled(jobs[2], "this one")
        assert runs.interrupted == [jobs[2].id]
        assert (await queue.stats()).active == 3
        assert sorted(await queue.cancel_many(JobState.ACTIVE, reason="all")) == sorted(
            job.id for job in jobs if job is not jobs[2]
        )
        for job in jobs:
            await cancelled(job, "this one" if job is jobs[2] else "all")


async def test_a_retry_that_waits_for_its_time_is_cancelled(queue: Queue, bench: Bench) -> None:
    async def fails(job: Any) -> None:
        raise ValueError

    job = await queue.add("a", attempts=2, backoff=Backoff.fixed(3_600))
    async with bench.worker(fails):
        await bench.happened("delayed", job.id)
        assert await job.cancel("no more")
        with pytest.raises(JobCancelled):
            await job.result(PATIENCE)
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert snapshot.attempts_made == 1


async def test_a_cancel_while_the_worker_stops_is_no_interruption(queue: Queue, bench: Bench, runs: Runs) -> None:
    first, second = await queue.add_many([("a", 1), ("a", 2)])
    worker = bench.worker(runs.in_a_thread, concurrency=2)
    async with worker:
        await runs.start()
        await runs.start()
        stopping = asyncio.create_task(worker.stop(grace=PATIENCE))
        assert await first.cancel("with the deploy")
        await cancelled(first, "with the deploy")
        await worker.stop(grace=0)
        await stopping
    snapshot = await second.snapshot()
    assert snapshot is not None
    assert (snapshot.state, snapshot.interruptions, snapshot.attempts_made) == (JobState.WAITING, 1, 0)
    await second.cancel("the thread is to end")


async def test_a_handler_that_outlasts_the_stop_is_cancelled_and_not_handed_back(queue: Queue, bench: Bench) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn(job: Any) -> None:
        started.set()
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    job = await queue.add("a")
    worker = bench.worker(stubborn)
    async with worker:
        await started.wait()
        assert await job.cancel("stop")
        await worker.stop(grace=0)
    let_go.set()
    await cancelled(job, "stop")


async def test_nothing_happens_to_unknown_and_ended_jobs(queue: Queue, bench: Bench) -> None:
    """Incident R80."""
    assert not await queue.cancel("own")
    job = await queue.add("a", 5, job_id="own")
    async with bench.worker(lambda job: job.data):
        assert await job.result(PATIENCE) == 5
        assert not await job.cancel()
        await queue.remove("own")
        assert not await job.cancel()
        again = await queue.add("a", 6, job_id="own")
        assert await again.result(PATIENCE) == 6


async def test_a_cancelled_job_is_listed_counted_retried_removed_and_cleaned(queue: Queue, bench: Bench) -> None:
    jobs = await queue.add_many([("a", n) for n in range(3)])
    for job in jobs:
        assert await job.cancel(f"reason {job.id}")
        assert not await job.cancel("again")
    page = await queue.jobs(JobState.CANCELLED)
    assert [(found.id, found.data, found.cancel_reason) for found in page] == [
        (job.id, n, f"reason {job.id}") for n, job in enumerate(jobs)
    ]
    await queue.retry(jobs[0].id)
    async with bench.worker(lambda job: job.data):
        assert await jobs[0].result(PATIENCE) == 0
        assert await queue.remove(jobs[1].id)
        assert await queue.retry_many(JobState.CANCELLED) == [jobs[2].id]
        assert await jobs[2].result(PATIENCE) == 2
    last = await queue.add("a", delay=60)
    await last.cancel()
    assert await queue.clean(state=JobState.CANCELLED) == [last.id]
    with pytest.raises(JobNotFound):
        await last.result(PATIENCE)


async def test_whoever_waits_for_a_job_that_is_not_kept_hears_that_it_was_cancelled(
    queue: Queue, calls: Calls, settings: Settings
) -> None:
    job = await queue.add("a")
    waiting = asyncio.create_task(job.result(PATIENCE))
    await calls.answered("get")
    forgetful = msgspec.structs.replace(settings, keep_cancelled=Retention(0))
    async with Queue("q", settings=forgetful) as other:
        assert await other.cancel(job.id, "gone")
    with pytest.raises(JobCancelled, match=f"job {job.id} was cancelled or removed before it ended"):
        await waiting


async def test_many_are_cancelled_by_their_ids_and_progress_is_told(queue: Queue) -> None:
    jobs = await queue.add_many([("a", n) for n in range(450)])
    told: list[tuple[int, int | None]] = []
    ids = [job.id for job in jobs]
    found = await queue.cancel_many(ids=[*ids, "nobody", ids[0]], on_progress=lambda *step: told.append(step))
    assert found == ids
    assert told == [(200, 451), (400, 451), (450, 451)]
    assert (await queue.stats()).cancelled == 450


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ({}, "give state or ids, one of the two"),
        ({"state": JobState.ACTIVE, "ids": []}, "give state or ids, one of the two"),
        ({"state": JobState.FAILED}, "can't cancel jobs of state failed; the states are active, delayed, waiting"),
        ({"ids": ["1"], "name": "a"}, "count and name pick from jobs of a state, not from ids"),
        ({"ids": ["1"], "reason": 5}, "reason must be text of up to 500 characters, not int"),
        ({"ids": ["1"], "reason": "x" * 501}, "reason must be text of up to 500 characters, not 501 characters"),
        ({"ids": ["1"], "reason": "\ud800"}, "reason holds a lone surrogate, which can't be sent"),
        ({"ids": [7]}, "job_id must be text, not int"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anything_is_sent(queue: Queue, call: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        await queue.cancel_many(**call)


async def test_a_job_that_is_claimed_but_waits_for_a_slot_is_cancelled_unstarted(
    queue: Queue, bench: Bench, runs: Runs
) -> None:
    """Claims ahead of free slots are held by the worker; they never start once they are cancelled."""
    async with bench.worker(runs.forever, concurrency=1) as worker:
        first = await queue.add("a")
        await runs.start()
        worker._parts[0].ticker._holdings._concurrency = 1
        second = await queue.add("a")
        reply = await worker._parts[0].store.tick(worker._parts[0].ticker._args, 1, ())
        worker._parts[0].ticker._take(reply, 0)
        assert (await queue.stats()).active == 2
        await second.cancel("never mind")
        await cancelled(second, "never mind")
        snapshot = await second.snapshot()
        assert snapshot is not None
        assert (snapshot.attempts_made, snapshot.started_at) == (0, None)
        await first.cancel("that too")
        await cancelled(first, "that too")
    assert runs.started.empty()


async def test_a_limited_queue_has_room_again(queue: Queue, bench: Bench, runs: Runs) -> None:
    await queue.set_concurrency(1)
    await queue.set_rate_limit(RateLimit(1_000, per=1))
    first, second = await queue.add_many([("a", 1), ("a", 2)])
    async with bench.worker(runs.forever, concurrency=3):
        assert await runs.start() == first.id
        await first.cancel("make room")
        assert await runs.start() == second.id
        await second.cancel("make room")
        await cancelled(second, "make room")


async def test_the_log_and_the_metrics_tell_of_it(
    queue: Queue, bench: Bench, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    class Told(Observer):
        def ended(self, queue: str, processor: str, outcome: str, ran: float, waited: float, attempt: int) -> None:
            ended.append(outcome)

    caplog.set_level(logging.INFO, "streamq.worker")
    processors = Processors()
    processors.register("a")(runs.forever)
    job = await queue.add("a")
    async with bench.worker(processors, observer=Told()):
        await runs.start()
        await job.cancel("a secret reason")
        await cancelled(job, "a secret reason")
    assert ended == ["cancel"]
    assert f"job {job.id} of a: cancelled after" in caplog.text
    assert "a secret reason" not in caplog.text
