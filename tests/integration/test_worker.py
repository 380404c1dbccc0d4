"""A worker: how many at once, in which order, what each ending of a handler does, and how it stops."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import msgspec
import pytest
import redis

from streamq import (
    Backoff,
    InvalidInput,
    JobFailed,
    JobOptions,
    JobState,
    Priority,
    Processors,
    Queue,
    RateLimited,
    Retention,
    RetryAfter,
    Settings,
    Snooze,
    Unrecoverable,
    Worker,
)
from streamq._engine import codec
from streamq.payload import Codec
from tests.faults.workers import eventually
from tests.integration.conftest import PATIENCE, Bench


async def echoes(job: Any) -> Any:
    return job.data


class Gate:
    """A handler that says it runs and waits to be let through."""

    def __init__(self) -> None:
        self.running = self.peak = 0
        self.started: list[Any] = []
        self.open = asyncio.Event()
        self._changed = asyncio.Event()

    async def __call__(self, job: Any) -> Any:
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.started.append(job.data)
        self._changed.set()
        try:
            await self.open.wait()
        finally:
            self.running -= 1
        return job.data

    async def runs(self, count: int) -> None:
        """Wait until so many run at once."""
        async with asyncio.timeout(PATIENCE):
            while self.running < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def gate() -> Gate:
    return Gate()


def handler(function: Any) -> Any:
    """Make a plain async function of a callable object: what a worker takes."""

    async def handle(job: Any) -> Any:
        return await function(job)

    return handle


# How many, and in which order -----------------------------------------------------------------------------------------


async def test_no_more_run_at_once_than_the_concurrency(queue: Queue, bench: Bench, gate: Gate) -> None:
    jobs = await queue.add_many([("a", n) for n in range(12)])
    async with bench.worker(handler(gate), concurrency=3) as worker:
        await gate.runs(3)
        assert worker.running == 3
        stats = await queue.stats()
        assert (stats.active, stats.waiting) == (3, 9)
        gate.open.set()
        assert await asyncio.gather(*(job.result(PATIENCE) for job in jobs)) == list(range(12))
        assert worker.running == 0
    assert gate.peak == 3


async def test_a_free_slot_is_filled_while_others_are_busy(queue: Queue, bench: Bench, gate: Gate) -> None:
    async with bench.worker({"slow": handler(gate), "quick": echoes}, concurrency=2):
        await queue.add("slow")
        await gate.runs(1)
        for n in range(20):
            assert await (await queue.add("quick", n)).result(PATIENCE) == n
        gate.open.set()


async def test_urgent_jobs_come_first_and_equal_ones_in_order(queue: Queue, bench: Bench) -> None:
    specs = [(4, "d1"), (3, "c1"), (1, "a1"), (2, "b1"), (1, "a2"), (4, "d2"), (3, "c2"), (2, "b2")]
    jobs = await queue.add_many([("a", text, JobOptions(priority=Priority(lane))) for lane, text in specs])
    order: list[str] = []

    async def run(job: Any) -> None:
        order.append(job.data)

    async with bench.worker(run, concurrency=1):
        await asyncio.gather(*(job.result(PATIENCE) for job in jobs))
    assert order == ["a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2"]


async def test_two_workers_share_a_queue_and_run_each_job_once(queue: Queue, bench: Bench) -> None:
    ran: list[int] = []

    async def run(job: Any) -> None:
        ran.append(job.data)

    jobs = await queue.add_many([("a", n, JobOptions(keep_completed=Retention(1_000))) for n in range(300)])
    async with bench.worker(run), bench.worker(run):
        await asyncio.gather(*(job.result(PATIENCE) for job in jobs))
    assert sorted(ran) == list(range(300))


async def test_an_idle_worker_takes_a_job_that_is_added(queue: Queue, bench: Bench) -> None:
    async with bench.worker(echoes) as worker:
        for n in range(30):
            assert await (await queue.add("a", n)).result(PATIENCE) == n
        assert worker.healthy
        assert worker.stale_outcomes == 0


# Retries --------------------------------------------------------------------------------------------------------------


async def test_a_job_that_fails_is_retried_after_its_backoff_until_its_attempts_are_used(
    queue: Queue, bench: Bench
) -> None:
    seen: list[tuple[int, int, int]] = []

    async def run(job: Any) -> None:
        seen.append((job.attempt, job.attempts, job.attempts_made))
        raise ValueError(f"attempt {job.attempt}")

    job = await queue.add("a", attempts=3, backoff=Backoff.fixed(0.05))
    async with bench.worker(run):
        with pytest.raises(JobFailed, match="ValueError: attempt 3"):
            await job.result(PATIENCE)
    assert seen == [(1, 3, 0), (2, 3, 1), (3, 3, 2)]
    found = await job.snapshot()
    assert found is not None
    assert found.attempts_made == 3
    retried, promoted = await bench.happened("retrying", job.id), await bench.happened("promoted", job.id)
    assert (promoted.at - retried.at).total_seconds() >= 0.05


async def test_a_retry_that_succeeds_completes_the_job_and_its_last_error_can_be_seen(
    queue: Queue, bench: Bench
) -> None:
    async def run(job: Any) -> str:
        if job.attempt < 3:
            raise ValueError(f"attempt {job.attempt}")
        return "at last"

    job = await queue.add("a", backoff=Backoff.fixed(0))
    async with bench.worker(run):
        assert await job.result(PATIENCE) == "at last"
    found = await job.snapshot()
    assert found is not None
    assert (found.state, found.attempts_made) == (JobState.COMPLETED, 3)


async def test_a_processors_own_backoff_function_decides(queue: Queue, bench: Bench) -> None:
    asked: list[tuple[int, str]] = []

    def backoff(attempt: int, error: BaseException) -> float:
        asked.append((attempt, str(error)))
        return 0.0

    processors = Processors()

    @processors.register("a", backoff=backoff, attempts=3)
    async def run(job: Any) -> None:
        raise ValueError(f"attempt {job.attempt}")

    job = await queue.add("a")
    async with bench.worker(processors):
        with pytest.raises(JobFailed):
            await job.result(PATIENCE)
    assert asked == [(1, "attempt 1"), (2, "attempt 2")]


async def test_what_a_job_says_comes_before_what_its_processor_says(queue: Queue, bench: Bench) -> None:
    processors = Processors()
    seen: list[int] = []

    @processors.register("a", attempts=5, backoff=Backoff.fixed(3_600), timeout=3_600)
    async def run(job: Any) -> None:
        seen.append(job.attempts)
        await asyncio.Event().wait()

    job = await queue.add("a", attempts=2, backoff=Backoff.fixed(0), timeout=0.02)
    async with bench.worker(processors):
        with pytest.raises(JobFailed, match=r"HandlerTimeout: it ran longer than its timeout of 0\.02 s"):
            await job.result(PATIENCE)
    assert seen == [2, 2]


async def test_an_unrecoverable_error_is_not_retried(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> None:
        raise Unrecoverable("closed")

    job = await queue.add("a", attempts=50)
    async with bench.worker(run):
        with pytest.raises(JobFailed, match="Unrecoverable: closed"):
            await job.result(PATIENCE)
    found = await job.snapshot()
    assert found is not None
    assert found.attempts_made == 1


async def test_a_handler_may_say_when_to_retry(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> int:
        if job.attempt == 1:
            raise RetryAfter(0.03)
        return int(job.attempt)

    job = await queue.add("a", attempts=2, backoff=Backoff.fixed(3_600))
    async with bench.worker(run):
        assert await job.result(PATIENCE) == 2


async def test_a_snooze_runs_the_job_again_and_uses_no_attempt(queue: Queue, bench: Bench) -> None:
    seen: list[int] = []

    async def run(job: Any) -> None:
        seen.append(job.attempt)
        if len(seen) < 4:
            raise Snooze(0.01)

    job = await queue.add("a", attempts=1)
    async with bench.worker(run):
        await job.result(PATIENCE)
    assert seen == [1, 1, 1, 1]
    found = await job.snapshot()
    assert found is not None
    assert (found.attempts_made, found.interruptions) == (1, 0)


async def test_a_rate_limited_job_holds_the_whole_queue_and_uses_no_attempt(queue: Queue, bench: Bench) -> None:
    seen: list[str] = []

    async def run(job: Any) -> None:
        seen.append(job.data)
        if len(seen) == 1:
            raise RateLimited(0.1)

    first, second = await queue.add_many([("a", "first"), ("a", "second")])
    async with bench.worker(run, concurrency=1):
        await asyncio.gather(first.result(PATIENCE), second.result(PATIENCE))
    assert seen[0] == "first"
    assert sorted(seen) == ["first", "first", "second"]
    held, started = await bench.happened("delayed", first.id), await bench.happened("active", second.id)
    assert (started.at - held.at).total_seconds() >= 0.1


async def test_a_timeout_cancels_the_handler(queue: Queue, bench: Bench) -> None:
    cancelled = asyncio.Event()

    async def run(job: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    job = await queue.add("a", attempts=1, timeout=0.02)
    async with bench.worker(run):
        with pytest.raises(JobFailed, match="HandlerTimeout"):
            await job.result(PATIENCE)
    assert cancelled.is_set()


async def test_a_handlers_own_timeout_is_its_own_error(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> None:
        raise TimeoutError("the bank's server did not answer")

    job = await queue.add("a", attempts=1, timeout=60)
    async with bench.worker(run):
        with pytest.raises(JobFailed, match="TimeoutError: the bank's server did not answer"):
            await job.result(PATIENCE)


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [SystemExit, KeyboardInterrupt, asyncio.CancelledError, StopIteration, StopAsyncIteration, GeneratorExit, Odd],
)
@pytest.mark.parametrize("threaded", [False, True])
async def test_whatever_a_handler_raises_fails_its_job_and_not_the_worker(
    queue: Queue, bench: Bench, error: type[BaseException], threaded: bool
) -> None:
    async def raises(job: Any) -> None:
        raise error

    def raises_in_a_thread(job: Any) -> None:
        raise error

    async with bench.worker({"bad": raises_in_a_thread if threaded else raises, "good": echoes}):
        bad = await queue.add("bad", attempts=1)
        with pytest.raises(JobFailed):
            await bad.result(PATIENCE)
        assert await (await queue.add("good", 5)).result(PATIENCE) == 5


@pytest.mark.parametrize(("result", "text"), [(object(), "ResultNotEncodable"), (b"x" * 2_000_000, "ResultTooLarge")])
async def test_a_result_that_cannot_be_stored_fails_the_job_and_is_not_retried(
    queue: Queue, bench: Bench, result: Any, text: str
) -> None:
    ran: list[int] = []

    async def run(job: Any) -> Any:
        ran.append(1)
        return result

    job = await queue.add("a", attempts=5)
    async with bench.worker(run):
        with pytest.raises(JobFailed, match=text):
            await job.result(PATIENCE)
    assert len(ran) == 1


# What a processor may be ----------------------------------------------------------------------------------------------


async def test_a_plain_function_runs_in_a_thread_and_its_progress_blocks(queue: Queue, bench: Bench) -> None:
    go_on = threading.Event()
    seen: list[str] = []

    def run(job: Any) -> str:
        job.progress(50)
        job.log("half")
        seen.append(threading.current_thread().name)
        if not go_on.wait(PATIENCE):
            raise TimeoutError
        return "done"

    job = await queue.add("a")
    async with bench.worker(run):
        await bench.happened("progress", job.id)
        found = await job.snapshot()
        assert found is not None
        assert (found.state, found.progress) == (JobState.ACTIVE, 50)
        go_on.set()
        assert await job.result(PATIENCE) == "done"
    assert seen[0].startswith("streamq-job")


async def test_a_thread_sees_the_context_of_its_worker(queue: Queue, bench: Bench) -> None:
    tenant = contextvars.ContextVar("tenant", default="none")
    tenant.set("bank")

    async with bench.worker(lambda job: tenant.get()):
        assert await (await queue.add("a")).result(PATIENCE) == "bank"


async def test_threads_block_nobody_on_the_loop(queue: Queue, bench: Bench) -> None:
    go_on = threading.Event()
    blocked = await queue.add("blocks")
    async with bench.worker({"blocks": lambda job: go_on.wait(PATIENCE), "quick": echoes}, concurrency=2):
        await bench.happened("active", blocked.id)
        assert await (await queue.add("quick", 5)).result(PATIENCE) == 5
        go_on.set()
        assert await blocked.result(PATIENCE) is True


async def test_progress_that_cannot_be_encoded_is_the_handlers_error(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> str:
        with pytest.raises(InvalidInput, match="progress would not come back"):
            await job.progress({1, 2})
        await job.progress({"rows": 5})
        return "went on"

    job = await queue.add("a")
    async with bench.worker(run):
        assert await job.result(PATIENCE) == "went on"
    found = await job.snapshot()
    assert found is not None
    assert found.progress == {"rows": 5}


async def test_a_class_is_made_once_and_handles_all_its_jobs(queue: Queue, bench: Bench) -> None:
    processors = Processors()

    @processors.register("count")
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        async def process(self, job: Any) -> int:
            self.count += 1
            return self.count

    async with bench.worker(processors):
        results = [await (await queue.add("count")).result(PATIENCE) for _ in range(3)]
    assert results == [1, 2, 3]


class Report(msgspec.Struct):
    month: int
    year: int = 2026


async def test_data_is_decoded_to_the_processors_type(queue: Queue, bench: Bench) -> None:
    processors = Processors()

    @processors.register("report", data=Report)
    async def report(job: Any) -> Any:
        assert isinstance(job.data, Report)
        return job.data

    async with bench.worker(processors):
        assert await (await queue.add("report", {"month": 11})).result(PATIENCE) == {"month": 11, "year": 2026}
        assert await (await queue.add("report", Report(5))).result(PATIENCE) == {"month": 5, "year": 2026}


async def test_data_that_does_not_fit_fails_at_once(queue: Queue, bench: Bench) -> None:
    processors = Processors()
    ran: list[Any] = []

    @processors.register("report", data=Report, attempts=5)
    async def report(job: Any) -> None:
        ran.append(job)

    job = await queue.add("report", {"month": "eleven"})
    async with bench.worker(processors):
        with pytest.raises(JobFailed) as raised:
            await job.result(PATIENCE)
    assert raised.value.error == (
        "Unrecoverable: its data does not fit the processor of 'report': "
        "Expected `int`, got `str` - at `$.month`"
    )  # fmt: skip
    assert ran == []
    found = await job.snapshot()
    assert found is not None
    assert found.attempts_made == 1


def test_a_type_that_no_data_can_be_decoded_to_is_refused_before_the_worker_runs(settings: Settings) -> None:
    processors = Processors()
    processors.register("report", data=Report | dict, queue="q")(echoes)
    with pytest.raises(InvalidInput, match=r"processor 'report': no data can be decoded to its type: .*dict-like"):
        Worker("q", processors, settings=settings)
    Worker("another", processors, settings=settings)


@dataclass
class Raising:
    """A type of data whose own check raises what is not about the data, the first time."""

    number: int
    checked: ClassVar[int] = 0

    def __post_init__(self) -> None:
        Raising.checked += 1
        if Raising.checked == 1:
            raise LookupError("the table of numbers is not there yet")


async def test_whatever_the_type_of_the_data_raises_costs_an_attempt_and_no_slot(queue: Queue, bench: Bench) -> None:
    processors = Processors()
    Raising.checked = 0

    @processors.register("report", data=Raising)
    async def report(job: Any) -> int:
        number: int = job.data.number
        return number

    job = await queue.add("report", {"number": 7}, attempts=2, backoff=Backoff.fixed(0))
    async with bench.worker(processors, concurrency=1):
        assert await job.result(PATIENCE) == 7
    seen = await job.snapshot()
    assert seen is not None
    assert (seen.attempts_made, str(seen.errors[1])) == (2, "LookupError: the table of numbers is not there yet")


class Awkward(Codec):
    """A codec of a user's own, which raises at the first call of `open` or of `seal`."""

    def __init__(self, at: str) -> None:
        self._at, self._left = at, 1

    def seal(self, body: bytes) -> bytes:
        return self._pass("seal", body)

    def open(self, body: bytes) -> bytes:
        return self._pass("open", body)

    def _pass(self, call: str, body: bytes) -> bytes:
        if call == self._at and self._left:
            self._left -= 1
            raise AttributeError(f"{call} has no key")
        return body


@pytest.mark.parametrize(("at", "ran"), [("open", [2]), ("seal", [1, 2])])
async def test_whatever_a_codec_raises_costs_an_attempt_and_no_slot(
    queue: Queue, bench: Bench, at: str, ran: list[int]
) -> None:
    runs: list[int] = []

    async def run(job: Any) -> Any:
        runs.append(job.attempt)
        return job.data

    job = await queue.add("a", 7, attempts=2, backoff=Backoff.fixed(0))
    async with bench.worker(run, concurrency=1, codec=Awkward(at)):
        assert await job.result(PATIENCE) == 7
    seen = await job.snapshot()
    assert seen is not None
    assert (seen.attempts_made, str(seen.errors[1])) == (2, f"AttributeError: {at} has no key")
    assert runs == ran


async def test_bytes_that_are_no_job_fail_and_block_nobody(queue: Queue, bench: Bench, client: redis.Redis) -> None:
    client.xadd("sq:{q}:lane:3", {"d": b"not a job", "t": 1}, id="1-0")
    client.set("sq:{q}:id", 1)
    async with bench.worker(echoes):
        assert await (await queue.add("a", 5)).result(PATIENCE) == 5
        await bench.happened("failed", "1")
    found = await queue.get_job("1")
    assert found is not None
    assert found.error is not None
    assert (found.name, found.data, found.error.type) == ("", None, "BadEnvelope")


async def test_data_that_cannot_be_decoded_fails_its_job_and_hides_no_other(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    bad = codec.encode_envelope("a", b"\xa1\xff", None)  # text that is no UTF-8
    client.xadd("sq:{q}:lane:3", {"d": bad, "t": 1}, id="1-0")
    client.set("sq:{q}:id", 1)
    good = await queue.add("a", 5)
    assert [(job.id, job.data) for job in await queue.jobs(JobState.WAITING)] == [("1", None), (good.id, 5)]
    async with bench.worker(echoes):
        assert await good.result(PATIENCE) == 5
        with pytest.raises(JobFailed, match="its data does not fit the processor of"):
            await queue.result("1", PATIENCE)
    (letter,) = await queue.dead_letters()
    assert (letter.job_id, letter.name, letter.data) == ("1", "a", None)


async def test_a_job_that_a_worker_does_not_know_waits_for_one_that_does(queue: Queue, bench: Bench) -> None:
    job = await queue.add("new-report", 5, attempts=1)
    async with bench.worker({"old-report": echoes}):
        await bench.happened("delayed", job.id)
    found = await job.snapshot()
    assert found is not None
    assert (found.state, found.attempts_made) == (JobState.DELAYED, 0)
    async with bench.worker({"new-report": echoes}):
        assert await job.result(PATIENCE) == 5


async def test_a_queues_own_processor_comes_before_one_for_any_queue(queue: Queue, bench: Bench) -> None:
    processors = Processors()
    processors.register("a", queue="q")(lambda job: "own")
    processors.register("a")(lambda job: "any")
    processors.register("*")(lambda job: "rest")
    async with bench.worker(processors):
        assert await (await queue.add("a")).result(PATIENCE) == "own"
        assert await (await queue.add("b")).result(PATIENCE) == "rest"


# What is kept ---------------------------------------------------------------------------------------------------------


async def test_the_latest_completed_jobs_are_kept(queue: Queue, bench: Bench) -> None:
    keep = JobOptions(keep_completed=Retention(3))
    jobs = await queue.add_many([("a", n, keep) for n in range(10)])
    async with bench.worker(echoes, concurrency=1):
        await bench.happened("completed", jobs[-1].id)
    assert [n for n, job in enumerate(jobs) if await job.snapshot() is not None] == [7, 8, 9]
    assert (await queue.stats()).completed == 3


async def test_old_ended_jobs_go_though_nothing_new_ends(queue: Queue, bench: Bench) -> None:
    job = await queue.add("a", keep_completed=Retention(100, 0.2))
    async with bench.worker(echoes, settings=msgspec.structs.replace(bench.settings, lease=0.5)):
        await bench.happened("completed", job.id)

        async def gone() -> bool:
            return await job.snapshot() is None

        await eventually(gone, PATIENCE)
    assert (await queue.stats()).completed == 0


async def test_a_dead_letter_holds_the_job_and_why_it_failed(queue: Queue, bench: Bench, client: redis.Redis) -> None:
    async def run(job: Any) -> None:
        raise Unrecoverable("closed")

    job = await queue.add("a", {"account": 17}, priority=Priority.HIGH, keep_failed=Retention(0))
    async with bench.worker(run):
        await bench.happened("dead", job.id)
    assert await job.snapshot() is None
    ((_, letter),) = client.xrange("sq:{q}:dead")
    assert (letter[b"j"], letter[b"p"]) == (job.id.encode(), b"2")
    envelope = codec.decode_envelope(letter[b"d"])
    assert (envelope.name, codec.decode(bytes(envelope.data))) == ("a", {"account": 17})
    error = codec.decode_error(letter[b"x"])
    assert (error.type, error.message) == ("Unrecoverable", "closed")


# Stopping -------------------------------------------------------------------------------------------------------------


async def test_a_graceful_stop_lets_running_jobs_finish_and_claims_nothing_more(
    queue: Queue, bench: Bench, gate: Gate
) -> None:
    one, two = await queue.add_many([("a", 1), ("a", 2)])
    worker = bench.worker(handler(gate), concurrency=1)
    running = asyncio.create_task(worker.run())
    await gate.runs(1)
    await worker.stop()
    gate.open.set()
    await running
    assert await one.result(1) == 1
    found = await two.snapshot()
    assert found is not None
    assert found.state == JobState.WAITING
    assert (await queue.stats()).workers == 0


async def test_what_outlasts_the_grace_goes_back_to_its_lane_and_uses_no_attempt(
    queue: Queue, bench: Bench, gate: Gate
) -> None:
    job = await queue.add("a", 5, attempts=1, priority=Priority.LOW)
    async with bench.worker(handler(gate)) as worker:
        await gate.runs(1)
        await worker.stop(grace=0)
    found = await job.snapshot()
    assert found is not None
    assert (found.state, found.priority) == (JobState.WAITING, Priority.LOW)
    assert (found.attempts_made, found.interruptions, found.stalls) == (0, 1, 0)
    assert gate.running == 0  # the handler was cancelled
    gate.open.set()
    async with bench.worker(handler(gate)):
        assert await job.result(PATIENCE) == 5
    found = await job.snapshot()
    assert found is not None
    assert (found.attempts_made, found.interruptions) == (1, 1)


async def test_a_second_stop_hurries_the_first_one(queue: Queue, bench: Bench, gate: Gate) -> None:
    job = await queue.add("a", attempts=1)
    worker = bench.worker(handler(gate))
    running = asyncio.create_task(worker.run())
    await gate.runs(1)
    await worker.stop(grace=3_600)
    await worker.stop(grace=0)
    await running
    found = await job.snapshot()
    assert found is not None
    assert (found.state, found.interruptions) == (JobState.WAITING, 1)


async def test_a_worker_whose_task_is_cancelled_hands_its_jobs_back(queue: Queue, bench: Bench, gate: Gate) -> None:
    job = await queue.add("a", attempts=1)
    running = asyncio.create_task(bench.worker(handler(gate)).run())
    await gate.runs(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    found = await job.snapshot()
    assert found is not None
    assert (found.state, found.attempts_made, found.interruptions) == (JobState.WAITING, 0, 1)


async def test_a_thread_that_outlasts_the_grace_has_its_job_handed_back(queue: Queue, bench: Bench) -> None:
    go_on = threading.Event()
    job = await queue.add("a", attempts=1)
    async with bench.worker(lambda job: go_on.wait(PATIENCE)) as worker:
        await bench.happened("active", job.id)
        await worker.stop(grace=0)
    found = await job.snapshot()
    assert found is not None
    assert (found.state, found.interruptions) == (JobState.WAITING, 1)
    go_on.set()


async def test_an_idle_worker_stops_at_once_and_leaves_no_trace(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    async with bench.worker(echoes):
        await (await queue.add("a")).result(PATIENCE)
    assert client.zcard("sq:{q}:workers") == 0
    assert client.xinfo_consumers("sq:{q}:lane:3", "w") == []


async def test_jobs_added_while_a_worker_stops_are_not_lost(queue: Queue, bench: Bench) -> None:
    ran: list[int] = []

    async def run(job: Any) -> None:
        ran.append(job.data)

    jobs = []
    for n in range(10):
        worker = bench.worker(run)
        async with worker:
            stop = asyncio.create_task(worker.stop())
            jobs.append(await queue.add("a", n, attempts=1))
            await stop
    async with bench.worker(run):
        await asyncio.gather(*(job.result(PATIENCE) for job in jobs))
    assert sorted(ran) == list(range(10))


async def test_a_worker_runs_once(bench: Bench) -> None:
    worker = bench.worker(echoes)
    async with worker:
        pass
    with pytest.raises(InvalidInput, match="a worker runs once; make a new one"):
        await worker.run()


async def test_a_worker_that_never_ran_is_not_healthy(bench: Bench) -> None:
    worker = bench.worker(echoes)
    assert not worker.healthy
    assert worker.running == 0
    assert repr(worker) == f"<Worker {worker.id} on q>"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"concurrency": 0}, "concurrency must be between 1 and 10,000, not 0"),
        ({"limiter": 5}, "limiter must be a RateLimit, not 5"),
        ({"redis": "http://x"}, "http://x is no Redis URL"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        Worker("q", echoes, settings=Settings(), **options)


# Trouble --------------------------------------------------------------------------------------------------------------


async def test_a_worker_goes_on_after_its_connections_were_killed(
    queue: Queue, bench: Bench, client: redis.Redis, gate: Gate
) -> None:
    async with bench.worker({"slow": handler(gate), "quick": echoes}) as worker:
        slow = await queue.add("slow", 1, attempts=1)
        await gate.runs(1)
        for _ in range(3):
            client.client_kill_filter(_type="normal", skipme=True)
            assert await (await queue.add("quick", 5, attempts=1)).result(PATIENCE) == 5
        gate.open.set()
        assert await slow.result(PATIENCE) == 1
        assert worker.stale_outcomes == 0
    assert gate.started == [1]


async def test_a_worker_goes_on_after_its_scripts_were_lost(queue: Queue, bench: Bench, client: redis.Redis) -> None:
    async with bench.worker(echoes):
        for n in range(3):
            client.script_flush()
            assert await (await queue.add("a", n)).result(PATIENCE) == n


async def test_a_worker_goes_on_after_its_consumer_groups_were_lost(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    async with bench.worker(echoes):
        assert await (await queue.add("a", 1)).result(PATIENCE) == 1
        client.xgroup_destroy("sq:{q}:lane:3", "w")
        assert await (await queue.add("a", 2)).result(PATIENCE) == 2


async def test_an_outcome_whose_lease_has_moved_on_is_dropped_and_counted(
    queue: Queue, bench: Bench, client: redis.Redis, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    job = await queue.add("a", "first")
    settings = msgspec.structs.replace(bench.settings, lease=60, concurrency=1)  # no room to take it up again itself
    async with bench.worker(handler(gate), settings=settings) as worker:
        await gate.runs(1)
        client.zadd("sq:{q}:workers", {worker.id: 0})  # the others think that it is dead
        async with bench.worker(lambda job: "second"):
            assert await job.result(PATIENCE) == "second"
        gate.open.set()
        await eventually(lambda: worker.stale_outcomes == 1, PATIENCE)
    assert await job.result(1) == "second"
    assert "its lease had moved on" in caplog.text


async def test_a_time_that_is_shown_is_the_servers(queue: Queue, bench: Bench, client: redis.Redis) -> None:
    before = _now(client)
    job = await queue.add("a")
    async with bench.worker(echoes):
        await job.result(PATIENCE)
    found = await job.snapshot()
    assert found is not None
    times = [found.created_at, found.started_at, found.finished_at]
    assert all(isinstance(at, datetime) for at in times)
    assert [before <= at.timestamp() + 0.01 <= _now(client) + 0.02 for at in times if at] == [True] * 3


def _now(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6


async def test_jobs_behind_a_long_one_keep_their_place_however_many_were_claimed_ahead(bench: Bench) -> None:
    """Short jobs are claimed ahead; when one of them turns out long, those behind it go back to the lane's front."""
    order: list[int] = []

    async def notes(job: Any) -> None:
        order.append(job.data)
        if job.data == 100:
            await asyncio.sleep(0.2)

    await bench.queue.add_many([("note", n) for n in range(1_500)])
    async with bench.worker(notes, concurrency=1):
        await eventually(lambda: len(order) == 1_500, PATIENCE)
    assert order == list(range(1_500))


async def test_a_job_tells_how_each_of_its_attempts_failed(bench: Bench) -> None:
    async def fails(job: Any) -> None:
        raise ValueError(f"reason {job.attempt}")

    options = JobOptions(attempts=3, backoff=Backoff.fixed(0.01))
    job = await bench.queue.add("work", options=options)
    async with bench.worker(fails):
        with pytest.raises(JobFailed, match="reason 3"):
            await job.result(PATIENCE)
        found = await job.snapshot()
        assert found is not None
        assert {n: error.message for n, error in found.errors.items()} == {1: "reason 1", 2: "reason 2", 3: "reason 3"}
        await bench.queue.pause()
        await bench.queue.retry(job.id)
        again = await job.snapshot()
        assert again is not None
        assert again.errors == {}, "attempts are counted from nothing"


async def test_only_the_last_errors_are_kept(bench: Bench) -> None:
    async def fails(job: Any) -> None:
        raise ValueError(f"reason {job.attempt}")

    job = await bench.queue.add("work", options=JobOptions(attempts=14, backoff=Backoff.fixed(0)))
    async with bench.worker(fails):
        with pytest.raises(JobFailed):
            await job.result(PATIENCE)
    found = await job.snapshot()
    assert found is not None
    assert sorted(found.errors) == list(range(4, 15))
