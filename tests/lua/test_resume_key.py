"""resume_key: a paused key -> its jobs start again, in the order in which they came."""

from __future__ import annotations

from tests.lua.conftest import Bench


async def test_the_jobs_start_in_the_order_in_which_they_came(bench: Bench) -> None:
    await bench.store.limit_key("a", None, None, 3)
    first = int(await bench.add(count=5, key="a"))
    await bench.store.pause_key("a")
    assert await bench.claim(want=5) == []
    bench.woken()
    assert await bench.store.resume_key("a")
    assert bench.woken()
    assert [claim.job_id for claim in await bench.claim(want=5)] == [str(first + i) for i in range(5)]


async def test_resuming_what_is_not_paused_says_so_and_writes_nothing(bench: Bench) -> None:
    await bench.add(count=2, key="a")
    before = bench.dump()
    assert not await bench.store.resume_key("a")
    assert bench.dump() == before


async def test_limits_outlive_a_pause(bench: Bench) -> None:
    await bench.store.limit_key("a", None, 1, None)
    await bench.store.pause_key("a")
    await bench.add(count=3, key="a")
    await bench.store.resume_key("a")
    assert len(await bench.claim(want=5)) == 1
