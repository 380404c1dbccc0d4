"""Waiting for a job's result: every ending, a timeout, many at once, lost connections."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
import redis

from streamq import JobFailed, JobNotFound, Queue, Retention, Settings, Unrecoverable
from streamq.errors import JobCancelled, ResultNotKept, StoreUnavailable
from tests.integration.conftest import PATIENCE, Bench, Calls


async def echoes(job: Any) -> Any:
    return job.data


async def fails(job: Any) -> None:
    raise Unrecoverable("the account is closed")


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [1, 2.5, b"x", None]}, 2**100])
async def test_a_result_comes_back_as_the_handler_returned_it(queue: Queue, bench: Bench, value: Any) -> None:
    async with bench.worker(echoes):
        assert await (await queue.add("a", value)).result(PATIENCE) == value


async def test_the_result_of_a_job_that_has_ended_is_there_at_once(queue: Queue, bench: Bench) -> None:
    job = await queue.add("a", 5)
    async with bench.worker(echoes):
        await job.result(PATIENCE)
    assert await job.result(0.5) == 5
    assert await queue.result(job.id) == 5


async def test_a_failed_job_raises_with_its_last_error(queue: Queue, bench: Bench) -> None:
    job = await queue.add("a")
    waiting = asyncio.create_task(job.result(PATIENCE))
    async with bench.worker(fails):
        with pytest.raises(JobFailed) as raised:
            await waiting
    assert str(raised.value) == f"job {job.id} failed: Unrecoverable: the account is closed"
    assert (raised.value.job_id, raised.value.error) == (job.id, "Unrecoverable: the account is closed")
    with pytest.raises(JobFailed):
        await job.result(1)


async def test_an_unknown_job_is_not_waited_for(queue: Queue) -> None:
    with pytest.raises(JobNotFound, match="job 17 is unknown"):
        await queue.result("17")


async def test_a_job_that_is_removed_while_somebody_waits_is_told_as_cancelled(queue: Queue, calls: Calls) -> None:
    job = await queue.add("a")
    waiting = asyncio.create_task(job.result(PATIENCE))
    await calls.answered("get")
    await queue.remove(job.id)
    with pytest.raises(JobCancelled, match=f"job {job.id} was cancelled or removed before it ended"):
        await waiting


async def test_a_result_that_was_not_kept_is_told_to_who_waited(queue: Queue, bench: Bench, calls: Calls) -> None:
    job = await queue.add("a", 5, keep_completed=Retention(0))
    waiting = asyncio.create_task(job.result(PATIENCE))
    await calls.answered("get")
    async with bench.worker(echoes):
        with pytest.raises(ResultNotKept, match="completed, but its result was not kept"):
            await waiting


async def test_a_timeout_leaves_the_job_as_it_is(queue: Queue) -> None:
    job = await queue.add("a")
    with pytest.raises(TimeoutError, match=f"^no end of job {job.id} was seen within 0.05 s; it goes on$"):
        await job.result(0.05)
    with pytest.raises(TimeoutError):
        await job.result(0)
    found = await job.snapshot()
    assert found is not None
    assert found.state == "waiting"
    assert not queue._endings._waiters


async def test_two_hundred_waits_take_two_connections_and_all_end(queue: Queue, calls: Calls, bench: Bench) -> None:
    jobs = await queue.add_many([("a", n) for n in range(200)])
    waits = [asyncio.create_task(job.result(PATIENCE)) for job in jobs]
    await calls.answered("get", 200)
    keep = msgspec.structs.replace(bench.settings, keep_completed=Retention(1_000))
    async with bench.worker(echoes, settings=keep, concurrency=50):
        assert await asyncio.gather(*waits) == list(range(200))
    assert (queue._wire.connects, queue._event_wire.connects) == (1, 1)


async def test_several_may_wait_for_one_job(queue: Queue, bench: Bench) -> None:
    job = await queue.add("a", 5)
    waits = [asyncio.create_task(job.result(PATIENCE)) for _ in range(20)]
    async with bench.worker(echoes):
        assert await asyncio.gather(*waits) == [5] * 20


async def test_a_wait_that_is_cancelled_ends_no_other(queue: Queue, bench: Bench, calls: Calls) -> None:
    job = await queue.add("a", 5)
    one, two = asyncio.create_task(job.result(PATIENCE)), asyncio.create_task(job.result(PATIENCE))
    await calls.answered("get")
    one.cancel()
    async with bench.worker(echoes):
        assert await two == 5
    assert one.cancelled()


async def test_a_wait_goes_on_over_lost_connections(
    queue: Queue, bench: Bench, client: redis.Redis, calls: Calls
) -> None:
    job = await queue.add("a", 5)
    waiting = asyncio.create_task(job.result(PATIENCE))
    await calls.answered("get")
    for _ in range(3):
        client.client_kill_filter(_type="normal", skipme=True)
    async with bench.worker(echoes):
        assert await waiting == 5


async def test_a_wait_on_a_queue_that_is_closed_ends(settings: Settings, calls: Calls) -> None:
    queue = Queue("q", settings=settings, observer=calls)
    job = await queue.add("a")
    waiting = asyncio.create_task(job.result(PATIENCE))
    await calls.answered("get")
    await queue.close()
    with pytest.raises(StoreUnavailable, match="closed by its owner"):
        await waiting
    assert calls.names.count("get") == 1


@pytest.mark.parametrize("timeout", [-1, float("nan"), "soon"])
async def test_a_timeout_that_makes_no_sense_is_refused(queue: Queue, timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be"):
        await queue.result("17", timeout)
