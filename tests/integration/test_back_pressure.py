"""What keeps a queue from filling up with work that nobody can do in time: its size, and the expiry of jobs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from streamq import InvalidInput, JobFailed, JobOptions, JobState, Queue, QueueFull, Settings
from streamq.queue import NewJobSpec
from tests.integration.conftest import PATIENCE, Bench


async def echoes(job: Any) -> Any:
    return job.data


async def test_a_full_queue_takes_nothing_more_until_there_is_room(queue: Queue, bench: Bench) -> None:
    await queue.set_max_size(2)
    await queue.add_many([("a", 1), ("a", 2)])
    with pytest.raises(QueueFull, match="queue q holds 2 jobs, its limit is 2"):
        await queue.add("a", 3)
    async with bench.worker(echoes):
        await bench.happened("completed", times=1, job_id="2")
    assert (await queue.add("a", 3)).is_new
    await queue.set_max_size(None)
    await queue.add_many([("a", n) for n in range(10)])


@pytest.mark.parametrize("count", [11, 3_000])
async def test_a_batch_that_does_not_fit_is_refused_whole(queue: Queue, count: int) -> None:
    await queue.set_max_size(10)
    specs: list[NewJobSpec] = [("a", n) for n in range(count)]
    with pytest.raises(QueueFull):
        await queue.add_many(specs)
    assert (await queue.stats()).total == 0
    await queue.add_many(specs[:10])


async def test_of_many_adds_at_once_as_many_are_taken_as_fit(queue: Queue) -> None:
    await queue.set_max_size(30)
    ends = await asyncio.gather(*(queue.add("a", n) for n in range(100)), return_exceptions=True)
    refused = [end for end in ends if isinstance(end, QueueFull)]
    assert len(refused) == 70
    assert (await queue.stats()).waiting == 30
    assert sum(not isinstance(end, BaseException) for end in ends) == 30


async def test_producers_of_several_queue_objects_share_one_limit(queue: Queue, settings: Settings) -> None:
    await queue.set_max_size(10)
    async with Queue("q", settings=settings) as other:
        ends = await asyncio.gather(
            *(each.add("a") for each in (queue, other) for _ in range(10)), return_exceptions=True
        )
    assert sum(isinstance(end, QueueFull) for end in ends) == 10
    assert (await queue.stats()).waiting == 10


async def test_adding_a_job_that_is_known_is_no_reason_to_refuse(queue: Queue) -> None:
    await queue.set_max_size(1)
    await queue.add("a", job_id="mine")
    assert not (await queue.add("a", job_id="mine")).is_new


@pytest.mark.parametrize("most", [0, -1, 1.5, True, "10"])
async def test_a_size_that_makes_no_sense_is_refused(queue: Queue, most: Any) -> None:
    with pytest.raises(InvalidInput, match="max_size"):
        await queue.set_max_size(most)


async def test_a_job_that_is_not_started_in_time_fails_as_expired_and_never_runs(queue: Queue, bench: Bench) -> None:
    ran: list[Any] = []

    async def run(job: Any) -> None:
        ran.append(job.data)

    late = await queue.add("a", "late", expires_in=0.001)
    patient = await queue.add("a", "patient", expires_in=timedelta(hours=1))
    await asyncio.sleep(0.01)  # the job's time to go by
    async with bench.worker(run):
        with pytest.raises(
            JobFailed, match=r"JobExpired: job 1 expired: it waited .* s, and was to start within 0.001 s"
        ):
            await late.result(PATIENCE)
        await patient.result(PATIENCE)
    assert ran == ["patient"]
    job = await late.snapshot()
    assert job is not None
    assert (job.state, job.attempts_made) == (JobState.FAILED, 0)
    (letter,) = await queue.dead_letters()
    assert (letter.job_id, letter.error.type) == (late.id, "JobExpired")


async def test_an_expired_job_may_be_retried_and_its_time_counts_anew(queue: Queue, bench: Bench) -> None:
    job = await queue.add("a", "ran", expires_in=0.2)
    await asyncio.sleep(0.21)  # the job's time to go by
    async with bench.worker(echoes):
        with pytest.raises(JobFailed):
            await job.result(PATIENCE)
        await queue.retry(job.id)
        assert await job.result(PATIENCE) == "ran"


async def test_a_delay_and_a_retry_do_not_count_against_the_expiry(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> int:
        if job.attempt == 1:
            await asyncio.sleep(0.3)  # longer than it may wait
            raise ValueError("again")
        return int(job.attempt)

    async with bench.worker(run):
        job = await queue.add("a", delay=0.3, expires_in=0.25)
        assert await job.result(PATIENCE) == 2


async def test_tags_and_headers_go_along_to_the_handler_and_the_snapshot(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> Any:
        return [list(job.tags), dict(job.headers)]

    job = await queue.add("a", tags=("north", "monthly"), headers={"trace": "00-ab-cd-01"})
    bare = await queue.add("a")
    found, nothing = await job.snapshot(), await bare.snapshot()
    assert found is not None
    assert nothing is not None
    assert (found.tags, found.headers) == (("north", "monthly"), {"trace": "00-ab-cd-01"})
    assert (nothing.tags, nothing.headers) == ((), {})
    async with bench.worker(run):
        assert await job.result(PATIENCE) == [["north", "monthly"], {"trace": "00-ab-cd-01"}]
        assert await bare.result(PATIENCE) == [[], {}]


@pytest.mark.parametrize(
    "options",
    [
        {"tags": "word"}, {"tags": ("",)}, {"tags": (1,)}, {"tags": ("t",) * 17}, {"headers": {"a": 1}},
        {"headers": {1: "a"}}, {"headers": ["a"]}, {"headers": {"a": "x" * 5_000}}, {"headers": {"a": "\ud800"}},
        {"expires_in": 0}, {"expires_in": -1}, {"expires_in": "soon"},
    ],
)  # fmt: skip
async def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        JobOptions(**options)
