"""What a failover loses of what was acknowledged: something without `durable=True`, nothing with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from streamq import ActiveJob, Queue, Settings, Worker
from streamq.errors import StoreError
from tests.faults.figures import at_most, publish
from tests.faults.scene import LONG, scaled
from tests.faults.sentinels import Deployment
from tests.faults.workers import eventually

LAG = 0.3
"""Seconds before every second crash at which the replica loses its primary."""
SETTLED_IN = 30
GUARDED = "planned, min-replicas-to-write 1"
ONLY_LONG = pytest.mark.skipif(not LONG, reason="only in the long form: a planned failover takes ten seconds")


class Adds:
    """Adds numbered jobs all the time and keeps the numbers that were acknowledged. Nobody runs them meanwhile."""

    def __init__(self, deployment: Deployment, *, durable: bool) -> None:
        self.name = "durable" if durable else "plain"
        settings = Settings(timeout=2, durable_replicas=1, durable_timeout=1)
        self.queue = Queue(self.name, deployment.client(), settings=settings)
        self.acknowledged: set[int] = set()
        self._durable, self._made = durable, 0

    async def add_for_ever(self) -> None:
        async with asyncio.TaskGroup() as adds:
            while True:
                self._made += 1
                adds.create_task(self._add(self._made))
                await asyncio.sleep(0.005)

    async def _add(self, number: int) -> None:
        with suppress(StoreError):
            await self.queue.add("job", number, durable=self._durable)
            self.acknowledged.add(number)

    async def more(self, count: int = 50) -> None:
        """Wait until so many more are acknowledged."""
        have = len(self.acknowledged)
        await eventually(lambda: len(self.acknowledged) >= have + count, SETTLED_IN, f"more {self.name} adds")


@asynccontextmanager
async def adding(*all_adds: Adds) -> AsyncIterator[None]:
    """Have them add while the block runs."""
    tasks = [asyncio.create_task(adds.add_for_ever()) for adds in all_adds]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def runs_of(deployment: Deployment, adds: Adds) -> set[int]:
    """Run all that is there, and return the numbers."""
    ran: set[int] = set()

    async def run(job: ActiveJob[Any]) -> None:
        ran.add(job.data)

    async with Worker(adds.name, run, redis=deployment.client(), concurrency=100):

        async def drained() -> bool:
            stats = await adds.queue.stats()
            return stats.waiting == stats.active == 0

        await eventually(drained, 60, "all jobs run")
    return ran


async def crash(deployment: Deployment, *, lag: float) -> None:
    """Kill the primary, `lag` seconds after its replica lost it; returns when the roles are swapped."""
    old = deployment.primary()
    new = deployment.other(old)
    if lag:
        new.pause()
        old.call("CLIENT", "KILL", "TYPE", "replica")
        await asyncio.sleep(lag)
    old.kill()
    if lag:
        new.cont()
    await eventually(lambda: deployment.settled(new), SETTLED_IN, "the replica takes over")
    old.start()
    deployment.follow(old, new)


async def switch(deployment: Deployment) -> None:
    """Have the sentinels swap the roles; returns when that is done."""
    old = deployment.primary()
    new = deployment.other(old)
    deployment.fail_over()
    await eventually(lambda: deployment.settled(new), SETTLED_IN, "the roles are swapped")
    await eventually(lambda: deployment.follows(old), SETTLED_IN, "the old primary follows")


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    with Deployment(failover_timeout_ms=2_000) as deployment:
        yield deployment


@pytest.mark.timeout(scaled(200, 1_800))
@pytest.mark.parametrize("how", ["planned", pytest.param(GUARDED, marks=ONLY_LONG), "crash"])
async def test_what_was_acknowledged_as_durable_survives_every_failover(deployment: Deployment, how: str) -> None:
    """P1. Without `durable` a failover may lose what the replica has not heard: that is measured, not asserted."""
    times = scaled(2, 20)
    adds = {name: Adds(deployment, durable=name == "durable") for name in ("plain", "durable")}
    longest = 0.0
    for server in deployment.servers if how == GUARDED else ():
        server.call("CONFIG", "SET", "min-replicas-to-write", 1, "min-replicas-max-lag", 2)
    async with adding(*adds.values()):
        for turn in range(times):
            await asyncio.gather(*(one.more() for one in adds.values()))
            since = time.monotonic()
            if how == "crash":
                await crash(deployment, lag=LAG * (turn % 2))
            else:
                await switch(deployment)
            await asyncio.gather(*(one.more(1) for one in adds.values()))
            longest = max(longest, time.monotonic() - since)
        await asyncio.gather(*(one.more() for one in adds.values()))
    lost = {name: one.acknowledged - await runs_of(deployment, one) for name, one in adds.items()}
    found: dict[str, Any] = {"longest until adds went on, s": round(longest, 1)}
    for name, one in adds.items():
        found[f"{name}: acknowledged and lost"] = at_most(len(lost[name]), len(one.acknowledged))
        await one.queue.close()
    await deployment.close_clients()
    publish(
        f"failovers: {how}",
        None,
        {"failovers": times, "of a replica that lagged": times // 2 * (how == "crash")},
        found,
    )
    assert len(adds["durable"].acknowledged) >= 50 * times
    assert not lost["durable"]
