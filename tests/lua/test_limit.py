"""limit: a queue's limits -> others."""

from __future__ import annotations

from tests.lua.conftest import Bench


def limits(bench: Bench) -> dict[str, str]:
    found = bench.redis.hgetall(bench.key("meta"))
    return {k.decode(): v.decode() for k, v in found.items()}


async def test_limits_are_set_changed_and_taken_away_one_by_one(bench: Bench) -> None:
    assert await bench.call("limit", 10, 1_000, 5) == 1
    assert limits(bench) == {"rate_max": "10", "rate_ms": "1000", "max_active": "5"}
    await bench.call("limit", "", "", 7)
    assert limits(bench) == {"rate_max": "10", "rate_ms": "1000", "max_active": "7"}
    await bench.call("limit", 0, "", "")
    assert limits(bench) == {"max_active": "7"}
    await bench.call("limit", "", "", 0)
    assert limits(bench) == {}


async def test_setting_the_same_limits_twice_is_harmless(bench: Bench) -> None:
    await bench.call("limit", 10, 1_000, 5)
    before = bench.dump()
    await bench.call("limit", 10, 1_000, 5)
    assert bench.dump() == before


async def test_a_change_wakes_an_idle_worker_unless_the_queue_is_paused(bench: Bench) -> None:
    await bench.call("limit", 0, "", "")
    assert bench.woken()
    await bench.store.pause()
    await bench.call("limit", 0, "", "")
    assert not bench.woken()
