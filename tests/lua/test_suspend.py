"""suspend: a schedule -> paused."""

from __future__ import annotations

from tests.lua.conftest import Bench
from tests.lua.schedules import PARKED, fire, read, scheduled


async def test_a_paused_schedule_is_handed_to_nobody(bench: Bench) -> None:
    await scheduled(bench)
    assert await bench.store.suspend("s") is True
    assert (await read(bench)).paused
    assert bench.scores("schedules") == {"s": PARKED}
    reply = await bench.tick()
    assert reply.schedules == []
    assert reply.next_ms <= 60_000  # its own lease


async def test_a_second_pause_writes_nothing(bench: Bench) -> None:
    await scheduled(bench)
    await bench.store.suspend("s")
    before = bench.dump()
    assert await bench.store.suspend("s") is False
    assert bench.dump() == before


async def test_a_slot_that_waits_is_skipped(bench: Bench) -> None:
    await scheduled(bench, overlap="queue")
    await fire(bench, 5_000, 6_000, then=7_000)
    await bench.store.suspend("s")
    stored = await read(bench)
    assert (stored.waiting_ms, stored.skipped) == (None, 1)


async def test_an_unknown_schedule_writes_nothing(bench: Bench) -> None:
    assert await bench.store.suspend("nobody") is None
    assert bench.dump() == {}
