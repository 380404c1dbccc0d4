"""Tasks on a real server: added by calling, run by workers, their results typed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from streamq import JobFailed, Processors, Queue, close_all_queues
from streamq.log import current_job
from tests.integration.conftest import Bench


class Rate(msgspec.Struct):
    pair: str
    value: Decimal


processors = Processors()


@processors.task("tomorrow", queue="q")
async def tomorrow(day: datetime, rates: list[Rate], *, factor: Decimal = Decimal(2)) -> tuple[datetime, list[Rate]]:
    return day + timedelta(days=1), [Rate(rate.pair, rate.value * factor) for rate in rates]


@processors.task("who-am-i")
def who_am_i() -> str:
    job = current_job.get()
    assert job is not None
    return job.id


@processors.task("square", queue="q", run_in="process")
def square(number: int) -> int:
    return number * number


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_parameters_and_results_keep_their_types_on_the_way_through_a_worker(queue: Queue, bench: Bench) -> None:
    async with bench.worker(processors):
        job = await tomorrow.on(queue).add(NOON, [Rate("EUR/USD", Decimal("1.10"))], factor=Decimal(3))
        assert await job.result(20) == (NOON + timedelta(days=1), [Rate("EUR/USD", Decimal("3.30"))])


async def test_a_plain_task_runs_in_a_thread_and_knows_its_job(queue: Queue, bench: Bench) -> None:
    async with bench.worker(processors):
        job = await who_am_i.on(queue).add()
        assert await job.result(20) == job.id


async def test_a_task_may_run_in_a_process(queue: Queue, bench: Bench) -> None:
    async with bench.worker(processors):
        assert await (await square.on(queue).add(number=12)).result(20) == 144


async def test_jobs_of_a_task_go_along_in_a_batch(queue: Queue, bench: Bench) -> None:
    async with bench.worker(processors):
        jobs = await queue.add_many([who_am_i.spec(), square.spec(3)])
        assert [await job.result(20) for job in jobs] == [jobs[0].id, 9]


async def test_a_job_whose_data_do_not_fit_the_function_fails_at_once(queue: Queue, bench: Bench) -> None:
    async with bench.worker(processors):
        job = await queue.add("square", {"number": 1, "base": 10})
        with pytest.raises(JobFailed, match=r"its data does not fit the processor of 'square': .* unknown field"):
            await job.result(20)


async def test_without_a_queue_of_its_own_a_task_uses_the_environments(
    queue: Queue, bench: Bench, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    async with bench.worker(processors):
        try:
            assert await (await square.add(5)).result(20) == 25
        finally:
            await close_all_queues()
