"""wake: one idle worker -> ticks now."""

from __future__ import annotations

import asyncio

from streamq._engine.endpoint import Endpoint
from streamq._engine.transitions import TickArgs
from streamq._engine.wire import Wire
from tests.lua.conftest import Bench


async def test_there_is_one_token_however_often_it_is_asked_for(bench: Bench) -> None:
    for _ in range(3):
        await bench.store.wake()
    assert bench.redis.lrange(bench.key("wake"), 0, -1) == [b"1"]


async def test_a_parked_tick_runs_in_the_moment_the_token_comes(bench: Bench, redis_url: str) -> None:
    wire = Wire(Endpoint(redis_url, 5.0))
    args = TickArgs(worker="ann", lease_ms=60_000, max_stalls=3, events_cap=100, dead_cap=100)
    parked = asyncio.create_task(bench.store.park(wire, args, 5, block=60.0))
    job_id = await bench.add()
    reply = await parked
    assert [claim.job_id for claim in reply.claimed] == [job_id]
    await wire.close()


async def test_a_parked_tick_that_is_unblocked_runs_at_once_and_claims_nothing(bench: Bench, redis_url: str) -> None:
    wire = Wire(Endpoint(redis_url, 5.0))
    args = TickArgs(worker="ann", lease_ms=60_000, max_stalls=3, events_cap=100, dead_cap=100)
    parked = asyncio.create_task(bench.store.park(wire, args, 5, block=60.0))
    while not parked.done():  # it may not have reached the server yet
        await bench.store.unblock(wire)
        await asyncio.wait((parked,), timeout=0.01)
    assert (await parked).claimed == []
    await wire.close()
