"""limit_key: the limits of one key, or of all that have none of their own, change while jobs wait and run."""

from __future__ import annotations

import pytest

from streamq._engine.operators import UNCHANGED
from streamq.policy import RateLimit
from tests.lua.conftest import Bench, done


async def test_what_is_set_for_all_keys_holds_for_each(bench: Bench) -> None:
    await bench.store.limit_key("", UNCHANGED, 2, UNCHANGED)
    for key in "ab":
        await bench.add(count=5, key=key)
    assert len(await bench.claim(want=20)) == 4


async def test_what_is_set_for_one_key_comes_before_what_is_set_for_all(bench: Bench) -> None:
    await bench.store.limit_key("", UNCHANGED, 2, UNCHANGED)
    await bench.store.limit_key("b", UNCHANGED, 4, UNCHANGED)
    for key in "ab":
        await bench.add(count=5, key=key)
    assert len(await bench.claim(want=20)) == 6


async def test_what_is_not_named_stays(bench: Bench) -> None:
    await bench.store.limit_key("a", RateLimit(5, 10), 2, 3)
    await bench.store.limit_key("a", UNCHANGED, 1, UNCHANGED)
    page = await bench.store.keys("a", 0, 1)
    assert page.keys[0].limits == (RateLimit(5, 10), 1, 3)


async def test_a_limit_that_is_lifted_lets_those_that_wait_run(bench: Bench) -> None:
    await bench.store.limit_key("a", UNCHANGED, 1, UNCHANGED)
    await bench.add(count=5, key="a")
    await bench.claim(want=5)
    bench.woken()
    await bench.store.limit_key("a", UNCHANGED, None, UNCHANGED)
    assert bench.woken()
    assert len(await bench.claim(want=5)) == 4


async def test_a_limit_for_all_that_is_lifted_lets_those_that_wait_run(bench: Bench) -> None:
    await bench.store.limit_key("", RateLimit(1, 60), UNCHANGED, UNCHANGED)
    for key in "abc":
        await bench.add(count=5, key=key)
    assert len(await bench.claim(want=20)) == 3
    await bench.store.limit_key("", None, UNCHANGED, UNCHANGED)
    assert len(await bench.claim(want=20)) == 12


async def test_a_limit_that_is_lowered_holds_from_the_next_claim_on(bench: Bench) -> None:
    await bench.store.limit_key("a", UNCHANGED, 4, 4)
    first = int(await bench.add(count=6, key="a"))
    running = await bench.claim(want=2)
    assert len(bench.lane()) == 4
    await bench.store.limit_key("a", UNCHANGED, 2, UNCHANGED)
    assert await bench.claim(want=5) == []
    reply = await bench.tick(want=5, outcomes=[done(running[0])])
    assert [claim.job_id for claim in reply.claimed] == [str(first + 2)]  # in the order in which they came


async def test_a_limit_that_is_raised_lets_the_next_ones_run(bench: Bench) -> None:
    await bench.store.limit_key("a", UNCHANGED, 1, UNCHANGED)
    await bench.add(count=6, key="a")
    await bench.claim(want=5)
    await bench.store.limit_key("a", UNCHANGED, 3, UNCHANGED)
    assert len(await bench.claim(want=5)) == 2


async def test_settings_that_are_all_lifted_leave_nothing_behind(bench: Bench) -> None:
    await bench.store.limit_key("a", RateLimit(1, 1), 1, 2)
    await bench.store.limit_key("a", None, None, None)
    await bench.store.limit_key("", None, None, None)
    assert not list(bench.redis.scan_iter(match="*key*"))


async def test_a_key_with_settings_is_known_before_and_after_it_has_jobs(bench: Bench) -> None:
    await bench.store.limit_key("a", UNCHANGED, 1, UNCHANGED)
    assert bench.scores("keys") == {"a": 0}
    await bench.add(key="a")
    claim = (await bench.claim())[0]
    await bench.tick(outcomes=[done(claim)])
    assert bench.scores("keys") == {"a": 0}


@pytest.mark.parametrize("key", ["", "a"])
async def test_it_is_safe_to_call_twice(bench: Bench, key: str) -> None:
    await bench.add(count=5, key="a")
    await bench.store.limit_key(key, RateLimit(2, 60), 3, 2)
    await bench.tick()
    but = ("workers", "turns:3")  # the lease's end, and whose turn it is among equals
    before = bench.dump(*but)
    await bench.store.limit_key(key, RateLimit(2, 60), 3, 2)
    await bench.tick()
    assert bench.dump(*but) == before
