"""A queue for dead letters: jobs that fail for good are added to it once, with where from and why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamq import InvalidInput, Priority, Queue, Settings, Unrecoverable, Worker
from tests.integration.conftest import PATIENCE, Bench


async def fails(job: Any) -> None:
    raise Unrecoverable(f"no account {job.data}")


class Mender:
    """Notes the jobs that come to the dead-letter queue."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[Any] = asyncio.Queue()

    async def __call__(self, job: Any) -> None:
        await self.seen.put(job)

    async def next(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            return await self.seen.get()


async def test_a_job_that_fails_for_good_comes_with_its_headers_and_where_from_and_why(
    bench: Bench, queue: Queue, settings: Settings
) -> None:
    mender = Mender()
    async with bench.worker(fails, dead_letter_queue="dead"), Worker("dead", mender, settings=settings):
        job = await queue.add("work", {"n": 7}, priority=Priority.HIGH, headers={"trace": "t"}, expires_in=60)
        found = await mender.next()
    assert (found.name, found.data, found.queue) == ("work", {"n": 7}, "dead")
    headers = dict(found.headers)
    assert headers.pop("dead-at").endswith("+00:00")
    assert headers.pop("dead-letter").endswith("-0")
    assert headers == {
        "trace": "t",
        "dead-queue": "q",
        "dead-job": job.id,
        "dead-error": "Unrecoverable: no account {'n': 7}",
    }
    assert (await queue.stats()).dead == 1


async def test_however_many_workers_each_comes_once(bench: Bench, queue: Queue, settings: Settings) -> None:
    count = 60
    async with (
        Queue("dead", settings=settings) as dead,
        bench.worker(fails, dead_letter_queue="dead"),
        bench.worker(fails, dead_letter_queue="dead"),
        bench.worker(fails, dead_letter_queue="dead"),
    ):
        mender = Mender()
        await queue.add_many([("work", n) for n in range(count)])
        async with Worker("dead", mender, settings=settings):
            found = [(await mender.next()).headers["dead-job"] for _ in range(count)]
        assert sorted(found, key=int) == [str(n) for n in range(1, count + 1)]
        assert (await dead.stats()).waiting == 0


async def test_what_failed_while_no_worker_forwarded_comes_with_the_next_worker(
    bench: Bench, queue: Queue, settings: Settings
) -> None:
    async with bench.worker(fails, dead_letter_queue="dead"):
        job = await queue.add("work", 1)
        await bench.happened("dead", job.id)
    async with bench.worker(fails):
        later = await queue.add("work", 2)
        await bench.happened("dead", later.id)
    mender = Mender()
    async with bench.worker(fails, dead_letter_queue="dead"), Worker("dead", mender, settings=settings):
        assert {(await mender.next()).headers["dead-job"] for _ in range(2)} == {job.id, later.id}


@pytest.mark.parametrize(("name", "text"), [("q", "must be another queue"), ("a{b}", "queue name must not contain")])
def test_a_queue_that_can_not_be_it_is_refused(settings: Settings, name: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        Worker("q", fails, dead_letter_queue=name, settings=settings)
