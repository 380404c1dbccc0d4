"""Durable adds: what is promised is confirmed by the server, and what can't be promised is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from streamq import Queue, Settings, StoreUnavailable
from streamq.embedded import find_server
from streamq.errors import ServerNotFound, StoreRefused
from streamq.queue import NewJobSpec
from tests.servers import RedisServer


@pytest.fixture
def valkey(monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A server that has WAITAOF, and whose disk is written once a second."""
    try:
        monkeypatch.setenv("STREAMQ_SERVER_BIN", str(find_server({"PATH": ""}).path))
    except ServerNotFound as error:
        pytest.skip(str(error))
    with RedisServer(port=0) as server:
        yield server


async def test_a_job_that_was_added_durably_outlives_a_power_cut(valkey: RedisServer) -> None:
    async with Queue("q", valkey.url) as queue:
        job = await queue.add("a", {"month": 11}, durable=True)
        jobs = await queue.add_many([("a", n) for n in range(3)], durable=True)
        valkey.kill()
        valkey.start()
        assert (await queue.stats()).waiting == 4
        assert await job.snapshot() is not None
        assert await jobs[-1].snapshot() is not None


async def test_durable_adds_at_once_share_confirmations_and_ordinary_ones_do_not_wait_for_them(
    valkey: RedisServer,
) -> None:
    async with Queue("q", valkey.url) as queue:
        before = valkey.call("INFO", "commandstats").get("cmdstat_waitaof", {"calls": 0})["calls"]
        durable = [asyncio.create_task(queue.add("a", n, durable=True)) for n in range(100)]
        await queue.add("b")
        assert not all(task.done() for task in durable)
        await asyncio.gather(*durable)
        calls = valkey.call("INFO", "commandstats")["cmdstat_waitaof"]["calls"] - before
    assert calls <= 5


async def test_a_large_batch_is_confirmed_too(valkey: RedisServer) -> None:
    specs: list[NewJobSpec] = [("a", n) for n in range(2_500)]
    async with Queue("q", valkey.url) as queue:
        await queue.add_many(specs, durable=True)
        valkey.kill()
        valkey.start()
        assert (await queue.stats()).waiting == 2_500


async def test_replicas_that_do_not_confirm_in_time_are_reported(valkey: RedisServer) -> None:
    settings = Settings(redis_url=valkey.url, durable_replicas=1, durable_timeout=0.05)
    async with Queue("q", settings=settings) as queue:
        with pytest.raises(
            StoreUnavailable, match=r"the jobs were added, but within 0\.05 s only this much was confirmed"
        ):
            await queue.add("a", durable=True)
        assert (await queue.stats()).waiting == 1


async def test_a_replica_that_has_the_job_confirms_it(valkey: RedisServer) -> None:
    settings = Settings(redis_url=valkey.url, durable_replicas=1, durable_timeout=10)
    with RedisServer(port=0) as replica:
        replica.call("REPLICAOF", "127.0.0.1", valkey.port)
        async with Queue("q", settings=settings) as queue, asyncio.timeout(30):
            assert valkey.call("WAIT", 1, 15_000) == 1
            job = await queue.add("a", durable=True)
            valkey.kill()
        replica.call("REPLICAOF", "NO", "ONE")
        async with Queue("q", replica.url) as queue:
            assert await queue.get_job(job.id) is not None


async def test_a_server_that_writes_each_command_to_disk_needs_no_waitaof(server: RedisServer) -> None:
    async with Queue("q", server.url) as queue:
        await queue.add("a", durable=True)
        server.kill()
        server.start()
        assert (await queue.stats()).waiting == 1


async def test_a_server_that_can_confirm_nothing_is_told_so_before_anything_is_added(server: RedisServer) -> None:
    server.call("CONFIG", "SET", "appendonly", "no")
    async with Queue("q", server.url) as queue:
        with pytest.raises(StoreRefused, match="can't confirm a write to disk"):
            await queue.add("a", durable=True)
        with pytest.raises(StoreRefused):
            await queue.add_many([("a", n) for n in range(2_500)], durable=True)
        assert (await queue.stats()).total == 0
        await queue.add("a")


async def test_a_connection_lost_during_a_durable_add_adds_once(server: RedisServer) -> None:
    async with Queue("q", server.url) as queue:
        await queue.add("a", durable=True)
        calls: list[Any] = [asyncio.create_task(queue.add("a", n, durable=True)) for n in range(20)]
        await asyncio.sleep(0)
        server.call("CLIENT", "KILL", "TYPE", "normal")
        await asyncio.gather(*calls)
        assert (await queue.stats()).waiting == 21
