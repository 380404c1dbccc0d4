"""Every way in which a network breaks, on each kind of connection: it recovers, and nobody gets another's answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Self

import pytest

from streamq import ActiveJob, Queue, Settings, Worker
from streamq._engine.endpoint import Endpoint
from streamq._engine.wire import Wire
from streamq.errors import StoreError
from tests.faults.figures import publish
from tests.faults.proxy import FaultProxy
from tests.faults.scene import KEEP_ALL, gather_within, scaled
from tests.faults.workers import eventually
from tests.servers import RedisServer

ROLES = ("producer", "worker's commands", "worker's parked tick", "lease thread", "events reader")
LEASE, TIMEOUT, RECOVERED_IN = 3.0, 1.0, 5.0
LASTS = scaled([1.5], [1.5, 5.0, 10.0])
MOST_CONNECTIONS = 2

MODES: dict[str, Callable[[FaultProxy], None]] = {
    "latency": lambda proxy: proxy.latency(200),
    "RST": FaultProxy.reset_all,
    "cut": FaultProxy.cut,
    "black hole": FaultProxy.black_hole,
    "one way": FaultProxy.one_way,
    "reply dropped": lambda proxy: proxy.drop_replies(0.7),
    "slow drip": lambda proxy: proxy.drip(1, every_ms=2),
}


class Rig:
    """A queue of its own with a producer, a worker and a reader of events, one connection of which can be broken."""

    def __init__(self, server: RedisServer, role: str) -> None:
        assert server.port is not None
        self.role, self.name = role, role.replace(" ", "-").replace("'", "")
        self.proxy = FaultProxy(("127.0.0.1", server.port))
        self.settings = Settings(redis_url=server.url, lease=LEASE, timeout=TIMEOUT, concurrency=20)
        self.accepted: dict[str, int] = {}
        self.ran: Counter[int] = Counter()
        self.completed: set[str] = set()
        self.errors = 0
        self._next = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_context, self._stack.enter_async_context
        enter[0](self.proxy)
        broken = self.proxy.url
        sound = self.settings.redis_url
        self.queue = await enter[1](
            Queue(self.name, broken if self.role == "producer" else sound, settings=self.settings, defaults=KEEP_ALL)
        )
        self.reader = await enter[1](
            Queue(self.name, broken if self.role == "events reader" else sound, settings=self.settings)
        )
        self.worker = Worker(self.name, self._run, settings=self.settings)
        self._break_into(self.worker, broken)
        await enter[1](self.worker)
        self._over = asyncio.Event()
        self._tasks = [asyncio.create_task(self._produce()), asyncio.create_task(self._read())]
        return self

    async def __aexit__(self, *error: object) -> None:
        async with asyncio.timeout(10):  # nothing hangs, at the end neither
            self._over.set()
            await self._tasks[0]
            self._tasks[1].cancel()
            with suppress(asyncio.CancelledError):
                await self._tasks[1]
            await self._stack.aclose()

    def _break_into(self, worker: Worker, url: str) -> None:
        """Lead one of the worker's connections through the proxy."""
        if self.role == "worker's commands":
            worker._wire = worker._parts[0].store.wire = Wire(Endpoint(url, TIMEOUT))
        elif self.role == "worker's parked tick":
            worker._parts[0].parked_wire = worker._parts[0].ticker._parked_wire = Wire(Endpoint(url, TIMEOUT))
        elif self.role == "lease thread":
            worker._lease._connect = lambda shard: Endpoint(url, TIMEOUT)

    async def _run(self, job: ActiveJob[int]) -> int:
        self.ran[job.data] += 1
        await asyncio.sleep(0.01)
        return job.data

    async def _produce(self) -> None:
        async with asyncio.TaskGroup() as adds:
            while not self._over.is_set():
                adds.create_task(self._add())
                await asyncio.sleep(0.02)

    async def _add(self) -> str | None:
        self._next += 1
        token = self._next
        try:
            job = await self.queue.add("job", token)
        except StoreError:
            self.errors += 1
            return None
        self.accepted[job.id] = token
        return job.id

    async def _read(self) -> None:
        async with aclosing(self.reader.events()) as events:
            async for event in events:
                if event.kind == "completed":
                    self.completed.add(event.job_id)

    async def recovered(self) -> float:
        """Wait until everything works again and return how long that took."""
        since = time.monotonic()
        async with asyncio.timeout(RECOVERED_IN):
            while (job_id := await self._add()) is None:
                pass
            assert await self.queue.result(job_id) == self.accepted[job_id]
        left = RECOVERED_IN - (time.monotonic() - since)
        await eventually(lambda: job_id in self.completed, left, f"{self.role}: the end of a job is told")
        left = RECOVERED_IN - (time.monotonic() - since)
        await eventually(lambda: self.worker.lease_age < LEASE / 2, left, f"{self.role}: the lease is renewed")
        return time.monotonic() - since

    async def judge(self) -> None:
        """Each accepted job ran once and ended with its own result; nobody was told another's; few connections."""
        self._over.set()
        await self._tasks[0]
        for job_id, token in self.accepted.items():
            assert await self.queue.result(job_id, timeout=10) == token, self.role
            found = await self.queue.get_job(job_id)
            assert found is not None
            assert (found.id, found.data, found.result) == (job_id, token, token), self.role
        assert not [token for token, runs in self.ran.items() if runs > 1], self.role
        assert len(self.ran.keys() - set(self.accepted.values())) <= self.errors, self.role
        assert self.worker.healthy, self.role
        assert self.proxy.open_connections <= MOST_CONNECTIONS, self.role


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
async def test_each_connection_recovers_and_answers_nobody_wrongly(server: RedisServer, mode: str) -> None:
    """P2, P9. Five queues at once, in each of which one kind of connection is broken."""
    worst: dict[str, float] = dict.fromkeys(ROLES, 0.0)
    async with AsyncExitStack() as stack:
        rigs = [await stack.enter_async_context(Rig(server, role)) for role in ROLES]
        for lasts in LASTS:
            await eventually(lambda: all(len(rig.completed) > 10 for rig in rigs), 10, "all rigs work")
            for rig in rigs:
                MODES[mode](rig.proxy)
            await break_for(mode, rigs, lasts)
            for rig in rigs:
                rig.proxy.heal()
            for rig, took in zip(rigs, await gather_within(30, *(rig.recovered() for rig in rigs)), strict=True):
                assert isinstance(took, float), (rig.role, took)
                worst[rig.role] = max(worst[rig.role], took)
        connects = {rig.role: rig.proxy.accepted for rig in rigs}
        for rig in rigs:
            await rig.judge()
    publish(
        f"network: {mode}", None, {"faults": len(LASTS) * len(ROLES)},
        {f"recovered, s: {role}": round(took, 2) for role, took in worst.items()},
    )  # fmt: skip
    assert max(connects.values()) < 20 * sum(LASTS) + 10, connects
    assert connects["worker's parked tick"] <= 5 * sum(LASTS) + 5, "it pauses, whatever the other connection does"


async def break_for(mode: str, rigs: list[Rig], lasts: float) -> None:
    """Let a fault last, and a sudden one strike again and again."""
    until = time.monotonic() + lasts
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(left, 0.2))
        if mode == "RST":
            for rig in rigs:
                rig.proxy.reset_all()
