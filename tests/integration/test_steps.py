"""Durable steps and cursors, on the loop, in threads and in processes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamq import ActiveJob, JobCancelled, JobFailed, Queue, Settings, Unrecoverable, Worker
from streamq.errors import InvalidInput, StaleLease
from tests.integration.conftest import PATIENCE, Bench
from tests.integration.processors_for_processes import processors


async def test_a_step_runs_once_over_all_attempts(queue: Queue, bench: Bench) -> None:
    ran: list[str] = []

    async def charge(amount: int, *, currency: str) -> dict[str, Any]:
        ran.append("charge")
        return {"amount": amount, "currency": currency}

    async def run(job: ActiveJob[Any]) -> Any:
        receipt = await job.step("charge", charge, 5, currency="EUR")
        pair = await job.step("pair", lambda: (ran.append("pair"), job.attempt))
        if job.attempt < 3:
            raise OSError("later")
        return [receipt, pair]

    async with bench.worker(run):
        job = await queue.add("a", attempts=3)
        assert await job.result(PATIENCE) == [{"amount": 5, "currency": "EUR"}, [None, 1]]
    assert ran == ["charge", "pair"]


async def test_what_a_step_gives_is_the_same_in_every_attempt(queue: Queue, bench: Bench) -> None:
    """A tuple is stored as a list: so it is one from the first attempt on."""
    seen: list[Any] = []

    async def run(job: ActiveJob[Any]) -> None:
        seen.extend([await job.step("pair", lambda: (1, 2)), await job.step("nothing", lambda: None)])
        if job.attempt == 1:
            raise OSError("later")

    async with bench.worker(run):
        await (await queue.add("a", attempts=2)).result(PATIENCE)
    assert seen == [[1, 2], None] * 2


async def test_a_step_that_raises_is_run_again_by_the_next_attempt_or_by_this_one(queue: Queue, bench: Bench) -> None:
    ran: list[int] = []

    def charge(attempt: int) -> int:
        ran.append(attempt)
        if len(ran) < 3:
            raise OSError("refused")
        return len(ran)

    async def run(job: ActiveJob[Any]) -> Any:
        try:
            return await job.step("charge", charge, job.attempt)
        except OSError:
            return await job.step("charge", charge, job.attempt)

    async with bench.worker(run):
        assert await (await queue.add("a", attempts=2)).result(PATIENCE) == 3
    assert ran == [1, 1, 2]


async def test_a_name_that_is_used_twice_in_one_attempt_is_refused(queue: Queue, bench: Bench) -> None:
    ran: list[int] = []

    async def run(job: ActiveJob[Any]) -> None:
        await job.step("charge", ran.append, 1)
        await job.step("charge", ran.append, 2)

    async with bench.worker(run):
        job = await queue.add("a", attempts=2)
        with pytest.raises(JobFailed, match="step 'charge' was used before in this attempt: each step needs a name"):
            await job.result(PATIENCE)
    assert ran == [1]


async def test_a_step_whose_result_cannot_be_stored_fails_the_job_for_good(queue: Queue, settings: Settings) -> None:
    small = Settings(redis_url=settings.redis_url, retry_delay=0.01, max_payload=100)
    ran: list[str] = []

    async def run(job: ActiveJob[str]) -> None:
        def work() -> Any:
            ran.append(job.data)
            return object() if job.data == "object" else "x" * 200

        async def fill() -> None:
            for n in range(100):
                await job.step(f"{n}", lambda: "x" * 90)

        await (fill() if job.data == "many" else job.step("work", work))

    async with Worker("q", run, settings=small), Queue("q", settings=small) as producer:
        for kind, why in (
            ("object", "step 'work' has run, but can't be stored: the result can't be encoded"),
            ("large", "can't be stored: the result takes 202 bytes, over the limit of 100"),
            ("many", "step '17' has run, but can't be stored: the job's steps take 1,656 bytes, over 1,600"),
        ):
            with pytest.raises(JobFailed, match=f"Unrecoverable: .*{why}"):
                await (await producer.add("a", kind, attempts=3)).result(PATIENCE)
    assert ran == ["object", "large"]


async def test_a_job_may_have_a_thousand_steps(queue: Queue, bench: Bench) -> None:
    async def run(job: ActiveJob[Any]) -> str:
        await asyncio.gather(*[job.step(f"{n}", str, n) for n in range(1_000)])
        with pytest.raises(InvalidInput, match="step 'more' is one too many: a job may have 1,000"):
            await job.step("more", lambda: 1)
        with pytest.raises(InvalidInput, match="step 'other' takes a function and its arguments, not 5"):
            await job.step("other", 5)  # type: ignore[arg-type]
        return "refused"

    async with bench.worker(run):
        assert await (await queue.add("a")).result(PATIENCE) == "refused"


async def test_a_cursor_is_given_to_the_next_attempt(queue: Queue, bench: Bench) -> None:
    done: list[int] = []

    async def run(job: ActiveJob[Any]) -> None:
        for n in range(job.cursor or 0, 6):
            done.append(n)
            await job.save_cursor(n + 1)
            if n in (1, 3):
                raise OSError("later")

    async with bench.worker(run):
        await (await queue.add("a", attempts=3)).result(PATIENCE)
    assert done == [0, 1, 2, 3, 4, 5]


async def test_steps_and_cursors_block_in_a_thread(queue: Queue, bench: Bench) -> None:
    ran: list[str] = []

    async def wrong() -> None: ...

    def run(job: ActiveJob[Any]) -> Any:
        found = job.step("charge", lambda: ran.append("charge") or job.attempt)
        job.save_cursor(f"attempt {job.attempt}")
        if job.attempt == 1:
            raise OSError("later")
        with pytest.raises(InvalidInput, match="step 'wrong' is async: its handler has to be, too"):
            job.step("wrong", wrong)
        return [found, job.cursor]

    async with bench.worker(run):
        assert await (await queue.add("a", attempts=2)).result(PATIENCE) == [1, "attempt 2"]
    assert ran == ["charge"]


async def test_steps_and_cursors_cross_the_border_of_a_process(redis_url: str, settings: Settings) -> None:
    async with Queue("processes", settings=settings) as queue, Worker("processes", processors, settings=settings):
        found = await (await queue.add("steps")).result(PATIENCE)
        assert found == {"first": found["first"], "cursor": [2, [1, None]], "pair": [1, 2]}
        assert await (await queue.add("steps-async")).result(PATIENCE) == [1, 1]


async def test_a_handler_that_is_to_end_begins_no_step(queue: Queue, bench: Bench) -> None:
    begun, seen = asyncio.Event(), asyncio.Event()

    async def run(job: ActiveJob[Any]) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            with pytest.raises(JobCancelled, match="it is to end, so step 'charge' was not begun"):
                await job.step("charge", lambda: 1)
            seen.set()
            raise

    async with bench.worker(run), asyncio.timeout(PATIENCE):
        job = await queue.add("a")
        await begun.wait()
        assert await job.cancel()
        await seen.wait()


async def test_a_handler_whose_job_was_taken_away_stores_nothing(queue: Queue, bench: Bench) -> None:
    seen: list[str] = []
    ended = asyncio.Event()

    async def run(job: ActiveJob[Any]) -> None:
        await queue.remove(job.id, force=True)
        for call in (lambda: job.step("charge", seen.append, "ran"), lambda: job.save_cursor(1)):
            try:
                await call()
            except StaleLease as error:
                seen.append(str(error))
        ended.set()

    async with bench.worker(run), asyncio.timeout(PATIENCE):
        await queue.add("a")
        await ended.wait()
    assert seen == ["job 1: entry 1-0 is no longer ours"] * 2


async def test_what_a_job_has_remembered_is_read_from_outside_until_it_completes(queue: Queue, bench: Bench) -> None:
    async def work(job: ActiveJob[Any]) -> None:
        await job.step("b", lambda: [1, 2])
        await job.step("a", lambda: None)
        await job.save_cursor({"page": 7})
        if job.data == "fails":
            raise Unrecoverable("no")

    async with bench.worker(work):
        failed, done = await queue.add("work", "fails"), await queue.add("work")
        await bench.happened("failed", failed.id)
        await bench.happened("completed", done.id)
    found = await queue.steps(failed.id)
    assert list(found.steps.items()) == [("a", None), ("b", [1, 2])]
    assert found.cursor == {"page": 7}
    for job_id in (done.id, "nobody"):
        nothing = await queue.steps(job_id)
        assert (nothing.steps, nothing.cursor) == ({}, None)
