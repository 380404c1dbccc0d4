"""A queue as its producers and operators use it."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis

from streamq import (
    Backoff,
    InvalidInput,
    JobNotFound,
    JobOptions,
    JobState,
    Priority,
    Queue,
    Retention,
    Settings,
    StreamqError,
    Unrecoverable,
)
from streamq._engine import codec
from streamq.errors import PayloadTooLarge, StoreRefused, StoreUnavailable, UnencodableData, WrongState
from streamq.observer import Observer
from streamq.queue import NewJobSpec
from tests.integration.conftest import Bench


async def fails(job: Any) -> None:
    raise Unrecoverable("no")


async def echoes(job: Any) -> Any:
    return job.data


# Adding ---------------------------------------------------------------------------------------------------------------


async def test_an_added_job_waits_and_can_be_looked_at(queue: Queue) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    job = await queue.add("report", {"month": 11}, priority=Priority.HIGH)
    assert (job.name, job.queue, job.is_new) == ("report", "q", True)
    found = await job.snapshot()
    assert found is not None
    assert (found.id, found.queue, found.name, found.data) == (job.id, "q", "report", {"month": 11})
    assert (found.state, found.priority, found.attempts_made) == (JobState.WAITING, Priority.HIGH, 0)
    assert found.created_at is not None
    assert before <= found.created_at <= datetime.now(UTC) + timedelta(seconds=1)
    assert (found.started_at, found.finished_at, found.run_at, found.result, found.error) == (None,) * 5


async def test_a_job_without_data_has_none(queue: Queue) -> None:
    found = await (await queue.add("report")).snapshot()
    assert found is not None
    assert found.data is None


class Report(msgspec.Struct):
    month: int


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"data": {1, 2}}, UnencodableData, "data would not come back as it was given"),
    ({"data": (1, 2)}, UnencodableData, "data would not come back as it was given"),
    ({"data": {"at": math.nan}}, UnencodableData, "data would not come back as it was given"),
    ({"data": object()}, UnencodableData, "data can't be encoded"),
    ({"data": "\ud800"}, UnencodableData, "data can't be encoded"),
    ({"data": b"x" * 1_100_000}, PayloadTooLarge, "data takes 1,100,005 bytes, over the limit of 1,048,576"),
    ({"name": ""}, InvalidInput, "job name must not be empty"),
    ({"name": "x" * 257}, InvalidInput, "job name takes 257 bytes, over the limit of 256"),
    ({"name": "a\nb"}, InvalidInput, "job name must not contain control characters"),
    ({"name": "a{b}"}, InvalidInput, "job name must not contain braces"),
    ({"name": None}, InvalidInput, "job name must be text, not NoneType"),
    ({"job_id": ""}, InvalidInput, "job_id must not be empty"),
    ({"job_id": "x" * 257}, InvalidInput, "job_id takes 257 bytes, over the limit of 256"),
    ({"job_id": "a\0b"}, InvalidInput, "job_id must not contain control characters"),
    ({"job_id": "{a}"}, InvalidInput, "job_id must not contain braces"),
    ({"job_id": "17"}, InvalidInput, "job_id must not be all digits"),
    ({"delay": -1}, InvalidInput, "delay must be between 0"),
    ({"delay": math.nan}, InvalidInput, "delay must be seconds"),
    ({"delay": math.inf}, InvalidInput, "delay must be between 0"),
    ({"attempts": 0}, InvalidInput, "attempts must be between 1"),
    ({"timeout": 0}, InvalidInput, "timeout must be between 0.001"),
    ({"priority": 9}, InvalidInput, "priority must be 1"),
    ({"run_at": datetime(2030, 1, 1)}, InvalidInput, "run_at must have a time zone"),
    ({"run_at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1}, InvalidInput, "give delay or run_at, not both"),
    ({"retries": 3}, InvalidInput, "unknown option 'retries'; the options are priority, attempts"),
    ({"options": {"delay": 5}}, InvalidInput, "options must be JobOptions, not dict"),
]


@pytest.mark.parametrize(
    ("fields", "kind", "text"), REFUSED, ids=[f"{next(iter(row[0]))}-{n}" for n, row in enumerate(REFUSED)]
)
async def test_what_does_not_fit_is_refused_before_anything_is_sent(
    queue: Queue, client: redis.Redis, fields: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as raised:
        await queue.add(**{"name": "report", **fields})
    assert str(raised.value).startswith(text)
    assert isinstance(raised.value, StreamqError)
    assert client.dbsize() == 0


@pytest.mark.parametrize("name", ["", "a{b}", "a\nb", "x" * 257, 5, None, b"reports"])
def test_a_queue_name_that_could_break_a_key_is_refused(name: Any) -> None:
    with pytest.raises(InvalidInput, match="queue name"):
        Queue(name, settings=Settings())


async def test_a_queues_defaults_hold_for_jobs_that_say_nothing(redis_url: str) -> None:
    defaults = JobOptions(priority=Priority.LOW, delay=60)
    async with Queue("q", redis_url, defaults=defaults) as queue:
        plain = await (await queue.add("a")).snapshot()
        own = await (await queue.add("a", priority=Priority.CRITICAL)).snapshot()
        both = await (await queue.add("a", options=JobOptions(priority=Priority.HIGH), delay=0)).snapshot()
        normal = await (await queue.add("a", options=JobOptions(priority=Priority.NORMAL))).snapshot()
    assert plain is not None
    assert own is not None
    assert both is not None
    assert (plain.state, plain.priority) == (JobState.DELAYED, Priority.LOW)
    assert (own.state, own.priority) == (JobState.DELAYED, Priority.CRITICAL)
    assert (both.state, both.priority) == (JobState.WAITING, Priority.HIGH)
    assert normal is not None
    assert (normal.state, normal.priority) == (JobState.DELAYED, Priority.NORMAL)


async def test_a_custom_id_adds_once_while_its_job_is_known(queue: Queue, bench: Bench) -> None:
    first = await queue.add("a", 1, job_id="mine")
    second = await queue.add("a", 2, job_id="mine")
    assert (first.is_new, second.is_new, second.id) == (True, False, "mine")
    async with bench.worker(echoes):
        assert await second.result(10) == 1
        assert not (await queue.add("a", 3, job_id="mine")).is_new
        await queue.remove("mine")
        again = await queue.add("a", 4, job_id="mine")
        assert again.is_new
        assert await again.result(10) == 4


async def test_a_delayed_job_says_when_it_is_due_and_runs_then(queue: Queue, bench: Bench) -> None:
    later = await (await queue.add("a", delay=timedelta(hours=1))).snapshot()
    assert later is not None
    assert later.run_at is not None
    assert later.created_at is not None
    assert later.run_at - later.created_at == timedelta(hours=1)
    soon = await queue.add("a", "soon", delay=0.05)
    async with bench.worker(echoes):
        assert await soon.result(10) == "soon"
    done = await soon.snapshot()
    assert done is not None
    assert done.created_at is not None
    assert done.started_at is not None
    assert done.started_at - done.created_at >= timedelta(seconds=0.049)


async def test_a_moment_may_be_given_in_any_time_zone(queue: Queue) -> None:
    moment = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    found = await (await queue.add("a", run_at=moment.astimezone())).snapshot()
    assert found is not None
    assert found.run_at == moment


async def test_a_moment_that_has_gone_by_runs_at_once(queue: Queue, bench: Bench) -> None:
    async with bench.worker(echoes):
        job = await queue.add("a", 5, run_at=datetime(1969, 1, 1, tzinfo=UTC))
        assert await job.result(10) == 5


class Counter(Observer):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        self.calls.append(name)


async def test_concurrent_adds_share_round_trips_and_each_gets_its_own_id(redis_url: str) -> None:
    counter = Counter()
    async with Queue("q", redis_url, observer=counter) as queue:
        jobs = await asyncio.gather(*(queue.add("a", n) for n in range(3_000)))
        assert len({job.id for job in jobs}) == 3_000
        assert counter.calls == ["add"] * len(counter.calls)
        assert len(counter.calls) <= 10
        for n in (0, 1, 1_500, 2_999):
            found = await jobs[n].snapshot()
            assert found is not None
            assert found.data == n


async def test_an_add_whose_caller_gave_up_before_it_was_sent_adds_nothing(queue: Queue) -> None:
    first = asyncio.create_task(queue.add("a", 1))
    await asyncio.sleep(0)  # it is on its way, so what follows waits for its turn
    dropped = asyncio.create_task(queue.add("a", 2))
    kept = asyncio.create_task(queue.add("a", 3))
    await asyncio.sleep(0)
    dropped.cancel()
    await asyncio.gather(first, kept)
    assert (await queue.stats()).waiting == 2


async def test_a_refused_add_fails_all_that_shared_its_call_and_no_other(queue: Queue, client: redis.Redis) -> None:
    client.set("sq:{q}:id", "no number")
    found = await asyncio.gather(*(queue.add("a", n) for n in range(5)), return_exceptions=True)
    assert all(isinstance(error, StoreRefused) for error in found)
    client.delete("sq:{q}:id")
    assert (await queue.add("a")).is_new


# Adding many ----------------------------------------------------------------------------------------------------------


async def test_many_jobs_keep_their_order_and_their_options(queue: Queue, bench: Bench) -> None:
    jobs = await queue.add_many(
        [("a", 1), ("a", 2, JobOptions(priority=Priority.CRITICAL)), ("b", 3, JobOptions(job_id="mine"))]
    )
    assert [(job.name, job.id) for job in jobs] == [("a", "1"), ("a", "2"), ("b", "mine")]
    ran: list[int] = []

    async def run(job: Any) -> None:
        ran.append(job.data)

    async with bench.worker(run, concurrency=1):
        await jobs[2].result(10)
    assert ran == [2, 1, 3]


async def test_no_jobs_are_many_too(queue: Queue, client: redis.Redis) -> None:
    assert await queue.add_many([]) == []
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (("a", (1,)), "data would not come back as it was given"),
        (("", 1), "job name must not be empty"),
        (("a",), "job 2 must be (name, data) or (name, data, JobOptions), not a tuple of 1"),
        (["a", 1], "job 2 must be (name, data) or (name, data, JobOptions), not a list"),
        (("a", 1, {"delay": 5}), "job 2: options must be JobOptions, not dict"),
    ],
)
async def test_one_job_that_does_not_fit_keeps_all_out_and_is_named(
    queue: Queue, client: redis.Redis, spec: Any, text: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        await queue.add_many([("a", 0), ("a", 1), spec, ("a", 3)])
    assert str(raised.value).startswith(text)
    assert "job 2" in str(raised.value) + "".join(getattr(raised.value, "__notes__", []))
    assert client.dbsize() == 0


async def test_thousands_of_jobs_go_in_parts_and_arrive_whole_and_in_order(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    await queue.add("a", "first", job_id="taken")
    specs: list[NewJobSpec] = [("a", n) for n in range(3_500)]
    specs[10] = ("a", "again", JobOptions(job_id="taken"))
    specs[2_700] = ("a", 2_700, JobOptions(job_id="own"))
    specs[3_499] = ("a", 3_499, JobOptions(delay=3_600))
    jobs = await queue.add_many(specs)
    assert len({job.id for job in jobs}) == 3_500
    assert [n for n, job in enumerate(jobs) if not job.is_new] == [10]
    assert (jobs[10].id, jobs[2_700].id) == ("taken", "own")
    for n in (0, 999, 1_000, 2_001, 3_499):
        found = await jobs[n].snapshot()
        assert found is not None
        assert found.data == n
    lane = [codec.decode_envelope(fields[b"d"]) for _, fields in client.xrange("sq:{q}:lane:3")]
    assert [codec.decode(bytes(job.data)) for job in lane] == ["first", *(n for n in range(3_499) if n != 10)]
    ran: set[Any] = set()

    async def run(job: Any) -> None:
        ran.add(job.data)
        if len(ran) == 3_499:
            done.set()

    done = asyncio.Event()
    async with bench.worker(run), asyncio.timeout(60):
        await done.wait()


async def test_a_large_batch_of_few_large_jobs_goes_in_parts_too(redis_url: str) -> None:
    counter = Counter()
    async with Queue("q", redis_url, observer=counter) as queue:
        jobs = await queue.add_many([("a", bytes(1_000_000)) for _ in range(10)])
        assert [job.id for job in jobs] == [str(n) for n in range(1, 11)]
        assert counter.calls == ["stage", "stage", "stage", "commit"]
        assert (await queue.stats()).waiting == 10


async def test_a_batch_whose_producer_dies_after_the_first_commit_is_finished_by_the_workers(
    queue: Queue, client: redis.Redis, bench: Bench
) -> None:
    store = queue._store
    encoded = [queue._encode("a", n, None, {}) for n in range(2_500)]
    for part in range(3):
        await store.stage("batch", part, encoded[part * 1_000 : (part + 1) * 1_000])
    assert (await queue.stats()).waiting == 0
    await store.commit("batch", 1, "batch", 3)  # and then its producer is gone
    client.zadd("sq:{q}:batches", {"batch": 1})  # ten seconds later
    ran: list[int] = []
    done = asyncio.Event()

    async def run(job: Any) -> None:
        ran.append(job.data)
        if len(ran) == 2_500:
            done.set()

    async with bench.worker(run), asyncio.timeout(60):
        await done.wait()
    assert sorted(ran) == list(range(2_500))
    assert list(client.scan_iter(match="sq:{q}:batch*")) == []


async def test_a_batch_whose_producer_dies_before_the_commit_is_never_seen(
    queue: Queue, client: redis.Redis, bench: Bench
) -> None:
    encoded = [queue._encode("a", n, None, {}) for n in range(1_000)]
    await queue._store.stage("batch", 0, encoded)
    async with bench.worker(echoes):
        assert await (await queue.add("a", "other")).result(10) == "other"
    assert (await queue.stats()).total == 1
    assert all(0 < client.pttl(key) <= 600_000 for key in client.scan_iter(match="sq:{q}:batch*"))


# Looking --------------------------------------------------------------------------------------------------------------


async def test_a_job_can_be_looked_at_in_each_state(queue: Queue, bench: Bench) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def run(job: Any) -> str:
        if job.name == "fail":
            raise Unrecoverable("no")
        await job.progress({"rows": 5})
        running.set()
        await go_on.wait()
        return "result"

    delayed = await (await queue.add("ok", delay=60)).snapshot()
    assert delayed is not None
    assert delayed.state == JobState.DELAYED
    job, failing = await queue.add("ok"), await queue.add("fail")
    async with bench.worker(run):
        await running.wait()
        active = await job.snapshot()
        assert active is not None
        assert (active.state, active.progress, active.finished_at) == (JobState.ACTIVE, {"rows": 5}, None)
        assert active.started_at is not None
        go_on.set()
        assert await job.result(10) == "result"
        await bench.happened("failed", failing.id)
    done, failed = await job.snapshot(), await failing.snapshot()
    assert done is not None
    assert failed is not None
    assert (done.state, done.result, done.error, done.attempts_made) == (JobState.COMPLETED, "result", None, 1)
    assert done.created_at is not None
    assert done.started_at is not None
    assert done.finished_at is not None
    assert done.created_at <= done.started_at <= done.finished_at
    assert (failed.state, failed.result) == (JobState.FAILED, None)
    assert failed.error is not None
    assert (failed.error.type, failed.error.message) == ("Unrecoverable", "no")
    assert "raise Unrecoverable" in failed.error.traceback


@pytest.mark.parametrize("job_id", ["nobody", "17", "0"])
async def test_an_unknown_job_is_none(queue: Queue, job_id: str) -> None:
    assert await queue.get_job(job_id) is None


@pytest.mark.parametrize("job_id", ["", "a\nb", 17, None])
async def test_what_can_be_no_id_is_refused(queue: Queue, job_id: Any) -> None:
    with pytest.raises(InvalidInput, match="job_id must"):
        await queue.get_job(job_id)


async def test_the_queue_is_counted_by_state_and_priority(queue: Queue, bench: Bench) -> None:
    ok, bad = await queue.add("ok"), await queue.add("bad")
    async with bench.worker({"ok": echoes, "bad": fails}):
        await ok.result(10)
        await bench.happened("failed", bad.id)
        assert (await queue.stats()).workers == 1
    await queue.add_many([("ok", 1), ("ok", 1), ("ok", 1, JobOptions(priority=Priority.LOW))])
    await queue.add("ok", delay=60)
    await queue.pause()
    stats = await queue.stats()
    assert (stats.waiting, stats.active, stats.delayed, stats.completed, stats.failed) == (3, 0, 1, 1, 1)
    assert (stats.total, stats.dead, stats.paused, stats.workers) == (6, 1, True, 0)
    assert stats.waiting_by_priority == {1: 0, 2: 0, 3: 2, 4: 1}
    assert stats.oldest_waiting_age is not None
    assert stats.oldest_waiting_age >= 0
    assert stats.oldest_by_priority[Priority.CRITICAL] is None


# Operating ------------------------------------------------------------------------------------------------------------


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(queue: Queue, bench: Bench) -> None:
    await queue.pause()
    async with bench.worker(echoes):
        job = await queue.add("a", 1)
        due = await queue.add("a", 2, run_at=datetime(2020, 1, 1, tzinfo=UTC))
        assert (await queue.stats()).active == 0
        await queue.resume()
        assert await asyncio.gather(job.result(10), due.result(10)) == [1, 2]
    kinds = await bench.history(job.id, "completed")
    assert kinds == ["added", "active", "completed"]


async def test_a_failed_job_is_retried_on_request_and_its_attempts_count_anew(queue: Queue, bench: Bench) -> None:
    seen: list[int] = []

    async def run(job: Any) -> str:
        seen.append(job.attempt)
        if len(seen) < 3:
            raise ValueError("not yet")
        return "at last"

    job = await queue.add("a", attempts=2, backoff=Backoff.fixed(0), priority=Priority.LOW)
    async with bench.worker(run):
        await bench.happened("failed", job.id)
        assert (await queue.stats()).dead == 1
        await queue.retry(job.id)
        assert await job.result(10) == "at last"
    assert seen == [1, 2, 1]
    found = await job.snapshot()
    assert found is not None
    assert found.priority == Priority.LOW
    assert (await queue.stats()).dead == 0


async def test_only_a_failed_job_can_be_retried(queue: Queue) -> None:
    job = await queue.add("a")
    with pytest.raises(WrongState, match=f"cannot retry job {job.id}: it is waiting"):
        await queue.retry(job.id)
    with pytest.raises(JobNotFound):
        await queue.retry("nobody")


async def test_a_removed_job_is_gone_and_does_not_run(queue: Queue, bench: Bench) -> None:
    job, later = await queue.add("a"), await queue.add("a", delay=60)
    assert await queue.remove(job.id)
    assert await queue.remove(later.id)
    assert not await queue.remove(job.id)
    assert await job.snapshot() is None
    async with bench.worker(echoes):
        await (await queue.add("a")).result(10)
    assert (await queue.stats()).total == 1


async def test_a_running_job_is_not_removed(queue: Queue, bench: Bench) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def run(job: Any) -> None:
        running.set()
        await go_on.wait()

    job = await queue.add("a")
    async with bench.worker(run):
        await running.wait()
        with pytest.raises(WrongState, match=f"cannot remove job {job.id}: it is active"):
            await queue.remove(job.id)
        go_on.set()
        await job.result(10)
    assert await queue.remove(job.id)


async def test_a_closed_queue_says_so_and_closing_twice_is_harmless(queue: Queue) -> None:
    await queue.add("a")
    await queue.close()
    await queue.close()
    connects = queue._wire.connects
    with pytest.raises(StoreUnavailable, match="closed by its owner"):
        await queue.add("a")
    assert queue._wire.connects == connects


async def test_closing_waits_for_adds_that_are_on_their_way(settings: Settings) -> None:
    queue = Queue("q", settings=settings)
    adds = [asyncio.create_task(queue.add("a", n)) for n in range(50)]
    await asyncio.sleep(0)
    await queue.close()
    jobs = await asyncio.gather(*adds)
    assert len({job.id for job in jobs}) == 50


async def test_a_queue_says_where_it_is_and_not_the_password() -> None:
    text = repr(Queue("q", "redis://:hunter2@somewhere:1/2"))
    assert text == "<Queue q at <Endpoint somewhere:1 db 2>>"


async def test_a_jobs_own_retention_holds(queue: Queue, bench: Bench) -> None:
    async with bench.worker(echoes):
        gone = await queue.add("a", keep_completed=Retention(0))
        await bench.happened("completed", gone.id)
        kept = await queue.add("a")
        await kept.result(10)
    assert await gone.snapshot() is None
    assert await kept.snapshot() is not None
