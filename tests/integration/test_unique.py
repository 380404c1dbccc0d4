"""Unique keys as users have them: the recipes of docs/unique.md, many producers at once, what each caller is told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamq import (
    DuplicateJob,
    InvalidInput,
    JobOptions,
    JobState,
    Priority,
    Queue,
    Retention,
    Settings,
    Unique,
    WrongState,
)
from streamq.testing import time_travel
from tests.integration.conftest import PATIENCE, Bench

PRODUCERS, ROUNDS = 40, 5
KEEP_ALL = Retention(count=1_000)


class Handler:
    """Runs jobs one after the other as the test lets them, and notes their data."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.started = asyncio.Semaphore(0)
        self.may_end = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def __call__(self, job: Any) -> Any:
        self.ran.append(job.data)
        self.started.release()
        await self.may_end.acquire()
        if self.error:
            raise self.error
        return job.data

    async def starts(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.started.acquire()


@pytest.fixture
def handler() -> Handler:
    return Handler()


# What add says --------------------------------------------------------------------------------------------------------


async def test_the_handle_says_whether_the_job_is_new_and_else_is_that_of_the_one_that_is_there(queue: Queue) -> None:
    first = await queue.add("rebuild", 1, unique=Unique("site"))
    again = await queue.add("rebuild", 2, unique=Unique("site"))
    assert (first.is_new, again.is_new, again.id) == (True, False, first.id)
    found = await queue.get_job(first.id)
    assert found is not None
    assert (found.data, found.unique_key) == (1, "site")
    assert (await queue.stats()).total == 1


async def test_a_refused_job_raises_with_the_key_and_the_holders_id_and_nothing_is_added(queue: Queue) -> None:
    first = await queue.add("rebuild", unique=Unique("site"))
    with pytest.raises(DuplicateJob, match=f"job {first.id} holds the unique key 'site'") as caught:
        await queue.add("rebuild", unique=Unique("site", on_conflict="raise"))
    assert (caught.value.job_id, caught.value.key) == (first.id, "site")
    assert (await queue.stats()).total == 1


async def test_of_many_none_is_added_if_one_is_refused(queue: Queue) -> None:
    first = await queue.add("rebuild", unique=Unique("site"))
    refused = JobOptions(unique=Unique("site", on_conflict="raise"))
    with pytest.raises(DuplicateJob):
        await queue.add_many([("other", None), ("rebuild", None, refused), ("other", None)])
    assert (await queue.stats()).total == 1
    assert (await queue.get_job(first.id)) is not None


async def test_a_refusal_of_one_caller_does_not_touch_those_that_share_its_call(queue: Queue) -> None:
    await queue.add("rebuild", unique=Unique("site"))
    refused = JobOptions(unique=Unique("site", on_conflict="raise"))
    found = await asyncio.gather(
        *(queue.add("other", n) for n in range(20)),
        queue.add("rebuild", options=refused),
        queue.add_many([("other", 21), ("rebuild", 22, refused)]),
        queue.add_many([("other", 23), ("rebuild", 24, JobOptions(unique=Unique("new", on_conflict="raise")))]),
        *(queue.add("other", n) for n in range(30, 50)),
        return_exceptions=True,
    )
    assert [at for at, each in enumerate(found) if isinstance(each, DuplicateJob)] == [20, 21]
    assert not any(isinstance(each, BaseException) for each in found[:20] + found[22:])
    assert (await queue.stats()).waiting == 1 + 40 + 2


async def test_two_jobs_of_one_key_in_a_batch_of_which_the_second_is_to_be_refused_are_a_mistake(queue: Queue) -> None:
    job = ("rebuild", None, JobOptions(unique=Unique("site", on_conflict="raise")))
    with pytest.raises(InvalidInput, match="job 1 has the unique key 'site' of one before it; on_conflict is 'raise'"):
        await queue.add_many([job, job])
    assert (await queue.stats()).total == 0


async def test_a_batch_that_goes_in_parts_takes_keys_that_refuse_nobody_only(queue: Queue) -> None:
    jobs = [("rebuild", n, JobOptions(unique=Unique(f"k{n % 700}"))) for n in range(2_100)]
    found = await queue.add_many(jobs)
    assert [job.is_new for job in found] == [True] * 700 + [False] * 1_400
    assert [job.id for job in found[:700]] * 3 == [job.id for job in found]
    with pytest.raises(
        InvalidInput, match="more than 1,000 jobs or 4 MiB goes in parts, and can't be refused as a whole"
    ):
        await queue.add_many([*jobs, ("rebuild", 0, JobOptions(unique=Unique("k0", on_conflict="replace")))])


async def test_a_queues_default_key_counts_for_jobs_that_say_nothing(settings: Settings) -> None:
    async with Queue("q", settings=settings, defaults=JobOptions(unique=Unique("only"))) as queue:
        first, second, other = await queue.add_many(
            [("a", None), ("b", None), ("c", None, JobOptions(unique=Unique("other")))]
        )
        assert (first.is_new, second.is_new, other.is_new) == (True, False, True)


async def test_an_own_id_and_a_key_say_it_the_same_way(queue: Queue) -> None:
    first = await queue.add("a", job_id="mine", unique=Unique("k"))
    by_id = await queue.add("a", job_id="mine", unique=Unique("other"))
    by_key = await queue.add("a", job_id="yours", unique=Unique("k"))
    assert [(job.id, job.is_new) for job in (first, by_id, by_key)] == [
        ("mine", True),
        ("mine", False),
        ("mine", False),
    ]


@pytest.mark.parametrize("while_", ["pending", "running", "retained"])
async def test_of_many_producers_of_one_key_exactly_one_adds_a_job(
    queue: Queue, settings: Settings, while_: Any
) -> None:
    """Incident R81."""
    async with AsyncExitStack() as stack:
        producers = [await stack.enter_async_context(Queue("q", settings=settings)) for _ in range(PRODUCERS)]
        for n in range(ROUNDS):
            jobs = await asyncio.gather(*(p.add("a", unique=Unique(f"k{n}", while_)) for p in producers))
            assert sum(job.is_new for job in jobs) == 1
            assert len({job.id for job in jobs}) == 1
        refused = await asyncio.gather(
            *(p.add("a", unique=Unique("last", while_, on_conflict="raise")) for p in producers), return_exceptions=True
        )
        assert sum(isinstance(each, DuplicateJob) for each in refused) == PRODUCERS - 1
    assert (await queue.stats()).waiting == ROUNDS + 1


async def test_while_producers_add_and_workers_run_no_two_jobs_of_a_key_run_at_once(
    settings: Settings, bench: Bench, queue: Queue
) -> None:
    running: set[str] = set()
    ran: list[str] = []
    new: set[str] = set()

    async def run(job: Any) -> None:
        assert job.data not in running
        running.add(job.data)
        await asyncio.sleep(0)
        running.discard(job.data)
        ran.append(job.id)

    async def produce(producer: Queue, conflict: Any) -> None:
        for n in range(60):
            unique = Unique(f"k{n % 3}", on_conflict=conflict)
            job = await producer.add("a", unique.key, unique=unique, keep_completed=KEEP_ALL)
            if job.is_new:
                new.add(job.id)

    async with bench.worker(run, concurrency=8), bench.worker(run, concurrency=8):
        async with AsyncExitStack() as stack:
            producers = [await stack.enter_async_context(Queue("q", settings=settings)) for _ in range(6)]
            conflicts = ["return_existing", "keep_latest"] * 3
            await asyncio.gather(*(produce(*each) for each in zip(producers, conflicts, strict=True)))
        for job_id in sorted(new):
            await queue.result(job_id, PATIENCE)
    assert sorted(ran) == sorted(new)


# The recipes ----------------------------------------------------------------------------------------------------------


async def test_throttle_one_job_in_each_window_however_soon_it_ends(queue: Queue, bench: Bench, client: Any) -> None:
    throttled = Unique("sync:42", "retained", ttl=3_600)

    async def run(job: Any) -> None: ...

    async with bench.worker(run):
        first = await queue.add("sync", unique=throttled, keep_completed=Retention(count=0))
        await bench.happened("completed", first.id)
        again = await queue.add("sync", unique=throttled)
        assert (again.is_new, again.id) == (False, first.id)
        assert 3_500 < client.ttl("sq:{q}:unique:sync:42") <= 3_600
        client.pexpireat("sq:{q}:unique:sync:42", 1)  # the hour is over
        assert (await queue.add("sync", unique=throttled)).is_new


async def test_debounce_the_latest_wins_and_its_delay_begins_anew(queue: Queue, bench: Bench, handler: Handler) -> None:
    debounced = Unique("index:7", "pending", on_conflict="replace")
    first = await queue.add("index", 1, delay=60, unique=debounced)
    due = [(await first.snapshot()).run_at]  # type: ignore[union-attr]
    for version in (2, 3):
        job = await queue.add("index", version, delay=60 + version, unique=debounced)
        assert (job.id, job.is_new) == (first.id, False)
        due.append((await job.snapshot()).run_at)  # type: ignore[union-attr]
    assert due[0] < due[1] < due[2]  # type: ignore[operator]
    handler.may_end.release()
    with time_travel() as clock:
        clock.advance(120)
        async with bench.worker(handler):
            assert await first.result(PATIENCE) == 3
    assert handler.ran == [3]


async def test_at_most_one_runs_and_one_is_next_with_the_newest_data(
    queue: Queue, bench: Bench, handler: Handler
) -> None:
    latest = Unique("deploy", on_conflict="keep_latest")
    async with bench.worker(handler, concurrency=10):
        first = await queue.add("deploy", 1, unique=latest)
        await handler.starts()
        after = [await queue.add("deploy", n, unique=latest) for n in (2, 3, 4)]
        assert [job.is_new for job in after] == [True, False, False]
        assert len({job.id for job in after}) == 1
        assert handler.ran == [1]
        handler.may_end.release()
        await handler.starts()
        handler.may_end.release()
        assert await after[0].result(PATIENCE) == 4
        assert await first.result(PATIENCE) == 1
    assert handler.ran == [1, 4]


async def test_an_idempotent_command_is_known_as_long_as_its_record_is_kept(
    queue: Queue, bench: Bench, handler: Handler
) -> None:
    command = Unique("pay:invoice-9", "retained", on_conflict="raise")
    handler.may_end.release()
    async with bench.worker(handler):
        job = await queue.add("pay", 9, unique=command)
        assert await job.result(PATIENCE) == 9
    with pytest.raises(DuplicateJob) as caught:
        await queue.add("pay", 9, unique=command)
    assert await queue.result(caught.value.job_id, 1) == 9
    await queue.remove(job.id)
    assert (await queue.add("pay", 9, unique=command)).is_new


async def test_what_runs_can_not_be_replaced_and_the_caller_is_told(
    queue: Queue, bench: Bench, handler: Handler
) -> None:
    async with bench.worker(handler):
        job = await queue.add("a", 1, unique=Unique("k"))
        await handler.starts()
        with pytest.raises(DuplicateJob, match=f"job {job.id} holds the unique key 'k'"):
            await queue.add("a", 2, unique=Unique("k", on_conflict="replace"))
        handler.may_end.release()
        assert await job.result(PATIENCE) == 1


async def test_a_replacement_brings_name_options_and_priority(queue: Queue, bench: Bench, handler: Handler) -> None:
    job = await queue.add("a", 1, priority=Priority.LOW, unique=Unique("k"), tags=("old",))
    await queue.add("b", 2, priority=Priority.HIGH, unique=Unique("k", on_conflict="replace"), headers={"x": "y"})
    found = await queue.get_job(job.id)
    assert found is not None
    assert (found.name, found.data, found.priority, found.tags, found.headers) == (
        "b",
        2,
        Priority.HIGH,
        (),
        {"x": "y"},
    )


# Afterwards -----------------------------------------------------------------------------------------------------------


async def test_a_failed_jobs_retry_takes_its_key_again_or_says_who_holds_it(
    queue: Queue, bench: Bench, handler: Handler
) -> None:
    handler.error = ValueError("boom")
    for _ in range(9):
        handler.may_end.release()
    async with bench.worker(handler):
        job = await queue.add("a", unique=Unique("k"), attempts=1)
        await bench.happened("failed", job.id)
    other = await queue.add("a", unique=Unique("k"))
    assert other.is_new
    with pytest.raises(DuplicateJob, match=f"job {other.id} holds the unique key 'k'"):
        await queue.retry(job.id)
    assert (await queue.get_job(job.id)).state is JobState.FAILED  # type: ignore[union-attr]
    await queue.remove(other.id)
    await queue.retry(job.id)
    assert not (await queue.add("a", unique=Unique("k"))).is_new


async def test_a_job_that_is_next_is_not_promoted_by_hand(queue: Queue, bench: Bench, handler: Handler) -> None:
    latest = Unique("k", on_conflict="keep_latest")
    async with bench.worker(handler):
        await queue.add("a", 1, unique=latest)
        await handler.starts()
        following = await queue.add("a", 2, unique=latest)
        with pytest.raises(WrongState, match=f"cannot promote job {following.id}: it is waiting for another job's end"):
            await queue.promote(following.id)
        for _ in range(2):
            handler.may_end.release()
        assert await following.result(PATIENCE) == 2


async def test_a_schedules_jobs_have_its_key(queue: Queue) -> None:
    unique = Unique("nightly", on_conflict="raise")
    stored = await queue.upsert_schedule("s", every=3_600, name="a", options=JobOptions(unique=unique))
    assert stored.schedule.options.unique == unique
    job = await queue.trigger_schedule("s")
    with pytest.raises(DuplicateJob, match=f"job {job.id} holds the unique key 'nightly'"):
        await queue.trigger_schedule("s")
    assert not (await queue.add("a", unique=Unique("nightly"))).is_new
