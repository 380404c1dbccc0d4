"""The one point that every transition passes: lost scripts, outages, refusals, the observer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from streamq import FlowJob, Queue, Retention, Settings
from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.wire import Wire
from streamq.errors import StoreRefused, StoreUnavailable
from streamq.observer import Observer
from tests.servers import RedisServer


class Notes(Observer):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, BaseException | None]] = []

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        assert seconds >= 0
        self.seen.append((queue, name, error))


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
async def store(redis_url: str, notes: Notes) -> AsyncIterator[Store]:
    wire = Wire(Endpoint(redis_url, 5.0))
    yield Store("q", wire, Settings(timeout=5.0), notes)
    await wire.close()


async def test_a_script_that_the_server_has_lost_goes_along_in_full(store: Store, client: redis.Redis) -> None:
    client.script_flush()
    await store.stats()
    assert store.script_reloads == 1
    await store.stats()
    assert store.script_reloads == 1
    client.script_flush()
    await store.stats()
    assert store.script_reloads == 2


async def test_the_observer_is_told_of_every_transition_and_of_how_it_failed(store: Store, notes: Notes) -> None:
    await store.stats()
    await store.wire.call("SET", "sq:{q}:lane:3", "no stream")
    with pytest.raises(StoreRefused) as raised:
        await store.stats()
    assert notes.seen == [("q", "stats", None), ("q", "stats", raised.value)]
    await store.wire.call("DEL", "sq:{q}:lane:3")


async def test_an_observer_that_raises_is_logged_and_changes_nothing(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Observer):
        def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
            raise ValueError("the observer is broken")

    async with Queue("q", redis_url, observer=Broken()) as queue:
        assert (await queue.add("work")).id == "1"
    assert "an observer failed on transition" in caplog.text


async def test_a_call_waits_through_an_outage(server: RedisServer) -> None:
    wire = Wire(Endpoint(server.url, 1.0))
    store = Store("q", wire, Settings(timeout=20.0))
    await store.pause()
    server.kill()
    call = asyncio.create_task(store.stats())
    server.start()
    assert (await call).paused
    await wire.close()


async def test_a_call_gives_up_when_its_time_is_over_and_says_why(server: RedisServer) -> None:
    wire = Wire(Endpoint(server.url, 0.2))
    store = Store("q", wire, Settings(timeout=0.3))
    server.kill()
    with pytest.raises(StoreUnavailable, match="no connection to Redis"):
        await store.stats()
    await wire.close()


async def test_a_refusal_that_stays_is_not_repeated(store: Store, notes: Notes) -> None:
    await store.wire.call("SET", "sq:{q}:id", "no number")
    with pytest.raises(StoreRefused, match="Redis refused: ERR value is not an integer"):
        await store.add("n", 1, [], within=5)
    assert len(notes.seen) == 1


async def test_a_refusal_that_passes_is_waited_for(server: RedisServer) -> None:
    wire = Wire(Endpoint(server.url, 1.0))
    store = Store("q", wire, Settings(timeout=20.0))
    server.call("REPLICAOF", "127.0.0.1", "1")  # read-only now
    call = asyncio.create_task(store.pause())
    await asyncio.wait((call,), timeout=0.1)
    assert not call.done()
    server.call("REPLICAOF", "NO", "ONE")
    assert await call is True
    await wire.close()


async def test_a_refusal_that_lasts_too_long_is_raised(server: RedisServer) -> None:
    wire = Wire(Endpoint(server.url, 1.0))
    store = Store("q", wire, Settings(timeout=0.3))
    server.call("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreRefused, match="READONLY"):
        await store.pause()
    await wire.close()


async def test_a_call_over_a_closed_wire_is_not_repeated(redis_url: str) -> None:
    wire = Wire(Endpoint(redis_url, 5.0))
    store = Store("q", wire, Settings(timeout=3_600))
    await wire.close()
    with pytest.raises(StoreUnavailable, match="closed by its owner"):
        await asyncio.wait_for(store.stats(), 30)


class LosesAReply(Wire):
    """Loses the reply of the first script that ran."""

    lost = False

    async def call(self, *command: Any, wait: float = 0.0) -> Any:
        reply = await super().call(*command, wait=wait)
        if not self.lost and not isinstance(reply, Exception):
            self.lost = True
            raise StoreUnavailable("the reply was lost")
        return reply


@pytest.mark.parametrize("keep", [0, 10])
async def test_a_cancel_whose_reply_was_lost_says_so_however_it_is_kept(redis_url: str, keep: int) -> None:
    settings = Settings(keep_cancelled=Retention(count=keep))
    async with Queue("q", redis_url) as queue:
        job = await queue.add("work")
        wire = LosesAReply(Endpoint(redis_url, 5.0))
        assert await Store("q", wire, settings).cancel(job.id, "") == "cancelled"
        assert wire.lost
        await wire.close()
        assert (await queue.stats()).cancelled == min(keep, 1)


async def test_a_retry_whose_reply_was_lost_finds_the_job_waiting_for_its_children(redis_url: str) -> None:
    async with Queue("q", redis_url) as queue:
        top = await queue.add_flow(FlowJob("top", children=[FlowJob("child")]))
        assert await top.cancel()
        wire = LosesAReply(Endpoint(redis_url, 5.0))
        assert await Store("q", wire, Settings()).retry(top.id) == "retried"
        assert wire.lost
        await wire.close()
