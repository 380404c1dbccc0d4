"""Where Redis is: URLs, clients that the caller made, passwords that nobody sees."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import redis.asyncio

from streamq import InvalidInput, Queue, Settings
from streamq._engine.endpoint import Endpoint, hide_password
from streamq._engine.wire import Wire
from streamq.errors import StoreUnavailable
from tests.servers import RedisServer


async def ask(endpoint: Endpoint, *command: Any) -> Any:
    wire = Wire(endpoint)
    try:
        return await wire.call(*command)
    finally:
        await wire.close()


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("redis://:hunter2@host:1/0", "redis://:***@host:1/0"),
        ("redis://bank:hunter2@host", "redis://bank:***@host"),
        ("failed at redis://:a@b and rediss://u:c@d/1", "failed at redis://:***@b and rediss://u:***@d/1"),
        ("no redis://:hunter/2@host:1/0", "no redis://:***@host:1/0"),
        ("redis://host?db=1&password=hunter2&timeout=1", "redis://host?db=1&password=***&timeout=1"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("unix:///tmp/redis.sock", "unix:///tmp/redis.sock"),
    ],
)
def test_a_password_in_a_text_is_hidden(text: str, hidden: str) -> None:
    assert hide_password(text) == hidden


def test_no_piece_of_a_password_shows_when_the_url_can_not_be_read() -> None:
    with pytest.raises(InvalidInput) as caught:
        Endpoint("redis://:hunter/2@host:1/0", 5.0)
    assert "hunter" not in str(caught.value)
    assert "percent-encode" in str(caught.value)


async def test_a_tcp_and_a_unix_address_reach_the_same_server(server: RedisServer) -> None:
    for url in (server.url, server.unix_url):
        assert await ask(Endpoint(url, 5.0), "PING") == b"PONG"


async def test_the_database_and_the_clients_name_of_the_url_count(server: RedisServer) -> None:
    endpoint = Endpoint(f"{server.unix_url}?db=3&client_name=bank", 5.0)
    info = (await ask(endpoint, "CLIENT", "INFO")).decode()
    assert " db=3 " in info
    assert " name=bank " in info


async def test_a_password_is_used_and_never_shown(server: RedisServer) -> None:
    server.call("CONFIG", "SET", "requirepass", "hunter2")
    address = f"127.0.0.1:{server.port}/0"
    endpoint = Endpoint(f"redis://:hunter2@{address}", 5.0)
    assert await ask(endpoint, "PING") == b"PONG"
    with pytest.raises(StoreUnavailable) as raised:
        await ask(Endpoint(f"redis://:wrongpass@{address}", 5.0), "PING")
    assert "wrongpass" not in str(raised.value)
    assert "invalid" in str(raised.value).lower()
    assert "hunter2" not in repr(endpoint) + repr(Queue("q", f"redis://:hunter2@{address}"))


async def test_a_client_that_decodes_replies_changes_nothing_and_stays_its_owners(redis_url: str) -> None:
    client = redis.asyncio.Redis.from_url(redis_url, decode_responses=True, protocol=3)
    async with Queue("q", client) as queue:
        job = await queue.add("work", {"n": 1})
        found = await queue.get_job(job.id)
        assert found is not None
        assert found.data == {"n": 1}
    assert await client.ping()
    assert await client.xlen("sq:{q}:lane:3") == 1
    await client.aclose()


async def test_a_client_made_of_parts_is_understood(server: RedisServer) -> None:
    client = redis.asyncio.Redis(host="127.0.0.1", port=server.port or 0, db=2)
    assert " db=2 " in (await ask(Endpoint(client, 5.0), "CLIENT", "INFO")).decode()
    await client.aclose()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("http://host", "http://host is no Redis URL: "),
        ("redis://host/zero?socket_timeout=soon", "redis://host/zero?socket_timeout=soon is no Redis URL: "),
        ("http://:hunter2@host", "http://:***@host is no Redis URL: "),
        (5, "redis must be a URL or a redis.asyncio client, not int"),
        (redis.Redis(), "redis must be a URL or a redis.asyncio client, not Redis"),
    ],
)
def test_what_is_no_redis_is_refused_when_it_is_given(target: Any, text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Endpoint(target, 5.0)
    assert str(raised.value).startswith(text)


async def test_an_address_where_nobody_listens_is_named(server: RedisServer) -> None:
    server.kill()
    with pytest.raises(
        StoreUnavailable, match=rf"no connection to Redis at <Endpoint 127\.0\.0\.1:{server.port} db 0>"
    ):
        await ask(Endpoint(server.url, 1.0), "PING")


async def test_a_server_that_does_not_answer_is_given_up_in_time(server: RedisServer) -> None:
    server.pause()
    with pytest.raises(StoreUnavailable):
        await ask(Endpoint(server.url, 0.2), "PING")


async def test_a_queue_takes_its_address_from_the_environment(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", server.url)
    async with Queue("q") as queue:
        await queue.add("work")
    assert server.call("XLEN", "sq:{q}:lane:3") == 1


async def test_an_explicit_address_comes_before_the_settings(server: RedisServer) -> None:
    async with Queue("q", server.url, settings=Settings(redis_url="redis://nowhere.invalid:1/0")) as queue:
        assert (await queue.stats()).total == 0
