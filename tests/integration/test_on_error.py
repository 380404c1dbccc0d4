"""`on_error`: whoever owns a queue or a worker hears of trouble that no call raises, and nothing ends by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from streamq import (
    Queue,
    Settings,
    Unrecoverable,
    Worker,
    close_all_queues,
    create_queue_events,
    create_worker,
    get_queue,
)
from streamq.errors import StoreError
from streamq.events import Event
from tests.integration.conftest import PATIENCE, Bench
from tests.servers import RedisServer


class Told:
    """Notes what `on_error` is told, and can raise in its turn."""

    def __init__(self, raises: BaseException | None = None) -> None:
        self.errors: list[BaseException] = []
        self.heard = asyncio.Event()
        self._raises = raises

    def __call__(self, error: BaseException) -> None:
        self.errors.append(error)
        self.heard.set()
        if self._raises is not None:
            raise self._raises

    async def wait(self) -> None:
        """Wait until there is something new."""
        async with asyncio.timeout(PATIENCE):
            await self.heard.wait()
        self.heard.clear()


@pytest.mark.parametrize("raises", [None, ValueError("of its own")])
async def test_a_worker_and_a_queue_tell_of_an_outage_and_go_on(
    server: RedisServer, raises: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    of_worker, of_queue = Told(raises), Told(raises)
    settings = Settings(redis_url=server.url, timeout=1.0, lease=2.0)

    async def run(job: Any) -> str:
        return "ran"

    async def ends(events: AsyncIterator[Event]) -> None:
        while (await anext(events)).kind != "completed":
            pass

    queue = Queue("q", settings=settings, on_error=of_queue)
    async with (
        queue,
        aclosing(queue.events(after="0-0")) as events,
        Worker("q", run, settings=settings, on_error=of_worker),
    ):
        await queue.add("a")
        await asyncio.wait_for(ends(events), PATIENCE)
        reading = asyncio.ensure_future(ends(events))
        server.kill()
        await of_worker.wait()
        await of_queue.wait()
        server.start()
        assert await (await queue.add("b")).result(PATIENCE) == "ran"
        await asyncio.wait_for(reading, PATIENCE)
    assert all(isinstance(error, StoreError) for error in (*of_worker.errors, *of_queue.errors))
    assert ("on_error failed when it was told of Store" in caplog.text) == (raises is not None)


async def test_a_loop_of_the_worker_that_fails_is_told_of_and_goes_on_whatever_is_said_to_it(
    queue: Queue, bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(raises=RuntimeError("no"))
    worker = bench.worker(lambda job: "ran", on_error=told)
    turn, failures = worker._parts[0].ticker._turn, [ValueError("broken")]

    async def broken() -> None:
        if failures:
            raise failures.pop()
        await turn()

    monkeypatch.setattr(worker._parts[0].ticker, "_turn", broken)
    async with worker:
        assert await (await queue.add("a")).result(PATIENCE) == "ran"
    assert [str(error) for error in told.errors] == ["broken"]
    assert "on_error failed when it was told of ValueError" in caplog.text


async def test_a_queue_tells_of_a_dead_letter_handler_that_failed(queue: Queue, bench: Bench) -> None:
    told = Told()
    queue.on_error = told

    def break_down(letter: Any) -> None:
        raise KeyError(letter.job_id)

    def run(job: Any) -> None:
        raise Unrecoverable

    await queue.on_dead(break_down)
    async with bench.worker(run):
        job = await queue.add("a")
        await told.wait()
    assert [type(error) for error in told.errors] == [KeyError]
    assert told.errors[0].args == (job.id,)


async def test_the_flat_functions_take_both(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    of_worker, of_queue = Told(), Told()

    def break_down(event: Any) -> None:
        raise KeyError(event.kind)

    try:
        get_queue("emails").on_error = of_queue
        worker = create_worker("emails", lambda job: None, on_error=of_worker)
        events = create_queue_events("emails")
        events.on("completed", break_down)
        await events.wait_until_ready()
        await get_queue("emails").add("a")
        await of_queue.wait()
        assert [repr(error) for error in of_queue.errors] == ["KeyError('completed')"]
        worker._parts[0].store.on_error(ValueError("x"))
        assert [str(error) for error in of_worker.errors] == ["x"]
    finally:
        await close_all_queues()
