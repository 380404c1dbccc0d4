"""tick, hand_out: schedules that are due -> this worker, for a second."""

from __future__ import annotations

from tests.lua.conftest import Bench
from tests.lua.schedules import scheduled


async def test_a_due_schedule_is_handed_to_one_worker_and_to_the_next_one_a_second_later(bench: Bench) -> None:
    await scheduled(bench)
    first = await bench.tick("ann")
    assert first.schedules == ["s"]
    assert (await bench.tick("bob")).schedules == []
    assert bench.scores("schedules") == {"s": first.now_ms + 1_000}
    bench.redis.zincrby(bench.key("schedules"), -1_000, "s")  # the second is over, and it was not fired
    assert (await bench.tick("bob")).schedules == ["s"]


async def test_a_tick_says_when_the_next_schedule_is_due(bench: Bench) -> None:
    await scheduled(bench, bench.now_ms() + 5_000)
    reply = await bench.tick()
    assert reply.schedules == []
    assert 4_000 < reply.next_ms <= 5_000


async def test_schedules_are_handed_out_ten_at_a_time_the_first_due_first(bench: Bench) -> None:
    for n in range(25):
        await scheduled(bench, 1_000 + n, schedule_id=f"s{n}")
    first = await bench.tick()
    assert first.schedules == [f"s{n}" for n in range(10)]
    assert first.next_ms == 0
    assert len((await bench.tick()).schedules + (await bench.tick()).schedules) == 15


async def test_a_paused_queue_hands_out_its_schedules(bench: Bench) -> None:
    await scheduled(bench)
    await bench.store.pause()
    assert (await bench.tick()).schedules == ["s"]


async def test_an_id_without_a_schedule_is_dropped(bench: Bench) -> None:
    bench.redis.zadd(bench.key("schedules"), {"ghost": 1})
    assert (await bench.tick()).schedules == []
    assert bench.scores("schedules") == {}


async def test_a_worker_with_no_room_is_handed_schedules_too(bench: Bench) -> None:
    await scheduled(bench)
    assert (await bench.tick(want=0)).schedules == ["s"]
