"""A queue that is spread over shards: what is one queue's stays one queue's, and what holds holds over all shards."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
import redis

from streamq import (
    ActiveJob,
    DuplicateJob,
    FlowJob,
    InvalidInput,
    JobNotFound,
    JobOptions,
    JobState,
    Priority,
    Queue,
    RateLimit,
    Retention,
    Settings,
    Unique,
    Worker,
)
from streamq._engine.shards import SPAN, home, word_of
from streamq._engine.wire import Wire
from streamq.dead_letters import DeadLetter
from streamq.errors import PartlyAdded, QueueBusy, StoreRefused, WrongShards
from streamq.events import Event
from streamq.fairness import KeyLimits
from streamq.flat import QueueEvents
from streamq.queue import Shards
from streamq.sampling import Sampler
from streamq.sync import Queue as SyncQueue
from streamq.testing import drain, inline
from tests.integration.conftest import PATIENCE, Bench

SHARDS = 3


@pytest.fixture
def shards() -> int:
    """Over how many shards `queue` is spread."""
    return SHARDS


def shard_of(job_id: str) -> int:
    return int(job_id) // SPAN


async def echo(job: ActiveJob[Any]) -> Any:
    return job.data


class Gate:
    """A handler that keeps its jobs until it is opened, and notes how many were in it at once."""

    def __init__(self, expected: int) -> None:
        self.expected, self.running, self.most = expected, 0, 0
        self.full, self.open = asyncio.Event(), asyncio.Event()

    async def run(self, job: ActiveJob[Any]) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running >= self.expected:
            self.full.set()
        await self.open.wait()
        self.running -= 1

    async def fills_up(self, queue: Queue) -> None:
        """Wait until as many run as are expected; fail if there are more. Opens it."""
        async with asyncio.timeout(PATIENCE):
            await self.full.wait()
        for _ in range(20):
            assert (await queue.stats()).active == self.expected
        assert self.running == self.expected
        self.open.set()


# The number of shards -------------------------------------------------------------------------------------------------


async def test_a_process_with_another_number_is_refused_before_it_adds_anything(
    queue: Queue, settings: Settings
) -> None:
    await queue.add("a")
    async with Queue("q", settings=settings, shards=8) as other:
        with pytest.raises(WrongShards, match=r"queue q has 3 shards, not 8: give that number, or set_shards\(8\)"):
            await other.add("a")
        with pytest.raises(WrongShards):
            await other.stats()
    with pytest.raises(WrongShards, match="queue q has 3 shards, not 8"):
        await Worker("q", echo, settings=settings, shards=8).run()
    assert (await queue.stats()).waiting == 1


async def test_a_worker_that_knows_of_no_shards_is_refused_and_leaves_nothing_behind(
    queue: Queue, settings: Settings
) -> None:
    await queue.stats()
    worker = Worker("q", echo, settings=settings)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(WrongShards, match="queue q has 3 shards, not 1"):
            await worker.run()
    assert (await queue.stats()).workers == 0


async def test_a_job_of_a_shard_is_not_called_unknown_by_who_knows_of_no_shards(
    queue: Queue, settings: Settings
) -> None:
    jobs = await queue.add_many([("a", n) for n in range(3)])
    async with Queue("q", settings=settings) as plain:
        for job in jobs:
            if shard_of(job.id):
                with pytest.raises(WrongShards, match="queue q has 3 shards, not 1"):
                    await plain.get_job(job.id)
            else:
                assert await plain.get_job(job.id)


async def test_a_queue_that_was_used_without_shards_gets_none_by_the_way(settings: Settings) -> None:
    async with Queue("old", settings=settings) as plain, Queue("old", settings=settings, shards=3) as spread:
        await plain.add("a")
        with pytest.raises(WrongShards, match=r"queue old was used without shards, not with 3: .* set_shards\(3\)"):
            await spread.add("b")


async def test_the_stored_number_is_found_by_who_does_not_know_it(queue: Queue, settings: Settings) -> None:
    await queue.add_many([("a", n) for n in range(9)])
    async with Queue("q", settings=settings, shards="stored") as other:
        assert (await other.stats()).waiting == 9
        assert await other.count_shards() == 3
    async with Worker("q", echo, settings=settings, shards="stored"):
        await emptied(queue)


async def test_the_number_can_be_changed_while_the_queue_is_empty_and_not_while_it_is_not(
    queue: Queue, settings: Settings
) -> None:
    job = await queue.add("a")
    with pytest.raises(InvalidInput, match="queue q holds 1 jobs, 0 dead letters and 0 schedules: its number"):
        await queue.set_shards(2)
    with pytest.raises(InvalidInput, match="queue q can't grow to 2 shards, it has 3"):
        await queue.set_shards(2, grow=True)
    await queue.remove(job.id)
    await queue.set_shards(2)
    async with Queue("q", settings=settings, shards=2) as other:
        assert {shard_of((await other.add("a")).id) for _ in range(50)} == {0, 1}


async def test_a_queue_without_shards_grows_and_loses_sight_of_nothing(settings: Settings) -> None:
    async with Queue("old", settings=settings) as plain:
        ids = [(await plain.add("a", n)).id for n in range(3)]
        ids.append((await plain.add("a", 3, job_id="mine")).id)
        await plain.set_shards(4, grow=True)
        ids.append((await plain.add("a", 4)).id)  # a producer that was not told: shard 0 is served, too
    async with Queue("old", settings=settings, shards=4) as queue:
        ids += [(await queue.add("a", n)).id for n in range(5, 20)]
        assert [job.data for job_id in ids if (job := await queue.get_job(job_id))] == list(range(20))
        async with Worker("old", echo, settings=settings, shards=4):
            assert [await queue.result(job_id, PATIENCE) for job_id in ids] == list(range(20))


async def test_a_change_that_is_refused_leaves_no_shards_behind_that_nobody_serves(settings: Settings) -> None:
    async with Queue("q4", settings=settings, shards=4) as queue:
        ids = [job.id for job in await queue.add_many([("a", n) for n in range(8)])]
        with pytest.raises(InvalidInput, match="queue q4 holds 8 jobs"):
            await queue.set_shards(8)
        ids += [(await queue.add("a")).id for _ in range(60)]
        ids += [job.id for job in await queue.add_many([("a", n) for n in range(32)])]
        assert {shard_of(job_id) for job_id in ids} == {0, 1, 2, 3}
        assert len(set(ids)) == len(ids)
        assert await queue.count_shards() == 4


@pytest.mark.parametrize("shards", [4, "stored"])
async def test_a_change_that_redis_refuses_leaves_the_number_as_it_was(
    settings: Settings, client: redis.Redis, shards: Shards
) -> None:
    async with Queue("q4", settings=settings, shards=4) as first:
        await first.set_concurrency(9)
        await first.limit_key("acct", concurrency=1)
    async with Queue("q4", settings=settings, shards=shards) as queue:
        await queue.stats()
        client.config_set("min-replicas-to-write", 1)  # so it may read and not write
        try:
            with pytest.raises(StoreRefused, match="NOREPLICAS"):
                await queue.set_shards(8)
        finally:
            client.config_set("min-replicas-to-write", 0)
        assert {shard_of((await queue.add("a")).id) for _ in range(60)} == {0, 1, 2, 3}
        assert ((await queue.limits()).concurrency, await queue.count_shards()) == (9, 4)
        await queue.drain()
        await queue.set_shards(8)
        assert {shard_of((await queue.add("a")).id) for _ in range(200)} == set(range(8))
        assert (await queue.limits()).concurrency == 9
        assert (await queue.get_key("acct")).limits.concurrency == 1


async def test_whoever_changes_the_number_goes_on_with_the_new_one(queue: Queue) -> None:
    await queue.add("a")
    for number in (6, 2):
        await queue.drain()
        await queue.set_shards(number)
        assert {shard_of((await queue.add("a")).id) for _ in range(100)} == set(range(number))


async def test_who_goes_by_the_stored_number_follows_one_that_is_smaller(
    queue: Queue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.sharding.queue.READ_AGAIN", 0.0)
    async with Queue("q", settings=settings, shards="stored") as stored:
        sampler = Sampler(stored)
        for number in (3, 1, 2):
            await queue.drain()
            await queue.set_shards(number)
            assert {shard_of((await stored.add("a")).id) for _ in range(60)} == set(range(number))
            assert (await sampler.sample()).stats.waiting == 60


async def test_who_goes_by_the_stored_number_does_not_ask_for_it_with_each_call(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.sharding.queue.READ_AGAIN", 3_600.0)
    sent: list[str] = []
    call = Wire.call

    async def counted(wire: Wire, *command: Any, wait: float = 0.0) -> Any:
        sent.append(command[0])
        return await call(wire, *command, wait=wait)

    monkeypatch.setattr(Wire, "call", counted)
    numbers = []
    for name, shards in (("plain", None), ("alone", "stored")):
        sent.clear()
        async with Queue(name, settings=settings, shards=shards) as queue:  # type: ignore[arg-type]
            for n in range(20):
                await queue.add("a", n)
            await queue.stats()
        numbers.append(len(sent))
    assert numbers[1] == numbers[0] + 1


async def test_limits_and_a_pause_are_carried_over_to_another_number_of_shards(
    settings: Settings, client: redis.Redis
) -> None:
    async with Queue("old", settings=settings) as plain:
        await plain.set_concurrency(8)
        await plain.set_rate_limit(RateLimit(100, per=1.0))
        await plain.set_max_size(1_000)
        await plain.limit_key(concurrency=2, weight=5)
        await plain.pause()
        await plain.add("a")
        await plain.set_shards(4, grow=True)
    bases = ["sq:{old}", *(f"sq:{{old#{shard}}}" for shard in range(1, 6))]
    async with Queue("old", settings=settings, shards="stored") as queue:
        limits = await queue.limits()
        assert (limits.paused, limits.concurrency, limits.max_size) == (True, 8, 1_000)
        assert limits.rate == RateLimit(100, per=1.0)
        for base in bases[:4]:
            found = client.hmget(f"{base}:meta", "max_active", "rate_max", "key_active", "key_weight", "paused")
            assert found == [b"2", b"25", b"2", b"5", b"1"]
        await queue.drain()
        await queue.set_shards(2)
        assert (await queue.limits()).concurrency == 8
        await queue.resume()
        await queue.set_concurrency(None)
        await queue.limit_key(concurrency=None, weight=None)
        await queue.set_shards(4)
        for base in bases[:4]:
            found = client.hmget(f"{base}:meta", "max_active", "rate_max", "key_active", "key_weight", "paused")
            assert found == [None, b"25", None, None, None]


async def test_what_is_set_for_keys_goes_with_them_to_their_new_shard(settings: Settings) -> None:
    names = [f"acct-{n}" for n in range(12)]
    async with Queue("old", settings=settings, shards=2) as queue:
        for name in names:
            await queue.limit_key(name, concurrency=3, rate=RateLimit(5, per=2.0), weight=4)
        await queue.pause_key("acct-1")
        for number in (5, 3):
            await queue.set_shards(number)
            found = {key.key: key for key in await queue.keys()}
            assert (await queue.keys()).total == 12
            assert {home(word_of(key=name), number) for name in names} == set(range(number))
            for name in names:
                own = await queue.get_key(name)
                assert own == found[name]
                assert own.limits == KeyLimits(concurrency=3, rate=RateLimit(5, per=2.0), weight=4)
                assert own.paused == (name == "acct-1")


async def test_growing_waits_for_the_jobs_of_keys_with_settings_that_would_be_torn_apart(settings: Settings) -> None:
    moving = next(f"k{n}" for n in range(50) if home(word_of(key=f"k{n}"), 4))
    staying = next(f"k{n}" for n in range(50) if not home(word_of(key=f"k{n}"), 4))
    async with Queue("old", settings=settings) as plain:
        for key in (moving, staying):
            await plain.limit_key(key, concurrency=1)
            await plain.add("a", key=key)
        await plain.add("a", key="free")
        with pytest.raises(
            InvalidInput, match=rf"queue old can't go over to 4 shards: jobs of 1 keys .*\('{moving}'\)"
        ):
            await plain.set_shards(4, grow=True)
        assert await plain.count_shards() is None
        assert (await plain.get_key(moving)).limits.concurrency == 1
        await plain.limit_key(moving, concurrency=None)
        await plain.set_shards(4, grow=True)
        assert (await plain.get_key(staying)).limits.concurrency == 1


async def test_a_limit_that_can_not_be_split_over_more_shards_leaves_all_as_it_is(
    queue: Queue, settings: Settings
) -> None:
    await queue.set_concurrency(4)
    with pytest.raises(InvalidInput, match="concurrency must be at least 6, one for each shard, not 4"):
        await queue.set_shards(6)
    assert await queue.count_shards() == 3
    assert (await queue.limits()).concurrency == 4


# Where jobs go --------------------------------------------------------------------------------------------------------


async def test_plain_jobs_go_everywhere_and_their_ids_tell_where(queue: Queue) -> None:
    ids = [(await queue.add("a", n)).id for n in range(60)]
    assert {shard_of(job_id) for job_id in ids} == {0, 1, 2}
    assert [job.data for job_id in ids if (job := await queue.get_job(job_id))] == list(range(60))
    assert len(set(ids)) == 60


async def test_a_batch_is_spread_evenly_in_its_order_with_one_call_to_each_shard(queue: Queue, calls: Any) -> None:
    jobs = await queue.add_many([("a", n) for n in range(31)])
    assert sorted(Counter(shard_of(job.id) for job in jobs).values()) == [10, 10, 11]
    assert calls.names.count("add") == 3
    assert [job.data for one in jobs if (job := await one.snapshot())] == list(range(31))
    for shard in range(3):
        own = [int(job.id) for job in jobs if shard_of(job.id) == shard]
        assert own == sorted(own)


async def test_a_shard_that_refuses_its_part_of_a_batch_is_told_of_with_the_jobs_that_are_there(
    queue: Queue, settings: Settings
) -> None:
    key = "tenant"
    full = home(word_of(key=key), SHARDS)
    await queue.set_max_size(9)  # three for each shard
    await queue.add_many([("a", n, JobOptions(key=key)) for n in range(3)])
    with pytest.raises(PartlyAdded, match="2 of 3 jobs are in queue q; the shard of the others: queue q holds") as told:
        await queue.add_many([("a", n) for n in range(3)])
    there = [job_id for job_id in told.value.job_ids if job_id is not None]
    assert len(there) == 2
    assert full not in {shard_of(job_id) for job_id in there}
    assert (await queue.stats()).waiting == 5


async def test_an_id_of_ones_own_is_taken_once_and_found_again(queue: Queue) -> None:
    adds = await asyncio.gather(*(queue.add("a", n, job_id=f"mine-{n % 10}") for n in range(50)))
    assert sum(job.is_new for job in adds) == 10
    assert (await queue.stats()).waiting == 10
    for n in range(10):
        assert await queue.cancel(f"mine-{n}", "no need")
        await queue.retry(f"mine-{n}")
        assert await queue.remove(f"mine-{n}")
    with pytest.raises(JobNotFound):
        await queue.retry("mine-1")


async def test_a_unique_key_is_held_once_over_all_shards(queue: Queue) -> None:
    once = Unique("rebuild", on_conflict="raise")
    first = await queue.add("a", unique=once)
    for _ in range(10):
        with pytest.raises(DuplicateJob) as told:
            await queue.add("a", unique=once)
        assert told.value.job_id == first.id


async def test_a_keys_jobs_run_one_at_a_time_and_in_order_beside_others(queue: Queue, bench: Bench) -> None:
    order: list[int] = []
    running = most = 0

    async def run(job: ActiveJob[int]) -> None:
        nonlocal running, most
        if job.key is None:
            return
        running += 1
        most = max(most, running)
        order.append(job.data)
        await asyncio.sleep(0)
        running -= 1

    await queue.limit_key("tenant", concurrency=1)
    await queue.add_many([("a", n, JobOptions(key="tenant")) for n in range(20)] + [("a", n) for n in range(60)])
    assert [key.jobs for key in await queue.keys()] == [20]
    assert (await queue.get_key("tenant")).limits.concurrency == 1
    async with bench.worker(run, concurrency=10):
        await emptied(queue)
    assert order == list(range(20))
    assert most == 1


async def test_an_unknown_id_is_unknown_whatever_shard_it_names(queue: Queue) -> None:
    for job_id in ("17", str(SPAN + 17), str(50 * SPAN), "9" * 40, "mine"):
        assert await queue.get_job(job_id) is None


# Operations -----------------------------------------------------------------------------------------------------------


async def test_a_pause_holds_all_shards(queue: Queue, bench: Bench) -> None:
    await queue.pause()
    jobs = await queue.add_many([("a", n) for n in range(9)])
    async with bench.worker(echo):
        stats = await queue.stats()
        assert (stats.paused, stats.waiting, stats.active) == (True, 9, 0)
        await queue.resume()
        assert [await job.result(PATIENCE) for job in jobs] == list(range(9))
    assert not (await queue.limits()).paused


async def test_limits_are_split_and_read_back_as_a_whole(queue: Queue, client: redis.Redis) -> None:
    await queue.set_rate_limit(RateLimit(100, per=1.0))
    await queue.set_concurrency(10)
    await queue.set_max_size(1_000)
    limits = await queue.limits()
    assert (limits.rate, limits.concurrency, limits.max_size) == (RateLimit(100, per=1.0), 10, 1_000)
    bases = ("sq:{q}", "sq:{q#1}", "sq:{q#2}")
    shares = [[int(n) for n in client.hmget(f"{base}:meta", "rate_max", "max_active", "max_size")] for base in bases]  # type: ignore[union-attr, arg-type]
    assert shares == [[34, 4, 334], [33, 3, 333], [33, 3, 333]]
    await queue.set_rate_limit(None)
    await queue.set_concurrency(None)
    limits = await queue.limits()
    assert (limits.rate, limits.concurrency, limits.max_size) == (None, None, 1_000)


async def test_limits_that_can_not_be_split_are_refused_and_nothing_is_changed(queue: Queue) -> None:
    with pytest.raises(InvalidInput, match=r"a rate of 1 per 1 s can't be split over 3 shards.*\(3 per 3 s\)"):
        await queue.set_rate_limit(RateLimit(1, per=1.0))
    with pytest.raises(InvalidInput, match="concurrency must be at least 3, one for each shard, not 2"):
        await queue.set_concurrency(2)
    with pytest.raises(InvalidInput, match="can't be split"):
        Worker("q", echo, shards=3, limiter=RateLimit(2, per=1.0))
    limits = await queue.limits()
    assert (limits.rate, limits.concurrency) == (None, None)


async def test_a_queues_concurrency_holds_over_all_shards_and_workers(queue: Queue, bench: Bench) -> None:
    gate = Gate(4)
    await queue.set_concurrency(4)
    await queue.add_many([("a", n) for n in range(90)])
    async with bench.worker(gate.run, concurrency=20), bench.worker(gate.run, concurrency=20):
        await gate.fills_up(queue)
        await emptied(queue)
    assert gate.most == 4


async def test_pages_of_jobs_hold_each_job_once_and_keep_each_shards_order(queue: Queue) -> None:
    await queue.add_many([("a", n, JobOptions(priority=Priority(1 + n % 4))) for n in range(103)])
    for newest_first in (False, True):
        found, start = [], 0
        while start is not None:
            page = await queue.jobs(JobState.WAITING, start, 10, newest_first=newest_first)
            found += page
            start = page.next
        assert sorted(job.data for job in found) == list(range(103))
        priorities = [job.priority for job in found]
        assert priorities == sorted(priorities, reverse=newest_first)
        for shard in range(3):
            own = [(job.priority, int(job.id)) for job in found if shard_of(job.id) == shard]
            assert own == sorted(own, reverse=newest_first)
    skipped = await queue.jobs(JobState.WAITING, 100, 10)
    assert len(skipped) == 3
    assert len(await queue.jobs(JobState.WAITING, 0, 200, name="b")) == 0


@pytest.mark.parametrize("start", ["", "3:4", "[]", '[["",0]]', "[null]"])
async def test_a_cursor_of_another_queue_is_refused(queue: Queue, start: str) -> None:
    with pytest.raises(InvalidInput, match="start must be a number or a page's next"):
        await queue.jobs(JobState.WAITING, start)


async def test_ended_jobs_come_in_the_order_of_their_ends(queue: Queue, bench: Bench) -> None:
    jobs = []
    async with bench.worker(echo):
        for n in range(12):
            jobs.append(await queue.add("a", n))
            await jobs[-1].result(PATIENCE)
    found = [job.data for job in await queue.jobs(JobState.COMPLETED, count=5)]
    assert found == [0, 1, 2, 3, 4]
    assert [job.data for job in await queue.jobs(JobState.COMPLETED, count=3, newest_first=True)] == [11, 10, 9]


async def test_many_are_cancelled_cleaned_retried_and_drained_in_all_shards(queue: Queue, bench: Bench) -> None:
    told: list[tuple[int, int | None]] = []
    jobs = await queue.add_many([("a", n) for n in range(30)])
    ids = [job.id for job in jobs[:7]]
    assert await queue.cancel_many(ids=ids, on_progress=lambda *at: told.append(at)) == ids
    assert told[-1] == (7, 7)
    assert len(await queue.cancel_many(JobState.WAITING, 8)) == 8
    assert len(await queue.retry_many(JobState.CANCELLED, 10)) == 10
    assert len(await queue.clean(0, 3, JobState.CANCELLED)) == 3
    assert (await queue.stats()).cancelled == 2
    assert await queue.drain() == 25
    assert (await queue.stats()).total == 2


async def test_obliterate_refuses_while_a_job_of_any_shard_runs_and_keeps_the_number(
    queue: Queue, bench: Bench, settings: Settings, client: redis.Redis
) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def run(job: ActiveJob[Any]) -> None:
        begun.set()
        await end.wait()

    async with bench.worker(run):
        await queue.add("a")
        await begun.wait()
        await queue.add_many([("a", n, JobOptions(delay=60)) for n in range(9)])
        with pytest.raises(QueueBusy, match="queue q runs 1 jobs"):
            await queue.obliterate()
        assert (await queue.stats()).delayed == 9
        end.set()
        await emptied(queue)
    assert await queue.obliterate() == 10
    assert (await queue.stats()).total == 0
    left = {key.decode().partition("}:")[2] for key in client.scan_iter() if b":producer:" not in key}
    assert "shards" in left
    assert left <= {"id", "shards", "events", "workers"}
    async with Queue("q", settings=settings, shards="stored") as other:
        assert await other.count_shards() == 3


# Events, results, dead letters ----------------------------------------------------------------------------------------


async def test_events_of_all_shards_are_one_stream_that_goes_on_where_it_was_left(queue: Queue, bench: Bench) -> None:
    jobs = await queue.add_many([("a", n) for n in range(30)])
    await queue.pause()
    seen: list[Event] = []

    async def read(after: str, number: int) -> None:
        async with asyncio.timeout(PATIENCE), aclosing(queue.events(after)) as events:
            async for event in events:
                seen.append(event)
                if len(seen) >= number:
                    return

    await read("0-0", 7)
    await read(seen[-1].id, 19)
    await read(seen[-1].id, 31)
    assert Counter(event.job_id for event in seen if event.kind == "added") == {job.id: 1 for job in jobs}
    assert [event.kind for event in seen].count("paused") == 1
    with pytest.raises(InvalidInput, match="after is the id of an event of 4 shards, and the queue has 3"):
        await anext(queue.events("1-0|2-0|1-0|1-0"))
    with pytest.raises(InvalidInput, match="after must be the id of an event"):
        await anext(queue.events("1-0|x"))


async def test_an_event_of_before_the_queue_has_grown_is_a_place_to_go_on_from(settings: Settings) -> None:
    async def read(queue: Queue, after: str, number: int) -> list[Event]:
        seen: list[Event] = []
        async with asyncio.timeout(PATIENCE), aclosing(queue.events(after)) as events:
            async for event in events:
                seen.append(event)
                if len(seen) == number:
                    break
        return seen

    async with Queue("old", settings=settings) as plain:
        told = [await plain.add("a") for _ in range(3)]
        jobs = list(await plain.add_many([("a", n) for n in range(4)]))
        seen = await read(plain, "0-0", 5)
        assert [event.job_id for event in seen] == [job.id for job in (*told, *jobs[:2])]
        at, jobs = seen[-1].id, jobs[2:]
    for number in (2, 5):
        async with Queue("old", settings=settings, shards="stored") as queue:
            await queue.set_shards(number, grow=True)
            jobs += await queue.add_many([("a", n) for n in range(20)])
            seen = await read(queue, at, len(jobs))
        assert Counter(event.job_id for event in seen) == {job.id: 1 for job in jobs}
        at, jobs = seen[-1].id, []


async def test_handlers_of_the_flat_style_hear_of_every_shard(queue: Queue, bench: Bench) -> None:
    ended: set[str] = set()
    all_ended = asyncio.Event()

    def on_completed(event: Event) -> None:
        ended.add(event.job_id)
        if len(ended) == 12:
            all_ended.set()

    events = QueueEvents(queue)
    events.on("completed", on_completed)
    await events.wait_until_ready()
    async with bench.worker(echo), asyncio.timeout(PATIENCE):
        jobs = await queue.add_many([("a", n) for n in range(12)])
        await all_ended.wait()
    await events.close()
    assert ended == {job.id for job in jobs}


async def test_dead_letters_are_paged_redriven_and_purged_over_all_shards(queue: Queue, bench: Bench) -> None:
    told: list[str] = []
    all_told = asyncio.Event()

    def on_dead(letter: Any) -> None:
        told.append(letter.id)
        if len(told) == 20:
            all_told.set()

    async def fail(job: ActiveJob[int]) -> None:
        raise ValueError(job.data)

    watch = await queue.on_dead(on_dead)
    async with bench.worker(fail), asyncio.timeout(PATIENCE):
        await queue.add_many([("a", n, JobOptions(attempts=1)) for n in range(20)])
        await all_told.wait()
    await watch.stop()
    for newest_first in (False, True):
        found, start = [], None
        while True:
            page = await queue.dead_letters(start, 6, newest_first=newest_first)
            found += page
            start = page.next
            if start is None:
                break
        assert sorted(letter.data for letter in found) == list(range(20))
        assert [letter.failed_at for letter in found] == sorted(
            (letter.failed_at for letter in found if letter.failed_at), reverse=newest_first
        )
    assert set(told) == {letter.id for letter in found}
    one = found[3]
    assert (await queue.redrive(one)).job_ids == [one.job_id]
    assert await queue.purge_dead(found[4].id) == 1
    told: list[int] = []
    redriven = await queue.redrive(everything=True, on_progress=lambda done, total: told.append(done))
    assert len(redriven.job_ids) == 18
    assert told == sorted(told)
    assert told[-1] == 18
    with pytest.raises(InvalidInput, match="a dead letter's id looks like"):
        await queue.redrive("x")


async def test_a_watch_of_dead_letters_begins_behind_a_letter_with_one_shard_only(
    queue: Queue, settings: Settings
) -> None:
    async def fail(job: ActiveJob[int]) -> None:
        raise ValueError(job.data)

    for after in ("1790000000000-0#2", "1790000000000-0"):
        with pytest.raises(InvalidInput, match="on_dead can't go on behind a letter of queue q: its 3 shards write"):
            await queue.on_dead(print, after)
    told: list[int] = []
    all_told = asyncio.Event()

    def on_dead(letter: DeadLetter) -> None:
        told.append(letter.data)
        if letter.data == 3:
            all_told.set()

    async with Queue("alone", settings=settings, shards=1) as alone:
        await alone.add_many([("a", n, JobOptions(attempts=1)) for n in range(4)])
        await drain(alone, fail)
        first = (await alone.dead_letters())[0]
        watch = await alone.on_dead(on_dead, first.id)
        async with asyncio.timeout(PATIENCE):
            await all_told.wait()
        await watch.stop()
        assert told == [1, 2, 3]
        with pytest.raises(InvalidInput, match="a dead letter's id looks like"):
            await alone.on_dead(on_dead, "x")


async def test_dead_letters_go_over_to_a_queue_with_shards(queue: Queue, settings: Settings) -> None:
    async def fail(job: ActiveJob[int]) -> None:
        raise ValueError(job.data)

    async with Queue("from", settings=settings) as source:
        jobs = await source.add_many([("a", n, JobOptions(attempts=1)) for n in range(10)])
        await drain(source, fail)
        done = await source.redrive(everything=True, to=queue)
        assert sorted(done.job_ids) == sorted(f"from:{job.id}" for job in jobs)
    found = [await queue.get_job(job_id) for job_id in done.job_ids]
    assert sorted(job.data for job in found if job) == list(range(10))


async def test_ended_jobs_are_kept_up_to_the_number_for_all_shards(queue: Queue, settings: Settings) -> None:
    few = msgspec.structs.replace(settings, keep_completed=Retention(9))
    await queue.add_many([("a", n) for n in range(60)])
    async with Worker("q", echo, settings=few, shards=3):
        await emptied(queue)
    assert (await queue.stats()).completed == 9


# Schedules and flows --------------------------------------------------------------------------------------------------


async def test_a_schedule_is_in_one_shard_and_found_by_its_id(queue: Queue, bench: Bench) -> None:
    for n in range(6):
        await queue.upsert_schedule(f"s{n}", every=3_600, name="a", data=n)
        await queue.upsert_schedule(f"s{n}", every=3_600, name="a", data=n)
    assert sorted(s.id for s in await queue.schedules()) == [f"s{n}" for n in range(6)]
    async with bench.worker(echo):
        job = await queue.trigger_schedule("s4")
        assert await job.result(PATIENCE) == 4
        assert await queue.result(job.id, PATIENCE) == 4
    await queue.pause_schedule("s4")
    found = await queue.get_schedule("s4")
    assert found is not None
    assert found.paused
    assert await queue.remove_schedule("s4")
    assert not await queue.remove_schedule("s4")


async def test_a_schedule_fires_whatever_shard_it_is_in(queue: Queue, bench: Bench) -> None:
    ran: set[int] = set()
    all_ran = asyncio.Event()

    async def run(job: ActiveJob[int]) -> None:
        ran.add(job.data)
        if len(ran) == 6:
            all_ran.set()

    async with bench.worker(run), asyncio.timeout(PATIENCE):
        for n in range(6):
            await queue.upsert_schedule(f"s{n}", every=0.5, name="a", data=n)
        await all_ran.wait()


@pytest.mark.parametrize(("field", "value"), [("key", "tenant"), ("unique", Unique("u"))])
async def test_a_schedules_jobs_can_not_have_what_would_place_them_elsewhere(
    queue: Queue, field: str, value: Any
) -> None:
    with pytest.raises(InvalidInput, match=f"schedule 's' can't have a {field}: its jobs are in its own shard"):
        await queue.upsert_schedule("s", every=60, name="a", options=JobOptions(**{field: value}))
    assert await queue.schedules() == []


async def test_a_flow_is_in_one_shard_and_runs_whole(queue: Queue, bench: Bench) -> None:
    shards = set()
    async with bench.worker(echo):
        for n in range(9):
            children = [FlowJob("child", n) for _ in range(3)]
            top = await queue.add_flow(FlowJob("top", n, children=children))
            assert await queue.result(top.id, PATIENCE) == n
            ids = {top.id, *(child.id for child in await queue.children(top.id))}
            assert len({shard_of(job_id) for job_id in ids}) == 1
            shards.add(shard_of(top.id))
            tree = await queue.flow(top.id)
            assert tree.children == 3
    assert len(shards) > 1


async def test_a_flow_with_jobs_that_belong_elsewhere_is_refused(queue: Queue) -> None:
    below = FlowJob("child", options=JobOptions(job_id="mine"))
    with pytest.raises(InvalidInput, match=r"a flow is in one shard of queue q.*job 'child' below can't have a job_id"):
        await queue.add_flow(FlowJob("top", children=[below]))
    with pytest.raises(InvalidInput, match="a flow of queue q, which has shards, can't have jobs in reports"):
        await queue.add_flow(FlowJob("top", children=[FlowJob("child", queue="reports")]))
    assert (await queue.stats()).total == 0


async def test_a_running_job_adds_children_in_its_own_shard_and_none_elsewhere(queue: Queue, bench: Bench) -> None:
    async def run(job: ActiveJob[Any]) -> Any:
        if job.name == "child":
            return job.data
        if job.name == "astray":
            await job.add_children([FlowJob("child", 1, queue="reports")])
        if not job.children:
            await job.add_children([FlowJob("child", n) for n in range(3)])
        return sum(await job.children_results())

    async with bench.worker(run):
        jobs = await queue.add_many([("top", None) for _ in range(6)])
        assert [await job.result(PATIENCE) for job in jobs] == [3] * 6
        astray = await queue.add("astray", attempts=1)
        with pytest.raises(Exception, match="queue q, which has shards, can't have jobs in reports"):
            await astray.result(PATIENCE)


# The worker -----------------------------------------------------------------------------------------------------------


async def test_a_workers_concurrency_is_that_of_all_shards(queue: Queue, bench: Bench) -> None:
    gate = Gate(4)
    await queue.add_many([("a", n) for n in range(120)])
    async with bench.worker(gate.run, concurrency=4) as worker:
        assert worker.concurrency == 4
        await gate.fills_up(queue)
        await emptied(queue)
    assert gate.most == 4


async def test_a_shard_with_a_backlog_does_not_starve_the_others(queue: Queue, bench: Bench) -> None:
    order: list[str | None] = []

    async def run(job: ActiveJob[Any]) -> None:
        order.append(job.key)
        await asyncio.sleep(0.001)

    keys = {home(word_of(key=f"k{n}"), SHARDS): f"k{n}" for n in range(50)}
    await queue.pause()
    await queue.add_many([("a", n, JobOptions(key=keys[0])) for n in range(300)])
    await queue.add_many([("a", n, JobOptions(key=keys[shard])) for shard in (1, 2) for n in range(10)])
    async with bench.worker(run, concurrency=3):
        await queue.resume()
        await emptied(queue)
    last = max(at for at, key in enumerate(order) if key in (keys[1], keys[2]))
    assert last < 150, f"the last of 20 jobs of the other shards ran after {last} of 320"


async def test_cancelling_reaches_a_running_job_in_any_shard(queue: Queue, bench: Bench) -> None:
    begun = asyncio.Semaphore(0)

    async def run(job: ActiveJob[Any]) -> None:
        begun.release()
        await asyncio.Event().wait()

    async with bench.worker(run, concurrency=9), asyncio.timeout(PATIENCE):
        jobs = await queue.add_many([("a", n) for n in range(6)])
        for _ in jobs:
            await begun.acquire()
        found = await queue.workers()
        assert [worker.running for worker in found] == [6]
        assert all([await job.cancel() for job in jobs])
        await emptied(queue)
    assert (await queue.stats()).cancelled == 6


async def test_a_worker_stops_cleanly_and_hands_back_what_runs_in_any_shard(queue: Queue, bench: Bench) -> None:
    begun = asyncio.Semaphore(0)

    async def run(job: ActiveJob[Any]) -> None:
        begun.release()
        await asyncio.Event().wait()

    jobs = await queue.add_many([("a", n) for n in range(6)])
    async with bench.worker(run, concurrency=9) as worker, asyncio.timeout(PATIENCE):
        for _ in jobs:
            await begun.acquire()
        await worker.stop(grace=0)
    stats = await queue.stats()
    assert (stats.waiting, stats.active, stats.workers) == (6, 0, 0)
    found = [await job.snapshot() for job in jobs]
    assert {job.attempts_made for job in found if job} == {0}


# Beside the queue -----------------------------------------------------------------------------------------------------


async def test_a_queue_is_drained_in_tests_and_runs_inline(queue: Queue) -> None:
    await queue.add_many([("a", n) for n in range(12)])
    assert (await drain(queue, echo)).done == 12
    async with inline(queue, echo):
        job = await queue.add("a", 5)
        assert await job.result(timeout=1) == 5


async def test_what_the_exporter_shows_is_that_of_all_shards(queue: Queue, settings: Settings) -> None:
    await queue.add_many([("a", n) for n in range(12)])
    await queue.upsert_schedule("s", every=60, name="a")
    async with Queue("q", settings=settings, shards="stored") as stored:
        sample = await Sampler(stored).sample()
    assert (sample.stats.waiting, sample.schedules, sample.leases) == (12, 1, 0)
    assert sample.memory
    assert sum((await queue.tally(over=60)).counts.values()) == 12


async def test_code_that_blocks_has_the_same_queue(queue: Queue, redis_url: str) -> None:
    def work() -> int:
        with SyncQueue("q", redis_url, shards=3) as mine:
            jobs = mine.add_many([("a", n) for n in range(9)])
            assert [mine.get_job(job.id).data for job in jobs] == list(range(9))  # type: ignore[union-attr]
            return mine.stats().waiting

    assert await asyncio.to_thread(work) == 9


async def emptied(queue: Queue) -> None:
    """Wait until nothing waits or runs."""
    async with asyncio.timeout(PATIENCE), aclosing(queue.events("0-0")) as events:
        async for event in events:
            if event.kind in ("completed", "failed", "cancelled"):
                stats = await queue.stats()
                if not stats.waiting and not stats.active:
                    return
