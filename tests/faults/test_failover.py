"""Sentinel moves the primary: producers and workers follow, in the same processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from streamq import ActiveJob, Queue, Settings, Worker
from streamq.errors import StoreError
from tests.faults.scene import KEEP_ALL, scaled
from tests.faults.sentinels import DOWN_AFTER_MS, Deployment, replication_of
from tests.faults.workers import eventually
from tests.servers import RedisServer

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    with Deployment() as deployment:
        yield deployment


class Fleet:
    """A producer at 50 jobs/s and two workers, all of which ask the sentinels."""

    def __init__(self, deployment: Deployment) -> None:
        self.settings = Settings(lease=3, timeout=2)
        self.queue = Queue("faults", deployment.client(), settings=self.settings, defaults=KEEP_ALL)
        self.ran: list[tuple[str, float]] = []
        clients = [deployment.client() for _ in range(2)]
        self.workers = [Worker("faults", self._run, redis=client, settings=self.settings) for client in clients]
        self.accepted: list[tuple[str, float]] = []
        self._over = asyncio.Event()

    async def _run(self, job: ActiveJob[Any]) -> None:
        self.ran.append((job.id, time.monotonic()))

    async def __aenter__(self) -> Fleet:
        for worker in self.workers:
            await worker.__aenter__()
        self._producer = asyncio.create_task(self._produce())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._producer
        for worker in self.workers:
            await worker.__aexit__(None, None, None)
        await self.queue.close()

    async def _produce(self) -> None:
        while not self._over.is_set():
            try:
                job = await self.queue.add("job")
                self.accepted.append((job.id, time.monotonic()))
            except StoreError:
                pass
            await asyncio.sleep(0.02)

    async def follow(self, deployment: Deployment, primary: RedisServer, within: float) -> None:
        """Assert that jobs added to the new primary run there, no later than `within` seconds from now."""
        since = time.monotonic()
        await eventually(lambda: deployment.settled(primary), within, "the sentinels agree on the new primary")
        switched = time.monotonic()

        def flows() -> bool:
            new = {job_id for job_id, at in self.accepted if at > switched + 0.1}
            return len(new & {job_id for job_id, at in self.ran if at > switched}) >= 20

        await eventually(flows, within - (time.monotonic() - since), "20 jobs added after the switch run")
        assert int(primary.call("ZCARD", "sq:{faults}:workers")) >= 2
        acknowledged = [job_id for job_id, at in self.accepted if at > switched + 0.1]
        for job_id in acknowledged:
            await self.queue.result(job_id, timeout=5)
        assert all(worker.healthy for worker in self.workers)


async def test_producers_and_workers_follow_planned_failovers(deployment: Deployment) -> None:
    """R12 (redis/redis-py#435)."""
    async with Fleet(deployment) as fleet:
        await eventually(lambda: len(fleet.ran) > 50, 10)
        for _ in range(scaled(2, 5)):
            old = deployment.primary()
            new = next(server for server in deployment.servers if server is not old)
            deployment.fail_over()
            await fleet.follow(deployment, new, 15)
            await eventually(lambda: b"role:slave" in replication_of(old), 20, "the old primary follows")  # noqa: B023
    await deployment.close_clients()


async def test_producers_and_workers_leave_a_primary_that_only_hangs(deployment: Deployment) -> None:
    """R13 (celery/celery#6348)."""
    async with Fleet(deployment) as fleet:
        await eventually(lambda: len(fleet.ran) > 50, 10)
        old = deployment.primary()
        new = next(server for server in deployment.servers if server is not old)
        old.pause()
        await fleet.follow(deployment, new, DOWN_AFTER_MS / 1000 + 15)
        old.cont()
        await eventually(lambda: b"role:slave" in replication_of(old), 20, "the old primary is demoted")
        await fleet.follow(deployment, new, 5)
    await deployment.close_clients()
