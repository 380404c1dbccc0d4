"""tick, counting: what ends is counted in its minute, and the first tick of a later minute writes that down."""

from __future__ import annotations

import pytest

from tests.lua.conftest import Bench, done, fail, retry


def back_by(bench: Bench, minutes: int) -> int:
    """Let the running minute have begun earlier; returns it."""
    then = int(bench.redis.hget(bench.key("meta"), "minute")) - minutes
    bench.redis.hset(bench.key("meta"), "minute", then)
    return then


def written(bench: Bench) -> list[tuple[int, dict[str, int]]]:
    found = bench.redis.xrange(bench.key("minutes"))
    return [
        (int(entry.partition(b"-")[0]) // 60_000, {k.decode(): int(v) for k, v in fields.items()})
        for entry, fields in found
    ]


async def test_what_ends_is_written_down_by_the_first_tick_of_a_later_minute(bench: Bench) -> None:
    await bench.add(count=6)
    await bench.add(start="+60000")
    one, two, three, four, *_ = await bench.claim(want=5)
    await bench.tick(outcomes=[done(one), done(two, keep=0), fail(three), retry(four, delay_ms=60_000)])
    then = back_by(bench, 2)
    assert written(bench) == []
    await bench.tick()
    assert written(bench) == [(then, {"c": 2, "f": 1, "r": 1, "s": 0, "w": 2, "d": 2})]


async def test_a_minute_that_is_written_down_is_not_counted_again(bench: Bench) -> None:
    await bench.ended("done")
    back_by(bench, 1)
    await bench.tick()
    back_by(bench, 0)
    await bench.ended("done")
    assert [counts["c"] for _, counts in written(bench)] == [1]
    assert bench.redis.hget(bench.key("meta"), "minute_c") == b"1"


async def test_a_stale_outcome_is_not_counted(bench: Bench) -> None:
    claim = await bench.ended("done")
    await bench.tick(outcomes=[done(claim)])
    assert bench.redis.hget(bench.key("meta"), "minute_c") == b"1"


async def test_jobs_of_lost_workers_are_counted(bench: Bench) -> None:
    await bench.claimed()
    bench.lapse()
    await bench.tick("bob")
    assert bench.redis.hget(bench.key("meta"), "minute_s") == b"1"


async def test_a_clock_that_goes_back_lets_the_minute_run_on(bench: Bench) -> None:
    await bench.ended("done")
    back_by(bench, -5)
    await bench.ended("done")
    assert written(bench) == []
    assert bench.redis.hget(bench.key("meta"), "minute_c") == b"2"


async def test_a_day_of_minutes_is_kept(bench: Bench) -> None:
    await bench.tick()
    first = int(bench.redis.hget(bench.key("meta"), "minute")) - 5_000
    with bench.redis.pipeline(transaction=False) as pipe:
        for minute in range(first, first + 1_440):
            pipe.xadd(bench.key("minutes"), {"c": 1, "f": 0, "r": 0, "s": 0, "w": 0, "d": 0}, id=f"{minute * 60_000}-0")
        pipe.execute()
    back_by(bench, 1)
    await bench.tick()
    assert bench.redis.xlen(bench.key("minutes")) == 1_440
    assert written(bench)[0][0] == first + 1


@pytest.mark.parametrize("broken", ["of another type", "written ahead of the clock"])
async def test_a_stream_that_takes_no_entry_does_not_stop_a_tick(bench: Bench, broken: str) -> None:
    bench.sabotaged = True
    await bench.ended("done")
    if broken == "of another type":
        bench.redis.set(bench.key("minutes"), 1)
    else:
        bench.redis.xadd(bench.key("minutes"), {"c": 1}, id="9000000000000-0")
    back_by(bench, 1)
    await bench.add()
    [claim] = await bench.claim()
    assert (await bench.tick(outcomes=[done(claim)])).stale == []
    bench.redis.delete(bench.key("minutes"))
