"""The queue's events: their order, going on after one, gaps, lost connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import redis

from streamq import Backoff, InvalidInput, Queue, Settings, Worker
from streamq.events import Event
from tests.faults.workers import eventually
from tests.integration.conftest import PATIENCE, Bench


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    """Take the next `count` events."""
    async with asyncio.timeout(PATIENCE):
        return [await anext(events) for _ in range(count)]


async def test_a_jobs_events_come_in_the_order_of_its_life(queue: Queue, bench: Bench) -> None:
    async def run(job: Any) -> None:
        await job.progress(50)
        if job.attempt == 1:
            raise ValueError("once")

    job = await queue.add("a", delay=0.01, backoff=Backoff.fixed(0))
    async with bench.worker(run):
        kinds = await bench.history(job.id, "completed")
    assert kinds == [
        "delayed", "promoted", "active", "progress", "retrying", "active", "progress", "completed",
    ]  # fmt: skip


async def test_an_event_says_what_and_when(queue: Queue, bench: Bench) -> None:
    job = await queue.add("a")
    event = await bench.happened("added", job.id)
    assert (event.kind, event.job_id) == ("added", job.id)
    assert abs(datetime.now(UTC) - event.at) < timedelta(seconds=60)
    assert event.at.tzinfo is UTC


async def test_events_of_the_queue_have_no_job(queue: Queue) -> None:
    async with aclosing(queue.events(after="0-0")) as events:
        await queue.pause()
        await queue.pause()
        await queue.resume()
        job = await queue.add("a")
        await queue.remove(job.id)
        found = await take(events, 4)
    assert [(e.kind, e.job_id) for e in found] == [
        ("paused", ""), ("resumed", ""), ("added", job.id), ("removed", job.id),
    ]  # fmt: skip


async def test_without_a_place_to_go_on_from_only_what_comes_next_is_told(queue: Queue) -> None:
    await queue.add("a", job_id="before")
    async with aclosing(queue.events()) as events:
        first = asyncio.ensure_future(anext(events))
        new = []
        while not first.done():  # from some add on, it is told
            new.append((await queue.add("a")).id)
        assert first.result().job_id in new


async def test_reading_goes_on_behind_an_event_even_in_the_middle_of_a_folded_entry(queue: Queue) -> None:
    jobs = await queue.add_many([("a", n) for n in range(250)])
    async with aclosing(queue.events(after="0-0")) as events:
        everything = await take(events, 250)
    assert [event.job_id for event in everything] == [job.id for job in jobs]
    assert len({event.id.partition("/")[0] for event in everything}) == 3
    for at in (0, 1, 98, 99, 100, 150, 248):
        async with aclosing(queue.events(after=everything[at].id)) as events:
            assert await take(events, 249 - at) == everything[at + 1 :]


async def test_an_entrys_own_id_goes_on_behind_the_whole_entry(queue: Queue) -> None:
    await queue.add_many([("a", 1), ("a", 2)])
    last = await queue.add("a")
    async with aclosing(queue.events(after="0-0")) as events:
        first = (await take(events, 1))[0]
    async with aclosing(queue.events(after=first.id.partition("/")[0])) as events:
        assert (await take(events, 1))[0].job_id == last.id


async def test_a_reader_that_the_cap_has_overtaken_is_told_of_the_gap(settings: Settings) -> None:
    async with Queue("q", settings=msgspec.structs.replace(settings, events_cap=10)) as queue:
        await queue.add("a")
        async with aclosing(queue.events(after="0-0")) as events:
            first = (await take(events, 1))[0]
        for _ in range(5):
            await asyncio.gather(*(queue.add("a") for _ in range(3)))
        for n in range(300):
            await queue.add("a", n)
        async with aclosing(queue.events(after=first.id)) as events:
            gap, after = await take(events, 2)
    assert (gap.kind, gap.job_id) == ("gap", "")
    assert (after.kind, int(after.job_id) > 2) == ("added", True)


async def test_no_gap_is_told_where_there_is_none(queue: Queue) -> None:
    one, two = await queue.add("a"), await queue.add("a")
    async with aclosing(queue.events(after="0-0")) as events:
        found = await take(events, 2)
    assert [event.job_id for event in found] == [one.id, two.id]
    async with aclosing(queue.events(after=found[0].id)) as events:
        assert await take(events, 1) == found[1:]


async def test_reading_goes_on_over_a_killed_connection_without_loss_or_repetition(
    queue: Queue, client: redis.Redis
) -> None:
    jobs = []
    async with aclosing(queue.events(after="0-0")) as events:
        found = []
        for n in range(5):
            jobs += await queue.add_many([("a", n), ("a", n), ("a", n)])
            found += await take(events, 2)
            client.client_kill_filter(_type="normal", skipme=True)
        found += await take(events, 5)
    assert [event.job_id for event in found] == [job.id for job in jobs]


@pytest.mark.parametrize("after", ["", "yesterday", "5-0/x"])
async def test_what_is_no_place_in_the_stream_is_refused(queue: Queue, after: str) -> None:
    with pytest.raises(InvalidInput, match="after must be the id of an event"):
        await anext(queue.events(after=after))


async def test_the_connection_of_a_reader_ends_with_it(redis_url: str, client: redis.Redis) -> None:
    mark = "&" if "?" in redis_url else "?"
    async with Queue("q", f"{redis_url}{mark}client_name=reader") as queue:
        await queue.add("a")
        async with aclosing(queue.events(after="0-0")) as events:
            await take(events, 1)
            assert len([c for c in client.client_list() if c["name"] == "reader"]) == 2
        await eventually(lambda: len([c for c in client.client_list() if c["name"] == "reader"]) == 1, PATIENCE)


async def test_without_events_none_are_written_and_results_are_found_all_the_same(
    settings: Settings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamq.results.LOOK_AGAIN", 0.02)
    silent = msgspec.structs.replace(settings, events_cap=0)

    async def run(job: Any) -> str:
        await job.progress(50)
        return "ran"

    async with Queue("q", settings=silent) as queue, Worker("q", run, settings=silent):
        await queue.pause()
        job = await queue.add("a")
        await queue.resume()
        assert await job.result(PATIENCE) == "ran"
        await queue.clean(0)
    assert not client.exists("sq:{q}:events")
