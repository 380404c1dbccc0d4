"""What somebody else writes over a queue's keys, before a real worker: mended, or told aloud until it is gone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
import redis

from streamq import ActiveJob, Queue
from tests.faults.workers import eventually
from tests.integration.conftest import PATIENCE, Bench

JOB = ActiveJob[object]


async def echo(job: JOB) -> object:
    return job.data


async def test_a_wake_list_of_another_type_is_made_anew(queue: Queue, bench: Bench, client: redis.Redis) -> None:
    async with bench.worker(echo):
        assert await (await queue.add("a", 1)).result(PATIENCE) == 1
        client.set("sq:{q}:wake", "x", px=100_000)
        assert await (await queue.add("b", 2)).result(PATIENCE) == 2
        assert await (await queue.add("c", 3)).result(PATIENCE) == 3


async def test_a_worker_that_starts_before_a_wake_list_of_another_type_makes_it_anew(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    client.set("sq:{q}:wake", "x")
    trouble: list[BaseException] = []
    async with bench.worker(echo, on_error=trouble.append):
        await eventually(lambda: client.type("sq:{q}:wake") != b"string", PATIENCE)  # and nobody adds meanwhile
        assert await (await queue.add("a", 1)).result(PATIENCE) == 1
    assert trouble == []


@pytest.mark.parametrize("key", ["lane:1", "delayed", "meta", "workers"])
async def test_what_cannot_be_mended_is_told_and_the_worker_goes_on_once_it_is_gone(
    key: str, queue: Queue, bench: Bench, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    errors: list[str] = []

    def on_error(error: BaseException) -> None:
        errors.append(str(error))
        loop.call_soon_threadsafe(told.set)

    async with bench.worker(echo, on_error=on_error):
        client.set(f"sq:{{q}}:{key}", "x")
        await queue._store.wake()
        await asyncio.wait_for(told.wait(), PATIENCE)
        client.delete(f"sq:{{q}}:{key}")
        assert await (await queue.add("a", 1)).result(PATIENCE) == 1
    assert "WRONGTYPE" in errors[0]
    assert "WRONGTYPE" in caplog.text


async def test_a_record_that_is_overwritten_becomes_a_dead_letter(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    job = await queue.add("a", {"n": 1}, job_id="mine", delay=60)
    client.delete("sq:{q}:job:mine")
    client.set("sq:{q}:job:mine", "x")
    client.zadd("sq:{q}:delayed", {job.id: 1})
    async with bench.worker(echo):
        assert await (await queue.add("b", 2)).result(PATIENCE) == 2
        await bench.happened("dead", job.id)
    (letter,) = await queue.dead_letters()
    assert (letter.job_id, letter.error and letter.error.type) == ("mine", "BrokenRecord")
    assert "WRONGTYPE" in str(letter.error)


@pytest.mark.parametrize("what", ["a string", "no fields of ours", "fields that are none", "half of it"])
async def test_a_schedule_that_is_none_keeps_no_other_from_firing(
    what: str, queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    await queue.upsert_schedule("broken", every=0.2, name="broken")
    key = "sq:{q}:schedule:broken"
    if what == "a string":
        client.delete(key)
        client.set(key, "x")
    elif what == "no fields of ours":
        client.delete(key)
        client.hset(key, "hello", "world")
    elif what == "half of it":
        client.hdel(key, "overlap", "next", "lane")
    else:
        client.hset(key, mapping={"spec": b"\xc1", "anchor": "x", "next": "y", "rev": b"\xff", "lane": "9"})
    client.zadd("sq:{q}:schedules", {"broken": 1})
    told = asyncio.Event()
    async with bench.worker(echo, on_error=lambda error: told.set()):
        await queue.upsert_schedule("sound", every=0.2, name="sound", data=1)
        async with asyncio.timeout(PATIENCE), aclosing(queue.events(after="0-0")) as events:
            async for event in events:
                if event.kind == "completed" and event.job_id.startswith("sound@"):
                    break
        await asyncio.wait_for(told.wait(), PATIENCE)
