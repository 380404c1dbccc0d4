"""streamq.testing on a real server: drain, inline, time travel, assertions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamq import (
    ActiveJob,
    Backoff,
    FlowJob,
    InvalidInput,
    JobFailed,
    JobOptions,
    JobState,
    Processors,
    Queue,
    Retention,
    Settings,
    Snooze,
    Unrecoverable,
)
from streamq._engine import scripts
from streamq.testing import Drained, assert_added, assert_not_added, drain, inline, time_travel
from tests.integration.conftest import Bench
from tests.servers import RedisServer

HOUR = 3_600


class Book:
    """Processors that write down what they run."""

    def __init__(self, queue: Queue) -> None:
        self.ran: list[Any] = []
        self.processors = Processors()
        self.processors.register("note", attempts=1)(self.note)
        self.processors.register("fails", attempts=2, backoff=Backoff.fixed(60))(self.fails)
        self.processors.register("snoozes")(self.snoozes)
        self.processors.register("adds")(self.adds)
        self._queue = queue

    async def note(self, job: ActiveJob[Any]) -> Any:
        self.ran.append(job.data)
        return job.data

    async def fails(self, job: ActiveJob[Any]) -> None:
        self.ran.append(job.attempt)
        raise ValueError("no luck")

    async def snoozes(self, job: ActiveJob[Any]) -> None:
        self.ran.append("zzz")
        raise Snooze(60)

    async def adds(self, job: ActiveJob[Any]) -> None:
        await self._queue.add("note", job.data)
        self.ran.append("added")


@pytest.fixture
def book(queue: Queue) -> Book:
    return Book(queue)


# Drain ----------------------------------------------------------------------------------------------------------------


async def test_drain_runs_what_waits_one_at_a_time_and_in_order(queue: Queue, book: Book) -> None:
    await queue.add_many([("note", n) for n in range(50)])
    assert await drain(queue, book.processors) == Drained(50, 0, 0, 0)
    assert book.ran == list(range(50))
    assert (await queue.stats()).completed == 50


async def test_drain_of_an_empty_queue_does_nothing(queue: Queue, book: Book) -> None:
    assert (await drain(queue, book.processors)).total == 0


async def test_drain_runs_what_handlers_add(queue: Queue, book: Book) -> None:
    await queue.add("adds", 5)
    assert (await drain(queue, book.processors)).done == 2
    assert book.ran == ["added", 5]


async def test_drain_leaves_what_is_delayed_and_tells_of_failures(queue: Queue, book: Book) -> None:
    await queue.add("note", 1, delay=60)
    await queue.add("fails")
    await queue.add("snoozes")
    await queue.add("unknown")
    await queue.add("fails", attempts=1)
    assert await drain(queue, book.processors) == Drained(done=0, failed=1, retried=1, put_off=2)
    stats = await queue.stats()
    assert (stats.delayed, stats.failed, stats.waiting) == (4, 1, 0)


async def test_attempts_that_wait_for_children_or_are_cancelled_are_counted_too(queue: Queue) -> None:
    async def parent(job: ActiveJob[Any]) -> int:
        if not job.children:
            await job.add_children([FlowJob("child")])
        return len(await job.child_ends())

    async def child(job: ActiveJob[Any]) -> None:
        await queue.cancel(job.id)

    await queue.add("parent")
    found = await drain(queue, {"parent": parent, "child": child})
    assert found == Drained(done=0, failed=0, retried=0, put_off=1, cancelled=1)
    assert found.total == 2


async def test_a_queue_of_which_only_paused_keys_jobs_wait_is_idle(queue: Queue) -> None:
    book = Book(queue)
    await queue.pause_key("tenant")
    await queue.add_many([("note", at, JobOptions(key="tenant")) for at in range(3)])
    await queue.add("note", "free")
    assert await drain(queue, book.processors) == Drained(1, 0, 0, 0)
    assert book.ran == ["free"]
    await queue.resume_key("tenant")
    await drain(queue, book.processors)
    assert book.ran == ["free", 0, 1, 2]


async def test_drain_runs_several_at_once_if_asked(queue: Queue) -> None:
    met = asyncio.Barrier(3)

    async def meets(job: ActiveJob[Any]) -> None:
        await met.wait()

    await queue.add_many([("meets", None)] * 3)
    assert (await drain(queue, meets, concurrency=3)).done == 3


async def test_drain_waits_for_what_others_run(queue: Queue, bench: Bench, book: Book) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def slow(job: ActiveJob[Any]) -> None:
        started.set()
        await go.wait()

    async with bench.worker(slow, concurrency=1):
        slow_one = await queue.add("slow")
        await started.wait()
        note = await queue.add("note", 1)
        draining = asyncio.create_task(drain(queue, book.processors))
        await bench.happened("completed", note.id)
        assert not draining.done()
        go.set()
        assert (await draining).done == 1
        await slow_one.result(20)


async def test_a_paused_queue_is_idle(queue: Queue, book: Book) -> None:
    await queue.pause()
    await queue.add("note", 1)
    assert (await drain(queue, book.processors)).total == 0
    assert (await queue.stats()).waiting == 1


async def test_a_drain_that_takes_too_long_says_what_was_left_and_hands_it_back(queue: Queue) -> None:
    async def hangs(job: ActiveJob[Any]) -> None:
        await asyncio.Event().wait()

    await queue.add_many([("hangs", None)] * 2)
    with pytest.raises(TimeoutError, match=r"queue q was not idle within 0\.2 s: 1 jobs waited, 1 ran, 0 were delayed"):
        await drain(queue, hangs, timeout=0.2)
    stats = await queue.stats()
    assert (stats.waiting, stats.active) == (2, 0)


# Inline ---------------------------------------------------------------------------------------------------------------


async def test_inline_an_add_returns_when_its_job_has_run(queue: Queue, book: Book) -> None:
    async with inline(queue, book.processors):
        job = await queue.add("note", 1)
        assert book.ran == [1]
        assert await job.result() == 1
        await queue.add_many([("note", 2), ("note", 3)])
        assert book.ran == [1, 2, 3]
    await queue.add("note", 4)
    assert book.ran == [1, 2, 3]


async def test_inline_what_a_handler_adds_runs_before_the_add_returns(queue: Queue, book: Book) -> None:
    async with inline(queue, book.processors):
        await queue.add("adds", 5)
    assert book.ran == ["added", 5]


async def test_inline_an_add_raises_how_its_job_failed(queue: Queue, book: Book) -> None:
    async with inline(queue, book.processors):
        with pytest.raises(JobFailed, match="job 1 failed: ValueError: no luck"):
            await queue.add("fails")  # to be retried
        with pytest.raises(JobFailed, match="job 2 failed: ValueError: no luck"):
            await queue.add("fails", attempts=1)
    async with inline(queue, book.processors, raise_failures=False):
        job = await queue.add("fails", attempts=1)
    assert (await queue.get_job(job.id)).state == JobState.FAILED  # type: ignore[union-attr]


async def test_inline_durable_adds_run_too(server: RedisServer) -> None:
    async with Queue("q", redis=server.url) as queue:
        book = Book(queue)
        async with inline(queue, book.processors):
            await queue.add("note", 1, durable=True)
        assert book.ran == [1]


# Time travel ----------------------------------------------------------------------------------------------------------


async def test_a_delayed_job_runs_when_the_clock_has_moved_past_its_time(queue: Queue, book: Book) -> None:
    await queue.add("note", 1, delay=HOUR)
    with time_travel() as clock:
        clock.advance(HOUR - 60)
        assert (await drain(queue, book.processors)).total == 0
        clock.advance(timedelta(minutes=1))
        assert (await drain(queue, book.processors)).done == 1
        assert clock.offset == HOUR


async def test_a_retry_with_a_backoff_runs_when_the_clock_has_moved(queue: Queue, book: Book) -> None:
    job = await queue.add("fails")
    with time_travel() as clock:
        assert (await drain(queue, book.processors)).retried == 1
        clock.advance(60)
        assert (await drain(queue, book.processors)).failed == 1
    assert book.ran == [1, 2]
    assert (await queue.get_job(job.id)).state == JobState.FAILED  # type: ignore[union-attr]


async def test_a_schedule_fires_at_each_slot_that_the_clock_comes_to(queue: Queue, book: Book) -> None:
    with time_travel() as clock:
        await queue.upsert_schedule("nightly", cron="0 3 * * *", name="note", data="night")
        for _ in range(3):
            schedule = await queue.get_schedule("nightly")
            assert schedule is not None
            assert schedule.next_at is not None
            clock.travel_to(schedule.next_at + timedelta(seconds=1))
            assert (await drain(queue, book.processors)).done == 1
    assert book.ran == ["night"] * 3


async def test_what_is_due_at_once_runs_in_one_drain_however_much_it_is(queue: Queue, book: Book) -> None:
    await queue.add_many([("note", n, JobOptions(delay=60 + n)) for n in range(450)])
    with time_travel() as clock:
        clock.advance(60 + 450)
        assert (await drain(queue, book.processors, concurrency=20)).done == 450


async def test_retention_goes_by_the_travelled_clock(queue: Queue, book: Book) -> None:
    job = await queue.add("note", 1, keep_completed=Retention(count=10, age=HOUR))
    await drain(queue, book.processors)
    with time_travel() as clock:
        clock.advance(2 * HOUR)
        await drain(queue, book.processors)
    assert await queue.get_job(job.id) is None


async def test_the_present_is_back_when_the_block_ends(queue: Queue, book: Book) -> None:
    plain = {name: scripts.load(name) for name in scripts.names()}
    before = await queue._store.now_ms()
    with time_travel() as clock:
        clock.advance(HOUR)
        assert await queue._store.now_ms() >= before + HOUR * 1000
        assert clock.now() > datetime.now(UTC) + timedelta(minutes=59)
        assert (await queue.add("note", 1, delay=1)).is_new
    assert {name: scripts.load(name) for name in scripts.names()} == plain
    assert await queue._store.now_ms() < before + HOUR * 1000


def test_every_script_that_reads_the_clock_reads_the_moved_one() -> None:
    reading = [name for name in scripts.names() if "redis.call('TIME')" in scripts.load(name).body]
    plain = {name: scripts.load(name).body for name in reading}
    assert {"add", "tick", "fire"} <= set(reading)
    with time_travel() as clock:
        clock.advance(5)
        for name in reading:
            assert "* 1000 + 5000 +" in scripts.load(name).body
            assert scripts.load(name).body.replace(" + 5000", "", 1) == plain[name]


def test_nobody_travels_back() -> None:
    with time_travel() as clock:
        with pytest.raises(InvalidInput, match="the time to advance by must be between 0"):
            clock.advance(-1)
        with pytest.raises(InvalidInput, match="the time to advance by must be between 0"):
            clock.travel_to(datetime.now(UTC) - timedelta(days=1))
        with pytest.raises(InvalidInput, match="travel_to takes a datetime with a time zone"):
            clock.travel_to(datetime(2030, 1, 1))


# Assertions -----------------------------------------------------------------------------------------------------------


async def test_a_job_is_found_by_name_and_data_wherever_it_is(queue: Queue, settings: Settings) -> None:
    async def run(job: ActiveJob[Any]) -> None:
        if job.data == "bad":
            raise Unrecoverable("as asked")

    await queue.add_many([("done", {"to": "ada"}), ("done", "bad")])
    await drain(queue, run)
    await queue.add("done", {"to": "eve"}, delay=60)
    await queue.add("waits", [1, 2])
    assert (await assert_added(queue, "done", {"to": "ada"})).state == JobState.COMPLETED
    assert (await assert_added(queue, "done", "bad", state=JobState.FAILED)).error is not None
    assert (await assert_added(queue, "done", data={"to": "eve"})).state == JobState.DELAYED
    await assert_added(queue, "waits", data=[1, 2], count=1)
    await assert_added(queue, "done", count=3)
    await assert_not_added(queue, "waits", data=[1])
    await assert_not_added(queue, "never")


async def test_an_assertion_that_fails_says_what_the_queue_holds(queue: Queue) -> None:
    with pytest.raises(AssertionError, match="a job 'send' should have been added to queue q; it holds no job"):
        await assert_added(queue, "send")
    await queue.add("send", {"to": "ada"})
    with pytest.raises(AssertionError) as told:
        await assert_added(queue, "send", {"to": "eve"})
    assert str(told.value) == (
        "a job 'send' with the data {'to': 'eve'} should have been added to queue q; it holds \n"
        "  1 send {'to': 'ada'} waiting"
    )
    with pytest.raises(AssertionError, match="exactly 2 jobs 'send' should have been added to queue q; 1 were, and it"):
        await assert_added(queue, "send", count=2)
    with pytest.raises(AssertionError, match="no job 'send' should have been added to queue q; it holds"):
        await assert_not_added(queue, "send")
    await queue.add_many([("other", n) for n in range(30)])
    with pytest.raises(AssertionError, match=r"and 11 more$"):
        await assert_added(queue, "gone")
