"""The lease outlives a handler that blocks the worker's loop, and the worker says so in its log."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
import redis

from streamq import Queue
from streamq._engine import scripts
from streamq._engine.transitions import TickArgs
from streamq.observer import Observer
from tests.faults.workers import eventually
from tests.integration.conftest import PATIENCE, Bench

LEASE = 0.5


def tick_as_another(client: redis.Redis, worker: str = "other") -> Any:
    """Tick as a second worker that wants jobs, over a connection that needs no event loop."""
    args = TickArgs(worker=worker, lease_ms=60_000, max_stalls=3, events_cap=100, dead_cap=100)
    return client.eval(scripts.load("tick").body, 1, "sq:{q}", *args.lay_out(5, list_held=False, marks=(), outcomes=()))


async def test_a_handler_that_blocks_the_loop_keeps_its_job_and_is_named_in_the_log(
    queue: Queue, bench: Bench, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[int] = []

    async def blocks(job: Any) -> str:
        end = time.monotonic() + 4 * LEASE
        while time.monotonic() < end:
            client.blpop("nothing", 0.1)
            taken.append(tick_as_another(client)[6])
        return "mine"

    job = await queue.add("a", attempts=1)
    settings = msgspec.structs.replace(bench.settings, lease=LEASE)
    async with bench.worker(blocks, settings=settings) as worker:
        assert await job.result(PATIENCE) == "mine"
        assert worker.stale_outcomes == 0
    assert set(taken) == {0}
    assert "the event loop has stood still" in caplog.text
    assert "a processor of queue q blocks it" in caplog.text


async def test_a_lease_that_was_lost_comes_back_with_the_next_tick(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    async with bench.worker(lambda job: job.data) as worker:
        client.zrem("sq:{q}:workers", worker.id)
        assert await (await queue.add("a", 5)).result(PATIENCE) == 5
        assert client.zscore("sq:{q}:workers", worker.id) is not None


class Thief(Observer):
    """Ends the lease of the worker that has claimed a job, and claims the job, before the worker's next call."""

    def __init__(self, client: redis.Redis) -> None:
        self._client, self.stolen = client, 0

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        pending: Any = self._client.xpending_range("sq:{q}:lane:3", "w", "-", "+", 1)
        if not self.stolen and pending and pending[0]["consumer"] != b"lost":
            self._client.zadd("sq:{q}:workers", {pending[0]["consumer"]: 0})
            self.stolen = tick_as_another(self._client)[6]


async def test_a_job_that_stalled_does_not_start_where_its_lease_was_lost_before_it_was_marked(
    queue: Queue, bench: Bench, client: redis.Redis
) -> None:
    ran: list[Any] = []
    await queue.add("a", "stalled")
    tick_as_another(client, "lost")
    client.zadd("sq:{q}:workers", {"lost": 0})
    thief = Thief(client)
    async with bench.worker(lambda job: ran.append(job.data), observer=thief, concurrency=1) as worker:
        await eventually(lambda: worker.stale_outcomes == 1, PATIENCE)
        await (await queue.add("a", "another")).result(PATIENCE)
    assert thief.stolen == 1
    assert ran == ["another"]
