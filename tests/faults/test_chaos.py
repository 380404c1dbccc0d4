"""Everything at once: faults drawn at random, and a ledger that has to come out right all the same."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from streamq.errors import StoreError
from tests.faults.proxy import FaultProxy
from tests.faults.scene import Scene, scaled

SEEDS = [1, 2, 3] if scaled(0, 1) else [1]
LEASE = 2.0
KINDS = ["kill", "freeze", "cut", "reset", "black hole", "one way", "drop", "flush", "loading", "server"]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", SEEDS)
async def test_random_faults_lose_nothing_and_end_nothing_twice(scene: Scene, proxy: FaultProxy, seed: int) -> None:
    """P1, P2, P3 and P9 under kills, freezes, cuts, lost replies, lost scripts, refusals and restarts."""
    chance = random.Random(seed)  # noqa: S311
    workers = await scene.start(3, url=proxy.url, lease=LEASE, STREAMQ_MAX_STALLS="1000", retry_delay_ms=50)
    workers += await scene.start(1, lease=LEASE, STREAMQ_MAX_STALLS="1000", retry_delay_ms=50)
    client = scene.open_queue(proxy.url)
    over = asyncio.Event()
    unknown = 0

    async def produce() -> None:
        nonlocal unknown
        kinds = [("sleep", 0.05), ("noop", None), ("echo-later", {"failures": 1, "value": 1}), ("thread-sleep", 0.02)]
        while not over.is_set():
            name, data = chance.choice(kinds)
            options = {"delay": chance.uniform(0.05, 1)} if chance.random() < 0.2 else {}
            try:
                await scene.add(name, data, via=client, **options)
            except StoreError:
                unknown += 1
            await asyncio.sleep(0.01)

    producer = asyncio.create_task(produce())
    until = time.monotonic() + scaled(20, 120)
    while time.monotonic() < until:
        await _fault(scene, proxy, chance, workers)
        await asyncio.sleep(chance.uniform(0.1, 0.8))
    over.set()
    proxy.heal()
    await producer
    await scene.idle(60)
    verdict = scene.verdict()
    assert len(scene.accepted) > 200
    assert not verdict.lost
    assert not verdict.accepted_twice
    assert len(verdict.unknown) <= unknown
    completed = scene.direct.zcard(f"{scene.base}:completed")
    assert completed == len(scene.accepted) + len(verdict.unknown)
    scene.clean()


async def _fault(scene: Scene, proxy: FaultProxy, chance: random.Random, workers: list) -> None:  # type: ignore[type-arg]
    """Cause one fault and end it."""
    lasts = chance.uniform(0.1, 1.0)
    match chance.choice(
        ["kill", "freeze", "cut", "reset", "black hole", "one way", "drop", "flush", "loading", "server"]
    ):
        case "kill":
            worker = chance.choice(workers)
            worker.kill()
            worker.start()
        case "freeze":
            worker = chance.choice(workers)
            worker.freeze()
            await asyncio.sleep(chance.choice([0.3, LEASE + 1]))
            worker.thaw()
        case "cut":
            proxy.cut()
            await asyncio.sleep(lasts)
        case "reset":
            proxy.reset_all()
        case "black hole":
            proxy.black_hole()
            await asyncio.sleep(lasts)
        case "one way":
            proxy.one_way()
            await asyncio.sleep(lasts)
        case "drop":
            proxy.drop_replies(0.3)
            await asyncio.sleep(lasts)
        case "flush":
            scene.direct.script_flush()
        case "loading":
            proxy.reply_with("LOADING Redis is loading the dataset in memory")
            await asyncio.sleep(lasts)
        case "server":
            scene.server.kill()
            await asyncio.sleep(lasts)
            scene.server.start()
    proxy.heal()
