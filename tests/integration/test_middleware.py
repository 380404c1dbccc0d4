"""Middleware around adds and runs, and payloads that are sealed in Redis."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import redis

from streamq import ActiveJob, FlowJob, InvalidInput, JobFailed, Processors, Queue, Schedule, Settings, Worker
from streamq.encryption import Encryption
from streamq.errors import UnreadablePayload
from streamq.middleware import Adding, Middleware
from streamq.payload import Codec, Codecs, Compression
from tests.integration.conftest import PATIENCE, Bench

SECRET = "DE02120300000000202051"  # noqa: S105
OLD, NEW = os.urandom(32), os.urandom(32)
current: ContextVar[str] = ContextVar("current", default="")


class Notes(Middleware):
    """Notes what it is entered around."""

    def __init__(self, name: str, notes: list[str], swallow: bool = False) -> None:
        self.name, self.notes, self.swallow = name, notes, swallow

    @asynccontextmanager
    async def adding(self, adding: Adding) -> AsyncIterator[None]:
        self.notes.append(f"{self.name} adds {adding.jobs} {adding.name}".rstrip())
        adding.headers["from"] = self.name
        yield
        self.notes.append(f"{self.name} has added")

    @asynccontextmanager
    async def running(self, job: ActiveJob[Any]) -> AsyncIterator[None]:
        token = current.set(job.headers.get("from", ""))
        self.notes.append(f"{self.name} runs")
        try:
            yield
        except OSError:
            if not self.swallow:
                raise
        finally:
            current.reset(token)
            self.notes.append(f"{self.name} has run")


async def test_middleware_is_entered_around_adds_in_order(settings: Settings) -> None:
    notes: list[str] = []
    async with Queue("q", settings=settings, middleware=[Notes("a", notes), Notes("b", notes)]) as queue:
        first = await queue.add("one", headers={"own": "1"})
        (second,) = await queue.add_many([("two", None)])
        third = await queue.add_flow(FlowJob("top", children=[FlowJob("below")]))
        assert notes == [
            *("a adds 1 one", "b adds 1 one", "b has added", "a has added"),
            *("a adds 1", "b adds 1", "b has added", "a has added"),
            *("a adds 2", "b adds 2", "b has added", "a has added"),
        ]
        for job, headers in ((first, {"from": "b", "own": "1"}), (second, {"from": "b"}), (third, {"from": "b"})):
            snapshot = await job.snapshot()
            assert snapshot is not None
            assert snapshot.headers == headers


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("timeout", [None, 20])
async def test_middleware_is_entered_around_runs_and_its_context_reaches_the_handler(
    settings: Settings, in_thread: bool, timeout: float | None
) -> None:
    notes: list[str] = []
    processors = Processors(middleware=[Notes("a", notes)])

    def plain(job: ActiveJob[Any]) -> str:
        notes.append("handler")
        return current.get()

    async def on_loop(job: ActiveJob[Any]) -> str:
        return plain(job)

    processors.register("one", timeout=timeout)(plain if in_thread else on_loop)
    outer = Processors()
    outer.update(processors)
    async with (
        Queue("q", settings=settings, middleware=[Notes("producer", [])]) as queue,
        Worker("q", outer, settings=settings, middleware=[Notes("b", notes)]),
    ):
        assert await (await queue.add("one")).result(PATIENCE) == "producer"
    assert notes == ["a runs", "b runs", "handler", "b has run", "a has run"]


async def test_what_middleware_raises_fails_the_add_or_the_attempt(queue: Queue, settings: Settings) -> None:
    class Refusing(Middleware):
        @asynccontextmanager
        async def adding(self, adding: Adding) -> AsyncIterator[None]:
            raise PermissionError("no tenant")
            yield

        @asynccontextmanager
        async def running(self, job: ActiveJob[Any]) -> AsyncIterator[None]:
            raise PermissionError("no such tenant")
            yield

    async def run(job: ActiveJob[Any]) -> None: ...

    async with Queue("q", settings=settings, middleware=[Refusing()]) as refused:
        with pytest.raises(PermissionError, match="no tenant"):
            await refused.add("one")
    assert (await queue.stats()).total == 0
    async with Worker("q", run, settings=settings, middleware=[Refusing()]):
        with pytest.raises(JobFailed, match="PermissionError: no such tenant"):
            await (await queue.add("one", attempts=2)).result(PATIENCE)


async def test_middleware_may_swallow_what_a_handler_raises(queue: Queue, settings: Settings) -> None:
    async def run(job: ActiveJob[Any]) -> str:
        raise OSError("gone")

    async with Worker("q", run, settings=settings, middleware=[Notes("a", [], swallow=True)]):
        assert await (await queue.add("one")).result(PATIENCE) is None


def test_what_is_no_middleware_and_a_second_codec_are_refused() -> None:
    with pytest.raises(InvalidInput, match="a middleware must be a Middleware, not 5"):
        Processors(middleware=[5])  # type: ignore[list-item]
    both = Processors(codec=Codec())
    with pytest.raises(InvalidInput, match="two registries bring different codecs: a worker has one"):
        both.update(Processors(codec=Codec()))


def everything(client: redis.Redis) -> bytes:
    """All that is in Redis, as far as values go."""
    client.config_set("rdbcompression", "no")  # or DUMP may pack the very bytes that are looked for
    found = b"".join(client.dump(key) for key in client.scan_iter())
    client.config_set("rdbcompression", "yes")
    return found


async def test_sealed_data_results_steps_and_cursors_are_nowhere_in_redis(
    settings: Settings, client: redis.Redis
) -> None:
    codec = Encryption({"new": NEW}, "new")
    processors = Processors(codec=codec)

    @processors.register("pay")
    async def pay(job: ActiveJob[Any]) -> Any:
        step = await job.step("remember", lambda: job.data)
        await job.progress("in the clear, as is said")
        if job.attempt == 1:
            await job.save_cursor(job.data)
            raise OSError("later")
        return [step, job.cursor, job.data]

    @processors.register("parent")
    async def parent(job: ActiveJob[Any]) -> Any:
        if not job.children:
            await job.add_children([FlowJob("pay", job.data)])
        return await job.children_results()

    @processors.register("broken", attempts=1)
    async def broken(job: ActiveJob[Any]) -> None:
        raise ValueError("broken")

    async with Queue("q", settings=settings, codec=codec) as queue:
        await queue.upsert_schedule("s", Schedule(every=3600, name="pay", data=SECRET))
        later = await queue.add("pay", "other", delay=3_600)
        await queue.update_data(later.id, SECRET)
        async with Worker("q", processors, settings=settings):
            job = await queue.add("pay", SECRET, attempts=2)
            assert await job.result(PATIENCE) == [SECRET] * 3
            assert await (await queue.add("parent", SECRET)).result(PATIENCE) == [[SECRET] * 3]
            dead = await queue.add("broken", SECRET)
            with pytest.raises(JobFailed, match="broken"):
                await dead.result(PATIENCE)
        held = everything(client)
        assert b"in the clear, as is said" in held
        assert SECRET.encode() not in held
        seen = await job.snapshot()
        assert seen is not None
        assert (seen.data, seen.result) == (SECRET, [SECRET] * 3)
        assert [found.data for found in await queue.dead_letters()] == [SECRET]
        schedule = await queue.get_schedule("s")
        assert schedule is not None
        assert schedule.schedule.data == SECRET


async def test_jobs_under_an_old_key_and_plain_ones_run_while_the_key_is_changed(settings: Settings) -> None:
    old, both = Encryption({"old": OLD}, "old"), Codecs(Compression(10), Encryption({"old": OLD, "new": NEW}, "new"))

    async def run(job: ActiveJob[Any]) -> Any:
        return job.data

    jobs = []
    async with Queue("q", settings=settings, codec=both) as reader:
        for codec in (None, old, both):
            async with Queue("q", settings=settings, codec=codec) as queue:
                jobs.append((await queue.add("one", "x" * 100)).id)
        async with Worker("q", run, settings=settings, codec=both):
            assert [await reader.result(job, PATIENCE) for job in jobs] == ["x" * 100] * 3


async def test_a_key_that_the_worker_lacks_makes_a_dead_letter_that_runs_once_it_has_it(
    settings: Settings, client: redis.Redis
) -> None:
    codec = Encryption({"old": OLD, "new": NEW}, "new")
    why = "its data can't be opened: it is encrypted under the key 'new', which is not known here"

    async def run(job: ActiveJob[Any]) -> Any:
        return job.data

    async with Queue("q", settings=settings, codec=codec) as queue:
        job = await queue.add("one", SECRET, attempts=5)
        async with Worker("q", run, settings=settings, codec=Encryption({"old": OLD}, "old")):
            with pytest.raises(JobFailed, match=f"UnreadablePayload: {why}"):
                await job.result(PATIENCE)
        assert SECRET.encode() not in everything(client)
        await queue.redrive(everything=True)
        async with Worker("q", run, settings=settings, codec=codec):
            assert await job.result(PATIENCE) == SECRET
    async with Queue("q", settings=settings, codec=Encryption({"old": OLD}, "old")) as stranger:
        with pytest.raises(UnreadablePayload, match="under the key 'new', which is not known here"):
            await stranger.result(job.id, PATIENCE)


async def test_without_a_codec_sealed_data_fails_for_good(queue: Queue, bench: Bench, settings: Settings) -> None:
    async def run(job: ActiveJob[Any]) -> None: ...

    async with Queue("q", settings=settings, codec=Encryption({"new": NEW}, "new")) as sealed, bench.worker(run):
        with pytest.raises(JobFailed, match="Unrecoverable: its data does not fit"):
            await (await sealed.add("one", SECRET)).result(PATIENCE)
