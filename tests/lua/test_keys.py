"""keys: reads the keys that have jobs or settings, and what holds for all."""

from __future__ import annotations

from streamq.policy import RateLimit
from tests.lua.conftest import Bench


async def test_keys_come_with_those_that_have_most_jobs_first(bench: Bench) -> None:
    for key, count in {"a": 2, "b": 5, "c": 1}.items():
        await bench.add(count=count, key=key)
    await bench.claim(want=3)
    page = await bench.store.keys("", 0, 10)
    assert [(found.key, found.jobs) for found in page.keys] == [("b", 5), ("a", 2), ("c", 1)]
    assert sum(found.places for found in page.keys) == 3
    assert page.total == 3


async def test_keys_are_read_in_pages(bench: Bench) -> None:
    for key, count in {"a": 2, "b": 5, "c": 1}.items():
        await bench.add(count=count, key=key)
    page = await bench.store.keys("", 1, 1)
    assert [found.key for found in page.keys] == ["a"]
    assert page.total == 3


async def test_what_is_set_for_a_key_and_for_all_is_told_apart(bench: Bench) -> None:
    await bench.store.limit_key("", RateLimit(10, 60), None, 2)
    await bench.store.limit_key("a", None, 3, None)
    await bench.store.pause_key("a")
    page = await bench.store.keys("", 0, 10)
    assert page.limits == (RateLimit(10, 60), None, 2)
    assert page.keys[0].limits == (None, 3, None)
    assert page.keys[0].paused


async def test_one_key_can_be_read_whether_or_not_it_is_known(bench: Bench) -> None:
    await bench.add(count=2, key="a")
    assert (await bench.store.keys("a", 0, 1)).keys[0][:3] == ("a", 2, 1)
    assert (await bench.store.keys("b", 0, 1)).keys[0][:3] == ("b", 0, 0)


async def test_reading_writes_nothing(bench: Bench) -> None:
    await bench.add(count=2, key="a")
    before = bench.dump()
    await bench.store.keys("", 0, 10)
    assert bench.dump() == before
