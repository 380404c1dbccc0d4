"""The fault proxy, with a real server behind it and a plain client in front: each mode does what its name says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.faults.proxy import FaultProxy
from tests.faults.workers import eventually
from tests.servers import RedisServer


def address_of(server: RedisServer) -> tuple[str, int]:
    assert server.port is not None
    return "127.0.0.1", server.port


@pytest.fixture
def behind(proxy: FaultProxy) -> Iterator[redis.Redis]:
    """A client that goes through the proxy, gives up after half a second and never tries twice."""
    with redis.Redis.from_url(proxy.url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0), protocol=2) as client:
        yield client


def test_bytes_pass_unchanged_in_both_directions(behind: redis.Redis) -> None:
    payload = bytes(range(256)) * 4096
    behind.set("k", payload)
    assert behind.get("k") == payload


def test_latency_delays_each_direction_and_does_not_add_up_in_a_pipeline(
    proxy: FaultProxy, behind: redis.Redis
) -> None:
    behind.ping()
    proxy.latency(50)
    since = time.monotonic()
    pipe = behind.pipeline(transaction=False)
    for _ in range(20):
        pipe.ping()
    assert pipe.execute() == [True] * 20
    assert 0.1 <= time.monotonic() - since < 0.4


def test_a_refusing_proxy_keeps_open_connections_and_refuses_new_ones(proxy: FaultProxy, behind: redis.Redis) -> None:
    behind.ping()
    proxy.refuse()
    assert behind.ping()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port), timeout=1)
    proxy.heal()
    socket.create_connection((proxy.host, proxy.port), timeout=1).close()


def test_a_reset_reaches_the_client_as_one(proxy: FaultProxy) -> None:
    with socket.create_connection((proxy.host, proxy.port), timeout=2) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"
        proxy.reset_all()
        with pytest.raises(ConnectionResetError):
            raw.recv(100)


async def test_after_a_reset_no_connection_is_open_and_the_next_one_works(
    proxy: FaultProxy, behind: redis.Redis
) -> None:
    behind.ping()
    proxy.reset_all()
    await eventually(lambda: proxy.open_connections == 0, 5)
    assert behind.ping()
    assert proxy.accepted == 2


def test_a_black_hole_swallows_an_open_connection_and_delivers_what_it_held_when_healed(
    proxy: FaultProxy, direct: redis.Redis
) -> None:
    with socket.create_connection((proxy.host, proxy.port), timeout=0.3) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"
        proxy.black_hole()
        raw.sendall(b"SET hole 1\r\n")
        with pytest.raises(TimeoutError):
            raw.recv(100)
        assert direct.get("hole") is None
        proxy.heal()
        raw.settimeout(5)
        assert raw.recv(100) == b"+OK\r\n"
        assert direct.get("hole") == b"1"


def test_a_black_hole_accepts_new_connections_and_says_nothing(proxy: FaultProxy, behind: redis.Redis) -> None:
    proxy.black_hole()
    with pytest.raises(redis.TimeoutError):
        behind.ping()
    assert proxy.accepted == 1


def test_one_way_executes_commands_and_holds_the_replies(
    proxy: FaultProxy, behind: redis.Redis, direct: redis.Redis
) -> None:
    behind.ping()
    proxy.one_way()
    with pytest.raises(redis.TimeoutError):
        behind.set("one-way", "1")
    assert direct.get("one-way") == b"1"


def test_a_dropped_reply_belongs_to_a_command_that_was_executed(
    proxy: FaultProxy, behind: redis.Redis, direct: redis.Redis
) -> None:
    behind.ping()
    proxy.drop_replies(1.0)
    with pytest.raises(redis.ConnectionError):
        behind.incr("dropped")
    assert direct.get("dropped") == b"1"
    assert proxy.refused_replies == 1


def test_replies_are_dropped_at_the_rate_that_was_asked_for_and_the_same_ones_for_the_same_seed(
    server: RedisServer,
) -> None:
    def losses(seed: int) -> list[int]:
        lost = []
        with FaultProxy(address_of(server), seed=seed) as proxy:
            proxy.drop_replies(0.3)
            for turn in range(200):
                with socket.create_connection((proxy.host, proxy.port), timeout=2) as raw:
                    raw.sendall(b"PING\r\n")
                    try:
                        assert raw.recv(100) == b"+PONG\r\n"
                    except ConnectionResetError:
                        lost.append(turn)
        return lost

    first = losses(7)
    assert 30 <= len(first) <= 90
    assert losses(7) == first
    assert losses(8) != first


def test_a_drip_delivers_the_whole_reply_slowly(proxy: FaultProxy, behind: redis.Redis) -> None:
    behind.set("k", "x" * 100)
    proxy.drip(10, every_ms=20)
    since = time.monotonic()
    assert behind.get("k") == b"x" * 100
    assert time.monotonic() - since >= 0.18


def test_reply_with_answers_every_command_itself_except_the_spared(
    proxy: FaultProxy, behind: redis.Redis, direct: redis.Redis
) -> None:
    behind.ping()
    proxy.reply_with("LOADING Redis is loading the dataset in memory")
    with pytest.raises(redis.exceptions.BusyLoadingError):
        behind.set("loading", "1")
    with socket.create_connection((proxy.host, proxy.port), timeout=2) as raw:
        raw.sendall(b"*2\r\n$4\r\nINCR\r\n$7\r\nloading\r\n" * 2)
        both = b"-LOADING Redis is loading the dataset in memory\r\n" * 2
        assert raw.makefile("rb").read(len(both)) == both
        raw.sendall(b"*2\r\n$6\r\nclient\r\n$2\r\nid\r\n")
        assert raw.recv(100).startswith(b":")
    assert direct.get("loading") is None
    proxy.heal()
    assert behind.set("loading", "1")


def test_nonsense_is_no_redis_protocol(proxy: FaultProxy, behind: redis.Redis) -> None:
    behind.ping()
    proxy.talk_nonsense()
    with pytest.raises(redis.RedisError, match="Protocol error"):
        behind.ping()


def test_a_command_in_two_pieces_is_answered_once(proxy: FaultProxy) -> None:
    proxy.reply_with("LOADING wait", spare=frozenset())
    with socket.create_connection((proxy.host, proxy.port), timeout=1) as raw:
        raw.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\n")
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(100)
        raw.sendall(b"k\r\n")
        assert raw.recv(100) == b"-LOADING wait\r\n"


def test_a_server_that_is_away_looks_like_a_broken_connection(
    proxy: FaultProxy, behind: redis.Redis, server: RedisServer
) -> None:
    server.kill()
    with pytest.raises(redis.ConnectionError):
        behind.ping()
    server.start()
    with socket.create_connection((proxy.host, proxy.port), timeout=2) as raw:
        raw.sendall(b"PING\r\n")
        assert raw.recv(100) == b"+PONG\r\n"


def test_connections_are_counted(proxy: FaultProxy) -> None:
    with (
        socket.create_connection((proxy.host, proxy.port)) as one,
        socket.create_connection((proxy.host, proxy.port)) as two,
    ):
        for raw in (one, two):
            raw.sendall(b"PING\r\n")
            raw.recv(100)
        assert proxy.accepted == 2
        assert proxy.open_connections == 2


def test_a_stopped_proxy_leaves_no_thread_behind(server: RedisServer) -> None:
    before = threading.active_count()
    proxy = FaultProxy(address_of(server)).start()
    with socket.create_connection((proxy.host, proxy.port)):
        proxy.stop()
    assert threading.active_count() == before
