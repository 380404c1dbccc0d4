"""The shared, pipelined connection: replies in order, cancelled callers, silence, the private names it stands on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import hiredis
import pytest
import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from streamq._engine.endpoint import Endpoint
from streamq._engine.wire import Wire
from streamq.errors import StoreUnavailable
from tests.servers import RedisServer


@pytest.fixture
async def wire(redis_url: str) -> AsyncIterator[Wire]:
    wire = Wire(Endpoint(redis_url, 5.0))
    yield wire
    await wire.close()


async def test_the_private_names_of_redis_py_that_the_wire_takes_over_are_there(redis_url: str) -> None:
    connection: AbstractConnection = await Endpoint(redis_url, 5.0).connect()
    assert isinstance(connection._writer.transport, asyncio.Transport)
    assert connection._reader is not None
    await connection.disconnect()


async def test_nothing_is_opened_before_the_first_command_and_one_connection_serves_all(wire: Wire) -> None:
    assert (wire.connects, wire.is_open) == (0, False)
    replies = await asyncio.gather(*(wire.call("ECHO", str(n)) for n in range(300)))
    assert replies == [str(n).encode() for n in range(300)]
    assert (wire.connects, wire.is_open) == (1, True)


async def test_replies_are_raw(wire: Wire) -> None:
    assert await wire.call("SET", "a", b"\xff") == b"OK"
    assert await wire.call("GET", "a") == b"\xff"
    assert await wire.call("GET", "b") is None
    assert await wire.call("LPUSH", "l", 1, 2.5, "x") == 3
    assert await wire.call("LRANGE", "l", 0, -1) == [b"x", b"2.5", b"1"]
    reply = await wire.call("GET", "l")
    assert isinstance(reply, hiredis.ReplyError)
    assert str(reply).startswith("WRONGTYPE")


async def test_a_pipeline_answers_each_command_in_its_place(wire: Wire) -> None:
    replies = await wire.pipeline(("SET", "a", "1"), ("INCR", "a"), ("LPOP", "a"), ("GET", "a"))
    assert replies[:2] == [b"OK", 2]
    assert isinstance(replies[2], hiredis.ReplyError)
    assert replies[3] == b"2"


async def test_a_cancelled_caller_never_gets_or_gives_away_anothers_reply(wire: Wire) -> None:
    await wire.call("PING")
    calls = [asyncio.create_task(wire.call("ECHO", str(n))) for n in range(100)]
    await asyncio.sleep(0)  # all are written, none is answered
    for call in calls[::2]:
        call.cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(reply, asyncio.CancelledError) for reply in found[::2])
    assert found[1::2] == [str(n).encode() for n in range(1, 100, 2)]
    assert await wire.call("ECHO", "after") == b"after"
    assert wire.connects == 1


async def test_a_cancelled_pipeline_leaves_replies_that_are_dropped(wire: Wire) -> None:
    await wire.call("PING")
    pipeline = asyncio.create_task(wire.pipeline(("ECHO", "a"), ("ECHO", "b")))
    await asyncio.sleep(0)
    pipeline.cancel()
    assert await wire.call("ECHO", "c") == b"c"


async def test_large_values_pass(wire: Wire) -> None:
    value = bytes(5_000_000)
    await wire.call("SET", "large", value)
    assert await wire.call("GET", "large") == value


async def test_a_connection_that_was_killed_fails_what_waits_and_the_next_command_opens_another(
    wire: Wire, redis_url: str
) -> None:
    client_id = await wire.call("CLIENT", "ID")
    waiting = asyncio.create_task(wire.call("BLPOP", "nothing", 0, wait=60))
    await asyncio.sleep(0)
    with redis.Redis.from_url(redis_url) as client:
        client.client_kill_filter(_id=client_id)
    with pytest.raises(StoreUnavailable, match=r"closed the connection|was lost"):
        await waiting
    assert await wire.call("PING") == b"PONG"
    assert wire.connects == 2


async def test_callers_that_find_the_connection_gone_open_one_together(wire: Wire) -> None:
    await wire.call("PING")
    wire.drop("test")
    assert not wire.is_open
    await asyncio.gather(*(wire.call("PING") for _ in range(50)))
    assert wire.connects == 2


async def test_a_dropped_connection_tells_why(wire: Wire) -> None:
    await wire.call("PING")
    waiting = asyncio.create_task(wire.call("BLPOP", "nothing", 0, wait=60))
    await asyncio.sleep(0)
    wire.drop("the owner says so")
    with pytest.raises(StoreUnavailable, match="the owner says so"):
        await waiting


async def test_a_closed_wire_stays_closed(redis_url: str) -> None:
    wire = Wire(Endpoint(redis_url, 5.0))
    await wire.call("PING")
    await wire.close()
    await wire.close()
    with pytest.raises(StoreUnavailable, match="closed by its owner"):
        await wire.call("PING")


async def test_a_server_that_stands_still_does_not_hold_its_callers(server: RedisServer) -> None:
    wire = Wire(Endpoint(server.url, 0.2))
    await wire.call("PING")
    server.pause()
    calls = [asyncio.create_task(wire.call("PING")) for _ in range(3)]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await call
    with pytest.raises(StoreUnavailable, match="no connection to Redis"):
        await wire.call("PING")
    server.cont()
    assert await wire.call("PING") == b"PONG"
    await wire.close()


async def test_a_blocking_command_gets_its_own_time_on_top(redis_url: str) -> None:
    wire = Wire(Endpoint(redis_url, 0.2))
    assert await wire.call("BLPOP", "nothing", "0.5", wait=5.0) is None
    assert wire.connects == 1
    await wire.close()
