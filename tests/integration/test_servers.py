"""The test server itself, and the fixtures that hand it out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis
import redis.asyncio

from tests.servers import RedisServer

ROOT = Path(__file__).resolve().parents[2]


def test_what_was_answered_outlives_a_kill(server: RedisServer) -> None:
    before = server.pid
    server.call("SET", "kept", "yes")
    server.kill()
    assert not server.answers()
    server.start()
    assert server.pid != before
    assert server.call("GET", "kept") == b"yes"


def test_a_frozen_server_answers_nothing_until_it_goes_on(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url, socket_timeout=0.2) as client:
        assert client.ping()
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.cont()
    assert server.call("PING")


def test_a_restarted_server_has_the_same_address(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
    server.restart()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


@pytest.mark.usefixtures("server")  # skips where there is none
def test_a_server_that_cannot_start_says_why() -> None:
    server = RedisServer(arguments=["--no-such-option", "1"])
    with pytest.raises(RuntimeError, match="no-such-option"):
        server.start()
    server.close()


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_finds_an_empty_database(redis_url: str, turn: int) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", turn)


async def test_the_address_works_for_an_asynchronous_client(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.ping()


LOSES_AN_EXCEPTION = """
import asyncio

async def fails(seen):
    seen.set()
    raise ValueError("nobody looks")

async def test_it(redis_url):
    seen = asyncio.Event()
    asyncio.ensure_future(fails(seen))
    await seen.wait()
"""


@pytest.mark.usefixtures("server")  # skips where there is none
def test_a_test_that_loses_an_exception_is_failed(tmp_path: Path) -> None:
    loses = tmp_path / "test_loses.py"
    loses.write_text(LOSES_AN_EXCEPTION)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "tests.conftest", loses],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "left behind: Task exception was never retrieved" in run.stdout
    assert "1 passed, 1 error" in run.stdout
