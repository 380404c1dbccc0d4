"""Batches of jobs to one handler: how they fill, how each job ends, and what a stop, a cancel, a timeout do to them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import msgspec
import pytest

from streamq import (
    ActiveJob,
    Backoff,
    Batch,
    BatchJob,
    FlowJob,
    InvalidInput,
    Job,
    JobCancelled,
    JobFailed,
    JobOptions,
    JobState,
    Processors,
    Queue,
    RateLimit,
    Retention,
    RetryAfter,
    Snooze,
    Unique,
    Unrecoverable,
    close_all_queues,
    create_worker,
)
from streamq.log import JobFilter
from streamq.middleware import Middleware
from streamq.observer import Observer
from streamq.payload import Codec, Compression
from streamq.testing import drain, inline
from tests.faults.workers import eventually
from tests.integration.conftest import PATIENCE, Bench

LONG = 3_600.0
"""A `max_wait` that no test waits out."""
SOON = 0.01
KEPT = JobOptions(keep_completed=Retention(count=10_000), keep_failed=Retention(count=10_000))

Jobs = list[BatchJob[Any]]


class Index:
    """A handler of batches: notes each call, waits to be let through, and answers."""

    def __init__(self, answer: Callable[[Jobs], Any] = lambda jobs: [job.data for job in jobs]) -> None:
        self.calls: list[list[Any]] = []
        self.jobs: list[Jobs] = []
        self.open = asyncio.Event()
        self.open.set()
        self.interrupted = 0
        self._answer = answer
        self._called = asyncio.Event()

    async def process(self, jobs: Jobs) -> Any:
        self.jobs.append(jobs)
        self.calls.append([job.data for job in jobs])
        self._called.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.interrupted += 1
            raise
        return self._answer(jobs)

    async def called(self, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.calls) < times:
                self._called.clear()
                await self._called.wait()

    def registered(self, size: int = 3, max_wait: float = SOON, **options: Any) -> Processors:
        processors = Processors()

        @processors.register("index", batch=Batch(size, max_wait), **options)
        async def index(jobs: Jobs) -> Any:
            return await self.process(jobs)

        return processors


async def add(queue: Queue, count: int, name: str = "index", options: JobOptions = KEPT) -> list[Job]:
    return await queue.add_many([(name, number, options) for number in range(count)])


async def results(jobs: list[Job]) -> list[Any]:
    """Return each job's result, or its error as text."""
    found = await asyncio.gather(*(job.result(PATIENCE) for job in jobs), return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, JobFailed | JobCancelled):
            raise one
    return [one.error if isinstance(one, JobFailed) else one for one in found]


# Filling up -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 5])
async def test_the_handler_is_called_with_full_batches_while_jobs_wait(
    queue: Queue, bench: Bench, concurrency: int
) -> None:
    index = Index()
    jobs = await add(queue, 300)
    async with bench.worker(index.registered(size=100, max_wait=LONG), concurrency=concurrency) as worker:
        assert await results(jobs) == list(range(300))
        assert worker.stale_outcomes == 0
    assert [len(call) for call in index.calls] == [100, 100, 100]
    assert sorted(chain(*index.calls)) == list(range(300))


async def test_a_batch_that_does_not_fill_up_runs_after_its_longest_wait(queue: Queue, bench: Bench) -> None:
    index = Index()
    jobs = await add(queue, 2)
    async with bench.worker(index.registered(size=100)):
        assert await results(jobs) == [0, 1]
        jobs.append(await queue.add("index", 2))
        assert await results(jobs[2:]) == [2]
    assert index.calls == [[0, 1], [2]]


async def test_jobs_that_come_one_by_one_fill_a_batch(queue: Queue, bench: Bench) -> None:
    index = Index()
    async with bench.worker(index.registered(size=20, max_wait=LONG), concurrency=1):
        jobs = [await queue.add("index", number) for number in range(20)]
        assert await results(jobs) == list(range(20))
    assert index.calls == [list(range(20))]


async def test_a_wait_of_nothing_takes_what_comes_together(queue: Queue, bench: Bench) -> None:
    index = Index()
    jobs = await add(queue, 4)
    async with bench.worker(index.registered(size=100, max_wait=0), concurrency=4):
        assert await results(jobs) == [0, 1, 2, 3]
    assert index.calls == [[0, 1, 2, 3]]


async def test_other_jobs_run_while_a_batch_fills_up(queue: Queue, bench: Bench) -> None:
    index = Index()
    processors = index.registered(size=100, max_wait=LONG)

    @processors.register("mail")
    async def mail(job: ActiveJob[Any]) -> Any:
        return job.data

    gathered = await add(queue, 3)
    mails = await add(queue, 50, "mail")
    async with bench.worker(processors, concurrency=1) as worker:
        assert await results(mails) == list(range(50))
        assert index.calls == []
        worker.flush_batches()
        assert await results(gathered) == [0, 1, 2]
    assert index.calls == [[0, 1, 2]]


async def test_two_names_fill_batches_of_their_own(queue: Queue, bench: Bench) -> None:
    processors, one, two = Processors(), Index(), Index()
    processors.register("one", batch=Batch(5, LONG))(one_of(one))
    processors.register("two", batch=Batch(3, LONG))(one_of(two))
    jobs = await queue.add_many([("one" if number % 2 else "two", number, KEPT) for number in range(30)])
    async with bench.worker(processors, concurrency=2):
        assert await results(jobs) == list(range(30))
    assert [len(call) for call in one.calls] == [5, 5, 5]
    assert [len(call) for call in two.calls] == [3, 3, 3, 3, 3]


def one_of(index: Index) -> Any:
    async def run(jobs: Jobs) -> Any:
        return await index.process(jobs)

    return run


async def test_a_running_batch_takes_one_slot(queue: Queue, bench: Bench) -> None:
    index = Index()
    index.open.clear()
    processors = index.registered(size=10, max_wait=LONG)

    @processors.register("mail")
    async def mail(job: ActiveJob[Any]) -> Any:
        return job.data

    gathered = await add(queue, 10)
    async with bench.worker(processors, concurrency=2) as worker:
        await index.called()
        assert worker.running == 10
        assert await results(await add(queue, 20, "mail")) == list(range(20))
        index.open.set()
        await results(gathered)


async def test_two_workers_share_the_jobs_and_each_ends_once(queue: Queue, bench: Bench) -> None:
    one, two = Index(), Index()
    jobs = await add(queue, 500)
    async with bench.worker(one.registered(size=25)), bench.worker(two.registered(size=25)):
        assert await results(jobs) == list(range(500))
    assert sorted(chain(*one.calls, *two.calls)) == list(range(500))
    assert (await queue.stats()).completed == 500


async def test_a_rate_limit_counts_jobs_and_not_batches(queue: Queue, bench: Bench) -> None:
    index = Index()
    jobs = await add(queue, 9)
    async with bench.worker(index.registered(size=3, max_wait=LONG), limiter=RateLimit(3, per=LONG)) as worker:
        await results(jobs[:3])
        worker.flush_batches()
        assert (await queue.stats()).waiting == 6
    assert index.calls == [[0, 1, 2]]


async def test_a_limit_of_jobs_at_once_counts_jobs_and_not_batches(queue: Queue, bench: Bench) -> None:
    index = Index()
    index.open.clear()
    await queue.set_concurrency(2)
    jobs = await add(queue, 4)
    async with bench.worker(index.registered(size=4)):
        await index.called()
        stats = await queue.stats()
        assert (stats.active, stats.waiting) == (2, 2)
        index.open.set()
        await results(jobs)
    assert [len(call) for call in index.calls] == [2, 2]


async def test_a_paused_queue_gives_no_more_to_a_batch_and_what_was_gathered_runs(queue: Queue, bench: Bench) -> None:
    index = Index()
    jobs = await add(queue, 2)
    async with bench.worker(index.registered(size=4, max_wait=LONG)) as worker:
        await bench.happened("active", jobs[1].id)
        await eventually(lambda: worker.running == 2, PATIENCE)
        await queue.pause()
        await add(queue, 2)
        worker.flush_batches()
        assert await results(jobs) == [0, 1]
        assert (await queue.stats()).waiting == 2
    assert index.calls == [[0, 1]]


# How each job ends ----------------------------------------------------------------------------------------------------


async def test_each_job_ends_by_its_place_in_what_is_returned(queue: Queue, bench: Bench) -> None:
    def answer(jobs: Jobs) -> list[Any]:
        return [ValueError("odd") if job.data % 2 else {"indexed": job.data} for job in jobs]

    jobs = await add(queue, 4, options=JobOptions(attempts=1))
    async with bench.worker(Index(answer).registered(size=4)):
        assert await results(jobs) == [{"indexed": 0}, "ValueError: odd", {"indexed": 2}, "ValueError: odd"]
    assert [(await job.snapshot()).attempts_made for job in jobs] == [1, 1, 1, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["on the loop", "in a thread", "a class"])
async def test_each_job_ends_by_what_is_said_of_it_and_the_rest_as_the_handler_does(
    queue: Queue, bench: Bench, kind: str
) -> None:
    def settle(jobs: Jobs) -> None:
        jobs[0].complete("by itself")
        jobs[1].fail(Unrecoverable("broken"))
        raise OSError("the index is away")

    class Plain:
        def process(self, jobs: Jobs) -> None:
            settle(jobs)

    async def on_the_loop(jobs: Jobs) -> None:
        settle(jobs)

    processors = Processors()
    handler: Any = {"on the loop": on_the_loop, "in a thread": settle, "a class": Plain}[kind]
    processors.register("index", batch=Batch(4, SOON), attempts=1)(handler)
    jobs = await add(queue, 4)
    async with bench.worker(processors):
        assert await results(jobs) == [
            "by itself", "Unrecoverable: broken", "OSError: the index is away", "OSError: the index is away",
        ]  # fmt: skip


async def test_a_handler_that_returns_nothing_completes_all(queue: Queue, bench: Bench) -> None:
    jobs = await add(queue, 3)
    async with bench.worker(Index(lambda jobs: None).registered()):
        assert await results(jobs) == [None, None, None]


@pytest.mark.parametrize(
    ("returned", "what"),
    [([1, 2], "2 results for 3 jobs"), ({"a": 1}, "a dict for 3 jobs"), (True, "a bool for 3 jobs")],
)
async def test_anything_but_one_result_for_each_fails_them_for_good(
    queue: Queue, bench: Bench, returned: Any, what: str
) -> None:
    jobs = await add(queue, 3, options=JobOptions(attempts=5))
    async with bench.worker(Index(lambda jobs: returned).registered()):
        text = (
            f"BadBatchResult: the handler of 'index' returned {what}: it must return None, or a list with a result or "
            "an exception for each"
        )
        assert await results(jobs) == [text] * 3


async def test_a_result_that_can_not_be_stored_fails_its_own_job_alone(queue: Queue, bench: Bench) -> None:
    jobs = await add(queue, 2)
    async with bench.worker(Index(lambda jobs: ["fine", object()]).registered(size=2)):
        found = await results(jobs)
    assert found[0] == "fine"
    assert found[1].startswith("ResultNotEncodable")


async def test_each_job_is_retried_by_its_own_policy(queue: Queue, bench: Bench) -> None:
    asked: list[tuple[int, str]] = []

    def backoff(attempt: int, error: BaseException) -> float:
        asked.append((attempt, str(error)))
        return 0.0

    def answer(jobs: Jobs) -> list[Any]:
        return [ValueError(f"{job.data} {job.attempt}") if job.attempt <= job.data else "ok" for job in jobs]

    index = Index(answer)
    jobs = [
        await queue.add("index", 0),
        await queue.add("index", 1, attempts=2, backoff=Backoff.fixed(0)),
        await queue.add("index", 2, attempts=2, backoff=Backoff.fixed(0)),
        await queue.add("index", 2, attempts=3),
    ]
    async with bench.worker(index.registered(size=4, backoff=backoff)):
        assert await results(jobs) == ["ok", "ok", "ValueError: 2 2", "ok"]
    assert sorted(asked) == [(1, "2 1"), (2, "2 2")]
    assert sorted(index.calls[0]) == [0, 1, 2, 2]
    assert [(await job.snapshot()).attempts_made for job in jobs] == [1, 2, 2, 3]  # type: ignore[union-attr]


async def test_what_a_handler_raises_to_say_how_an_attempt_ends_holds_for_one_or_for_all(
    queue: Queue, bench: Bench
) -> None:
    def answer(jobs: Jobs) -> list[Any]:
        if len(jobs) == 3:
            jobs[0].fail(RetryAfter(0.0))
            jobs[1].complete("done")
            raise Snooze(0.0)
        return [f"attempt {job.attempt}" for job in jobs]

    jobs = await add(queue, 3)
    async with bench.worker(Index(answer).registered()):
        assert await results(jobs) == ["attempt 2", "done", "attempt 1"]


async def test_a_job_that_fails_for_good_becomes_a_dead_letter_of_its_own(queue: Queue, bench: Bench) -> None:
    jobs = await add(queue, 3)
    async with bench.worker(Index(lambda jobs: [1, Unrecoverable("no"), 3]).registered()):
        assert await results(jobs) == [1, "Unrecoverable: no", 3]
    (letter,) = await queue.dead_letters()
    assert (letter.job_id, letter.name, letter.data) == (jobs[1].id, "index", 1)
    assert (await queue.redrive(letter)).job_ids == [letter.job_id]
    async with bench.worker(Index(lambda jobs: ["again"]).registered()):
        assert await jobs[1].result(PATIENCE) == "again"


async def test_data_that_does_not_fit_fails_before_it_is_gathered(queue: Queue, bench: Bench) -> None:
    processors = Processors()

    class Document(msgspec.Struct):
        title: str

    @processors.register("index", data=Document, batch=Batch(2, LONG))
    async def index(jobs: list[BatchJob[Document]]) -> list[str]:
        return [job.data.title for job in jobs]

    jobs = await queue.add_many([("index", {"title": "a"}), ("index", {"name": "b"}), ("index", {"title": "c"})])
    async with bench.worker(processors):
        found = await results(jobs)
    assert (found[0], found[2]) == ("a", "c")
    assert "does not fit the processor of 'index'" in found[1]


async def test_progress_logs_steps_and_cursors_are_each_jobs_own(queue: Queue, bench: Bench) -> None:
    async def index(jobs: Jobs) -> list[Any]:
        for job in jobs:
            await job.progress(job.data)
            await job.log(f"line of {job.data}")
            await job.save_cursor(job.data)
        with pytest.raises(InvalidInput, match="can't wait for children"):
            jobs[0].add_children([FlowJob("child")])
        if jobs[0].attempt == 1:
            raise OSError
        return [(job.cursor, await job.step("once", lambda value: value + 1, job.data)) for job in jobs]

    processors = Processors()
    processors.register("index", batch=Batch(2, SOON), backoff=Backoff.fixed(0))(index)
    jobs = await add(queue, 2)
    async with bench.worker(processors):
        assert await results(jobs) == [[0, 1], [1, 2]]
    for number, job in enumerate(jobs):
        snapshot = await job.snapshot()
        assert snapshot is not None
        assert snapshot.progress == number
        assert list(await queue.logs(job.id)) == [f"line of {number}"] * 2


async def test_plain_functions_use_the_blocking_calls(queue: Queue, bench: Bench) -> None:
    def index(jobs: Jobs) -> list[str]:
        for job in jobs:
            job.progress(50)
        return [threading.current_thread().name for _ in jobs]

    processors = Processors()
    processors.register("index", batch=Batch(2, SOON))(index)
    jobs = await add(queue, 2)
    async with bench.worker(processors):
        assert all(name.startswith("streamq-job") for name in await results(jobs))
    assert [(await job.snapshot()).progress for job in jobs] == [50, 50]  # type: ignore[union-attr]


async def test_a_parent_may_be_one_of_a_batch_and_sees_its_children(queue: Queue, bench: Bench) -> None:
    processors = Processors()

    @processors.register("child")
    async def child(job: ActiveJob[Any]) -> Any:
        return job.data

    @processors.register("index", batch=Batch(2, SOON))
    async def index(jobs: Jobs) -> list[Any]:
        return [await job.children_results() for job in jobs]

    flows = [FlowJob("index", children=[FlowJob("child", 1), FlowJob("child", 2)]), FlowJob("index", children=[])]
    jobs = [await queue.add_flow(flow) for flow in flows]
    async with bench.worker(processors):
        assert await results(jobs) == [[1, 2], []]


async def test_unique_jobs_and_keyed_ones_keep_their_rules(queue: Queue, bench: Bench) -> None:
    index = Index()
    await queue.limit_key("slow", concurrency=1)
    jobs = await queue.add_many([("index", number, JobOptions(key="slow")) for number in range(2)])
    jobs += await queue.add_many([("index", number, JobOptions(key="free")) for number in (2, 3)])
    once, again = await queue.add_many([("index", number, JobOptions(unique=Unique("once"))) for number in (4, 5)])
    assert (once.is_new, again.is_new, again.id) == (True, False, once.id)
    async with bench.worker(index.registered(size=4)):
        assert await results([*jobs, once]) == [0, 1, 2, 3, 4]
    assert not any({0, 1} <= set(call) for call in index.calls)
    assert sorted(chain(*index.calls)) == [0, 1, 2, 3, 4]


# Timeouts, cancels, stops ---------------------------------------------------------------------------------------------


async def test_a_handler_is_interrupted_when_the_time_of_all_its_jobs_is_up(queue: Queue, bench: Bench) -> None:
    index = Index()
    index.open.clear()
    jobs = await add(queue, 3, options=JobOptions(attempts=1))
    async with bench.worker(index.registered(timeout=0.05)):
        assert await results(jobs) == ["HandlerTimeout: it ran longer than its timeout of 0.05 s"] * 3
    assert index.interrupted == 1


async def test_a_job_whose_time_is_up_is_told_and_the_others_go_on(queue: Queue, bench: Bench) -> None:
    told = asyncio.Event()

    async def index(jobs: Jobs) -> list[Any]:
        await eventually(lambda: jobs[0].cancelled, PATIENCE)
        assert not jobs[1].cancelled
        told.set()
        return ["too late", "in time"]

    processors = Processors()
    processors.register("index", batch=Batch(2, SOON))(index)
    jobs = [await queue.add("index", timeout=0.05, attempts=1), await queue.add("index")]
    async with bench.worker(processors):
        assert await results(jobs) == ["HandlerTimeout: it ran longer than its timeout of 0.05 s", "in time"]
    assert told.is_set()


async def test_what_was_said_of_a_job_before_its_time_was_up_holds(queue: Queue, bench: Bench) -> None:
    async def index(jobs: Jobs) -> None:
        jobs[0].complete("in time")
        await asyncio.Event().wait()

    processors = Processors()
    processors.register("index", batch=Batch(2, SOON), timeout=0.05, attempts=1)(index)
    jobs = await add(queue, 2)
    async with bench.worker(processors):
        assert await results(jobs) == ["in time", "HandlerTimeout: it ran longer than its timeout of 0.05 s"]


async def test_a_job_gets_more_time_by_itself(queue: Queue, bench: Bench) -> None:
    async def index(jobs: Jobs) -> list[str]:
        jobs[0].extend_timeout(PATIENCE)
        await eventually(lambda: jobs[1].cancelled, PATIENCE)
        return ["made it", "did not"]

    processors = Processors()
    processors.register("index", batch=Batch(2, SOON), timeout=0.05, attempts=1)(index)
    jobs = await add(queue, 2)
    async with bench.worker(processors):
        assert await results(jobs) == ["made it", "HandlerTimeout: it ran longer than its timeout of 0.05 s"]


class Left(Observer):
    def __init__(self) -> None:
        self.threads: list[str] = []

    def thread_left(self, queue: str, processor: str) -> None:
        self.threads.append(processor)


async def test_a_thread_that_outlives_the_time_of_all_its_jobs_is_left_and_its_slot_is_free(
    queue: Queue, bench: Bench
) -> None:
    over, left = threading.Event(), Left()

    def index(jobs: Jobs) -> None:
        over.wait(PATIENCE)

    processors = Processors()
    processors.register("index", batch=Batch(2, SOON), timeout=0.05, attempts=1)(index)
    processors.register("mail")(one)
    jobs = await add(queue, 2)
    try:
        async with bench.worker(processors, concurrency=1, observer=left):
            assert await results(jobs) == ["HandlerTimeout: it ran longer than its timeout of 0.05 s"] * 2
            assert await (await queue.add("mail")).result(PATIENCE) == 1
    finally:
        over.set()
    assert left.threads == ["index"]


async def one(job: ActiveJob[Any]) -> int:
    return 1


async def test_a_job_that_is_cancelled_while_it_is_gathered_ends_at_once_and_is_not_given_to_the_handler(
    queue: Queue, bench: Bench
) -> None:
    index = Index()
    jobs = await add(queue, 3)
    async with bench.worker(index.registered(size=10, max_wait=LONG)) as worker:
        await bench.happened("active", jobs[2].id)
        await eventually(lambda: worker.running == 3, PATIENCE)
        await jobs[1].cancel("no need")
        with pytest.raises(JobCancelled, match="no need"):
            await jobs[1].result(PATIENCE)
        snapshot = await jobs[1].snapshot()
        assert snapshot is not None
        assert (snapshot.state, snapshot.attempts_made) == (JobState.CANCELLED, 0)
        worker.flush_batches()
        assert await results([jobs[0], jobs[2]]) == [0, 2]
    assert index.calls == [[0, 2]]


async def test_a_job_of_a_running_batch_that_is_cancelled_is_told_and_ends_so_with_the_batch(
    queue: Queue, bench: Bench
) -> None:
    index = Index()
    index.open.clear()
    jobs = await add(queue, 3)
    async with bench.worker(index.registered()):
        await index.called()
        await jobs[1].cancel("no need")
        await eventually(lambda: index.jobs[0][1].cancelled, PATIENCE)
        assert not index.jobs[0][0].cancelled
        index.open.set()
        assert await results([jobs[0], jobs[2]]) == [0, 2]
        with pytest.raises(JobCancelled, match="no need"):
            await jobs[1].result(PATIENCE)
    assert index.interrupted == 0


async def test_a_handler_is_interrupted_when_all_jobs_of_its_batch_are_cancelled(queue: Queue, bench: Bench) -> None:
    index = Index()
    index.open.clear()
    jobs = await add(queue, 2)
    async with bench.worker(index.registered(size=2)) as worker:
        await index.called()
        for job in jobs:
            await job.cancel()
        for job in jobs:
            with pytest.raises(JobCancelled):
                await job.result(PATIENCE)
        index.open.set()
        assert await results(await add(queue, 2)) == [0, 1]
        assert worker.running == 0
    assert index.interrupted == 1


async def test_a_stop_while_a_batch_fills_up_gives_its_jobs_back_without_an_attempt(queue: Queue, bench: Bench) -> None:
    index = Index()
    jobs = await add(queue, 3)
    worker = bench.worker(index.registered(size=10, max_wait=LONG))
    async with worker:
        await bench.happened("active", jobs[2].id)
        await eventually(lambda: worker.running == 3, PATIENCE)
    assert index.calls == []
    stats = await queue.stats()
    assert (stats.waiting, stats.active) == (3, 0)
    async with bench.worker(Index(lambda jobs: [(job.attempt, job.stalls) for job in jobs]).registered()):
        assert await results(jobs) == [[1, 0]] * 3
    for job in jobs:
        assert await bench.history(job.id, "completed") == ["added", "active", "active", "completed"]


async def test_a_stop_waits_for_a_running_batch(queue: Queue, bench: Bench) -> None:
    index = Index()
    index.open.clear()
    jobs = await add(queue, 3)
    worker = bench.worker(index.registered())
    async with worker:
        await index.called()
        stopping = asyncio.create_task(worker.stop())
        await eventually(worker._stop.is_set, PATIENCE)
        for _ in range(10):
            await asyncio.wait((stopping,), timeout=0)
            assert (await queue.stats()).active == 3
        assert not stopping.done()
        index.open.set()
        await stopping
    assert await results(jobs) == [0, 1, 2]
    assert index.interrupted == 0


async def test_a_batch_that_outlasts_the_grace_is_handed_back_whole_without_an_attempt(
    queue: Queue, bench: Bench
) -> None:
    index = Index()
    index.open.clear()
    jobs = await add(queue, 3)
    async with bench.worker(index.registered()) as worker:
        await index.called()
        await worker.stop(grace=0)
    assert index.interrupted == 1
    stats = await queue.stats()
    assert (stats.waiting, stats.active) == (3, 0)
    async with bench.worker(Index(lambda jobs: [job.attempt for job in jobs]).registered()):
        assert await results(jobs) == [1, 1, 1]


# What is around a run -------------------------------------------------------------------------------------------------


class Notes(Middleware):
    def __init__(self, refuse: Any = None) -> None:
        self.notes: list[str] = []
        self.refuse = refuse

    @asynccontextmanager
    async def running(self, job: ActiveJob[Any]) -> AsyncIterator[None]:
        if job.data == self.refuse:
            raise PermissionError("not this one")
        self.notes.append(f"enter {job.data}")
        try:
            yield
        except LookupError:
            self.notes.append(f"swallow {job.data}")
        except BaseException as error:
            self.notes.append(f"leave {job.data} {type(error).__name__}")
            raise
        else:
            self.notes.append(f"leave {job.data}")


async def test_middleware_is_entered_for_each_job_and_sees_how_it_ended(queue: Queue, bench: Bench) -> None:
    notes = Notes()
    index = Index(lambda jobs: ["fine", ValueError("no"), KeyError("swallowed")])
    jobs = await add(queue, 3, options=JobOptions(attempts=1))
    async with bench.worker(index.registered(), middleware=[notes]):
        assert await results(jobs) == ["fine", "ValueError: no", None]
    assert notes.notes == ["enter 0", "enter 1", "enter 2", "swallow 2", "leave 1 ValueError", "leave 0"]


async def test_a_job_that_its_middleware_refuses_fails_alone_and_is_not_given_to_the_handler(
    queue: Queue, bench: Bench
) -> None:
    index = Index()
    jobs = await add(queue, 3, options=JobOptions(attempts=1))
    async with bench.worker(index.registered(), middleware=[Notes(refuse=1)]):
        assert await results(jobs) == [0, "PermissionError: not this one", 2]
    assert index.calls == [[0, 2]]


async def test_sealed_payloads_are_opened_and_results_sealed(settings: Any, bench: Bench) -> None:
    codec = Compression()
    async with Queue("q", settings=settings, codec=codec) as queue:
        jobs = await queue.add_many([("index", "x" * 2_000, KEPT), ("index", "y" * 2_000, KEPT)])
        async with bench.worker(Index().registered(size=2), codec=codec):
            assert await results(jobs) == ["x" * 2_000, "y" * 2_000]


class BrokenOff(BaseException):
    """What no code that handles errors expects."""


class Awkward(Codec):
    """Raises at the first result that it is to seal."""

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]

    def seal(self, body: bytes) -> bytes:
        if self._errors:
            raise self._errors.pop()
        return body


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (AttributeError("no key"), {0: 2, 1: 1, 2: 1}),
        (BrokenOff("no more"), {0: 2, 1: 2, 2: 2}),
        (asyncio.CancelledError(), {0: 2, 1: 2, 2: 2}),
    ],
)
async def test_whatever_sealing_a_result_raises_costs_an_attempt_and_cancels_no_job(
    queue: Queue, bench: Bench, error: BaseException, attempts: dict[int, int]
) -> None:
    jobs = await add(queue, 3, options=JobOptions(attempts=2, backoff=Backoff.fixed(0)))
    async with bench.worker(Index().registered(), codec=Awkward(error), concurrency=1):
        assert await results(jobs) == [0, 1, 2]
    seen = [await job.snapshot() for job in jobs]
    assert {number: one.attempts_made for number, one in enumerate(seen) if one is not None} == attempts
    errors = [one.errors[1].type for one in seen if one is not None and one.errors]
    assert errors == [type(error).__name__] * sum(made == 2 for made in attempts.values())


class Ends(Observer):
    def __init__(self) -> None:
        self.ends: list[tuple[str, str, int]] = []

    def ended(self, queue: str, processor: str, outcome: str, ran: float, waited: float, attempt: int) -> None:
        self.ends.append((processor, outcome, attempt))


async def test_observers_are_told_of_each_job(queue: Queue, bench: Bench) -> None:
    ends = Ends()
    jobs = await add(queue, 3, options=JobOptions(attempts=1))
    async with bench.worker(Index(lambda jobs: [1, ValueError(), Snooze(LONG)]).registered(), observer=ends):
        await results(jobs[:2])
        await bench.happened("delayed", jobs[2].id)
    assert ends.ends == [("index", "done", 1), ("index", "fail", 1), ("index", "release", 1)]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_lines_of_a_handler_name_its_jobs_and_lines_of_a_job_that_one(
    queue: Queue, bench: Bench, caplog: pytest.LogCaptureFixture, in_thread: bool
) -> None:
    def write(jobs: Jobs) -> None:
        logging.getLogger("mine").info("all of them")
        jobs[1].logger.info("this one")

    async def write_on_the_loop(jobs: Jobs) -> None:
        write(jobs)

    processors = Processors()
    processors.register("index", batch=Batch(2, SOON))(write if in_thread else write_on_the_loop)
    jobs = await add(queue, 2)
    bound = JobFilter()
    caplog.handler.addFilter(bound)
    try:
        with caplog.at_level(logging.INFO):
            async with bench.worker(processors):
                await results(jobs)
    finally:
        caplog.handler.removeFilter(bound)
    found = {record.getMessage(): vars(record) for record in caplog.records}
    one, two = (job.id for job in jobs)
    assert found["all of them"]["job_ids"] == f"{one},{two}"
    assert "job_id" not in found["all of them"]
    assert (found["this one"]["job_id"], found["this one"]["attempt"]) == (two, 1)
    ends = [vars(record)["job_id"] for record in caplog.records if vars(record).get("event") == "attempt_ended"]
    assert ends == [one, two]


# Tests and flat functions ---------------------------------------------------------------------------------------------


async def test_a_drain_waits_for_no_batch_to_fill_up(queue: Queue) -> None:
    index = Index(lambda jobs: [None, *(ValueError() for _ in jobs[1:])])
    await add(queue, 7, options=JobOptions(attempts=1))
    found = await drain(queue, index.registered(size=5, max_wait=LONG))
    assert (found.done, found.failed) == (2, 5)
    assert index.calls == [[0, 1, 2, 3, 4], [5, 6]]


async def test_inline_adds_run_as_batches_and_what_a_handler_adds_runs_too(queue: Queue) -> None:
    processors, seen = Processors(), list[int]()

    @processors.register("index", batch=Batch(10, LONG))
    async def index(jobs: Jobs) -> None:
        for job in jobs:
            seen.append(job.data)
            if job.data < 2:
                await queue.add("index", job.data + 10)

    async with inline(queue, processors):
        await queue.add_many([("index", 1), ("index", 5)])
    assert sorted(seen) == [1, 5, 11]


async def test_a_worker_of_the_flat_style_takes_them_too(
    queue: Queue, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    worker = create_worker("q", Index().registered())
    try:
        assert await results(await add(queue, 3)) == [0, 1, 2]
    finally:
        await worker.stop()
        await close_all_queues()
