"""How many connections streamq takes: as many as docs/operations.md tells."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
import redis

from streamq import Queue, Settings, Worker
from streamq.exporter import Exporter
from tests.faults.workers import ROOT, eventually

PAGE = (ROOT / "docs" / "operations.md").read_text()
TOLD = {what: int(number) for what, number in re.findall(r"^\| (\w[^|]+?) \| (\d+) \|", PAGE, re.MULTILINE)}


@pytest.fixture
def open_now(client: redis.Redis) -> Callable[[], int]:
    """How many connections there are besides the fixture's own."""
    before = len(client.client_list())
    return lambda: len(client.client_list()) - before


async def test_connections_are_as_many_as_told(settings: Settings, open_now: Callable[[], int]) -> None:
    go_on = asyncio.Event()

    async def run(job: Any) -> None:
        await go_on.wait()

    async def takes(number: int) -> None:
        await eventually(lambda: open_now() == number, 10, lambda: f"{open_now()} connections, not {number}")

    async with Queue("q", settings=settings) as queue:
        await queue.stats()
        adds = TOLD["a `Queue`"]
        await takes(adds)
        async with Worker("q", run, settings=settings, concurrency=50):
            works = TOLD["a worker, for each queue"]
            await takes(adds + works)
            jobs = await queue.add_many([("x", None)] * 40)
            waits = [asyncio.create_task(job.result(timeout=30)) for job in jobs]
            await takes(adds + works + TOLD["a `Queue` while it waits for results, more"])
            go_on.set()
            await asyncio.gather(*waits)
    await takes(0)
    exporter = Exporter(["q"], settings)
    try:
        assert await asyncio.to_thread(exporter.ready) == ""
        await takes(TOLD["an exporter or a dashboard, for each queue"])
    finally:
        exporter.close()


async def test_who_waits_for_one_job_after_the_other_connects_once(settings: Settings, client: redis.Redis) -> None:
    async def double(job: Any) -> int:
        return int(job.data) * 2

    async with Queue("q", settings=settings) as queue, Worker("q", double, settings=settings):
        assert await (await queue.add("x", 0)).result(timeout=30) == 0
        before = client.info("stats")["total_connections_received"]
        for number in range(20):
            assert await (await queue.add("x", number)).result(timeout=30) == number * 2
        assert client.info("stats")["total_connections_received"] == before


async def test_when_nobody_has_waited_for_a_while_the_connection_goes(
    settings: Settings, open_now: Callable[[], int]
) -> None:
    async def run(job: Any) -> None:
        pass

    async with Queue("q", settings=settings) as queue:
        async with Worker("q", run, settings=settings):
            await (await queue.add("x")).result(timeout=30)
        await eventually(lambda: open_now() == TOLD["a `Queue`"], 10, lambda: f"{open_now()} connections")
