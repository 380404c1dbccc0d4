"""tick, jobs with a key: whose job is claimed, and what gives its place to the next one."""

from __future__ import annotations

from typing import Any

import pytest

from streamq._engine.transitions import Claim
from tests.lua.conftest import Bench, EndsBy, done, fail, release, retry


async def limit(
    bench: Bench, key: str = "", *, rate: Any = "", per_ms: Any = 0, most: Any = "", weight: Any = ""
) -> None:
    """Call `limit_key`."""
    await bench.call("limit_key", key, rate, per_ms, most, weight)


def counts(claims: list[Claim], names: dict[str, str]) -> dict[str, int]:
    """How many of the claims belong to each key."""
    keys = [names[claim.job_id] for claim in claims]
    return {key: keys.count(key) for key in sorted(set(keys))}


async def add(bench: Bench, names: dict[str, str], key: str, count: int, **more: Any) -> list[str]:
    """Add jobs of a key; returns their ids, and notes whose they are."""
    first = int(await bench.add(count=count, key=key, **more))
    ids = [str(first + i) for i in range(count)]
    names.update(dict.fromkeys(ids, key))
    return ids


# Who gets what is idle ------------------------------------------------------------------------------------------------


async def test_a_lone_key_takes_all_that_is_idle(bench: Bench) -> None:
    first = int(await bench.add(count=50, key="a"))
    claims = await bench.claim(want=20)
    assert [claim.job_id for claim in claims] == [str(first + i) for i in range(20)]
    assert len(bench.scores("places:a")) == 20


async def test_the_job_of_another_key_waits_no_longer_than_a_turn(bench: Bench) -> None:
    names: dict[str, str] = {}
    await add(bench, names, "a", 1000)
    running = await bench.claim(want=10)
    await add(bench, names, "b", 1)
    reply = await bench.tick(want=1, outcomes=[done(running[0])])
    assert counts(reply.claimed, names) == {"b": 1}


async def test_what_is_idle_is_shared_among_the_keys_that_wait(bench: Bench) -> None:
    names: dict[str, str] = {}
    for key in "abc":
        await add(bench, names, key, 100)
    assert counts(await bench.claim(want=30), names) == {"a": 10, "b": 10, "c": 10}


async def test_a_key_of_weight_3_gets_three_times_as_much(bench: Bench) -> None:
    names: dict[str, str] = {}
    await limit(bench, "b", weight=3)
    for key in "ab":
        await add(bench, names, key, 100)
    assert counts(await bench.claim(want=40), names) == {"a": 10, "b": 30}


async def test_weights_hold_on_when_places_come_free_one_by_one(bench: Bench) -> None:
    names: dict[str, str] = {}
    await limit(bench, "b", weight=3)
    for key in "ab":
        await add(bench, names, key, 300)
    running, started = await bench.claim(want=4), []
    for _ in range(200):
        first, *rest = running
        more = (await bench.tick(want=1, outcomes=[done(first)])).claimed
        running, started = rest + more, started + more
    assert counts(started, names) == {"a": 50, "b": 150}


async def test_equals_are_served_in_turn_not_by_name(bench: Bench) -> None:
    names: dict[str, str] = {}
    for key in "cab":
        await add(bench, names, key, 10)
    claims = await bench.claim(want=9)
    assert [names[claim.job_id] for claim in claims[:3]] == ["c", "a", "b"]
    assert counts(claims, names) == {"a": 3, "b": 3, "c": 3}


async def test_priority_comes_first_and_keys_take_turns_within_it(bench: Bench) -> None:
    names: dict[str, str] = {}
    await add(bench, names, "a", 20, lane=1)
    await add(bench, names, "b", 20, lane=1)
    await add(bench, names, "c", 20, lane=3)
    claims = await bench.claim(want=30)
    assert counts(claims[:30], names) == {"a": 15, "b": 15}
    assert counts(await bench.claim(want=15), names) == {"a": 5, "b": 5, "c": 5}


async def test_plain_jobs_come_before_what_is_parked(bench: Bench) -> None:
    names: dict[str, str] = {}
    await add(bench, names, "a", 10)
    plain = int(await bench.add(count=3))
    claims = [claim.job_id for claim in await bench.claim(want=6)]
    assert claims[1:4] == [str(plain + i) for i in range(3)]
    assert all(job_id in names for job_id in [claims[0], *claims[4:]])


async def test_a_tick_that_leaves_parked_jobs_wakes_another_worker(bench: Bench) -> None:
    await bench.add(count=10, key="a")
    bench.woken()
    await bench.claim(want=3)
    assert bench.woken()
    await bench.claim(want=20)
    assert not bench.woken()


async def test_a_job_that_waited_aside_says_since_when_it_waits(bench: Bench) -> None:
    await bench.add(count=2, key="a")
    first, second = await bench.claim(want=2)
    assert second.since_ms == first.since_ms > 0


# What frees a place ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [done, fail, lambda c: retry(c, 60_000), lambda c: release(c, 60_000)])
async def test_an_ending_gives_the_place_to_the_next_one(bench: Bench, ends: EndsBy) -> None:
    await limit(bench, "a", most=2)
    first = int(await bench.add(count=4, key="a"))
    one, two = await bench.claim(want=9)
    assert await bench.claim(want=9) == []
    reply = await bench.tick(want=9, outcomes=[ends(one)])
    assert [claim.job_id for claim in reply.claimed] == [str(first + 2)]
    assert set(bench.scores("places:a")) == {two.job_id, str(first + 2)}


async def test_a_draining_worker_hands_the_place_on_and_wakes_another(bench: Bench) -> None:
    await limit(bench, "a", most=1)
    await bench.add(count=2, key="a")
    claim = (await bench.claim())[0]
    bench.woken()
    await bench.tick(outcomes=[done(claim)])
    assert bench.woken()
    assert len(await bench.claim("bob")) == 1


@pytest.mark.parametrize("again", [retry, release])
async def test_a_job_that_runs_again_at_once_keeps_its_place(bench: Bench, again: EndsBy) -> None:
    await limit(bench, "a", most=1)
    await bench.add(count=2, key="a")
    claim = (await bench.claim())[0]
    reply = await bench.tick(want=5, outcomes=[again(claim)])
    assert [found.job_id for found in reply.claimed] == [claim.job_id]


async def test_a_job_that_is_retried_later_holds_its_place_where_order_is_kept(bench: Bench) -> None:
    """A key whose jobs run one at a time: what is to be retried is not overtaken."""
    await limit(bench, "a", most=1)
    first = int(await bench.add(count=3, key="a"))
    claim = (await bench.claim())[0]
    reply = await bench.tick(want=5, outcomes=[retry(claim, 60_000)])
    assert reply.claimed == []
    assert bench.scores("places:a") == {claim.job_id: 3}
    bench.redis.zadd(bench.key("delayed"), {claim.job_id: 1})
    again = (await bench.tick(want=5)).claimed
    assert [found.job_id for found in again] == [str(first)]
    reply = await bench.tick(want=5, outcomes=[done(again[0])])
    assert [found.job_id for found in reply.claimed] == [str(first + 1)]


@pytest.mark.parametrize("keep", [0, 100])
async def test_one_tick_settles_many_jobs_of_a_key_and_starts_as_many(bench: Bench, keep: int) -> None:
    await limit(bench, most=10)
    await bench.add(count=40, key="a")
    claims = await bench.claim(want=40)
    while claims:
        assert len(claims) == 10
        claims = (await bench.tick(want=40, outcomes=[done(claim, keep=keep) for claim in claims])).claimed
    assert bench.scores("keys") == {}
    assert not list(bench.redis.scan_iter(match="*:p*:a"))


async def test_a_swept_job_keeps_its_place_and_runs_before_the_next(bench: Bench) -> None:
    await limit(bench, "a", most=1)
    await bench.add(count=2, key="a")
    claim = (await bench.claim("ann"))[0]
    bench.lapse("ann")
    reply = await bench.tick("bob", 5)
    assert [found.job_id for found in reply.claimed] == [claim.job_id]


async def test_a_job_that_killed_its_workers_frees_its_place(bench: Bench) -> None:
    await limit(bench, "a", most=1)
    first = int(await bench.add(count=2, key="a"))
    await bench.claim("ann")
    bench.lapse("ann")
    reply = await bench.tick("bob", 5, max_stalls=1)
    assert [found.job_id for found in reply.claimed] == [str(first + 1)]


async def test_a_claim_that_never_started_keeps_its_place(bench: Bench) -> None:
    from tests.lua.test_tick_return import give_back

    await limit(bench, "a", most=1)
    await bench.add(count=2, key="a")
    claim = (await bench.claim())[0]
    await bench.tick(outcomes=[give_back(claim)])
    assert [found.job_id for found in await bench.claim("bob", 5)] == [claim.job_id]


async def test_an_outcome_that_is_told_twice_frees_one_place(bench: Bench) -> None:
    await limit(bench, "a", most=1)
    await bench.add(count=3, key="a")
    claim = (await bench.claim())[0]
    assert len((await bench.tick(want=5, outcomes=[done(claim)])).claimed) == 1
    assert (await bench.tick(want=5, outcomes=[done(claim)])).claimed == []


# Rates ----------------------------------------------------------------------------------------------------------------


async def test_no_more_of_a_key_start_in_a_window_than_its_rate_allows(bench: Bench) -> None:
    await limit(bench, "a", rate=3, per_ms=60_000)
    await bench.add(count=10, key="a")
    await bench.add(count=10, key="b")
    claims = await bench.claim(want=20)
    assert len(claims) == 13
    assert await bench.claim(want=20) == []


async def test_a_worker_is_told_when_a_key_may_start_its_next_job(bench: Bench) -> None:
    await limit(bench, "a", rate=1, per_ms=5_000)
    await bench.add(count=3, key="a")
    reply = await bench.tick(want=5)
    assert len(reply.claimed) == 1
    assert 0 < reply.next_ms <= 5_050
    bench.redis.lset(bench.key("key_starts:a"), 0, "1:1")
    bench.redis.zadd(bench.key("key_looks"), {"a": 1})
    assert len((await bench.tick(want=5)).claimed) == 1


async def test_a_rate_counts_what_starts_not_what_stands_in_a_lane(bench: Bench) -> None:
    """Entries that came in while nobody worked do not start all at once."""
    await limit(bench, "a", rate=1, per_ms=60_000, weight=5)
    first = int(await bench.add(count=8, key="a"))
    assert len(bench.lane()) == 5
    claims = await bench.claim(want=20)
    assert [claim.job_id for claim in claims] == [str(first)]
    assert bench.lane()[1:] == []
    bench.redis.lset(bench.key("key_starts:a"), 0, "1:1")
    bench.redis.zadd(bench.key("key_looks"), {"a": 1})
    assert [claim.job_id for claim in await bench.claim(want=20)] == [str(first + 1)]


async def test_a_key_over_its_rate_does_not_hold_back_those_behind_it(bench: Bench) -> None:
    """Incident R84, in small."""
    await limit(bench, "a", rate=1, per_ms=60_000)
    await bench.add(count=100, key="a")
    for key in "bcdefghij":
        await bench.add(count=20, key=key)
    claims = await bench.claim(want=500)
    assert len(claims) == 9 * 20 + 1


async def test_the_limits_of_the_queue_hold_as_well(bench: Bench) -> None:
    await bench.call("limit", "", 0, 3)
    await bench.add(count=10, key="a")
    claims = await bench.claim(want=10)
    assert len(claims) == 3
    reply = await bench.tick(want=10, outcomes=[done(claims[0])])
    assert len(reply.claimed) == 1


# What else ------------------------------------------------------------------------------------------------------------


async def test_a_place_whose_job_has_gone_is_found_by_an_audit(bench: Bench) -> None:
    """As when a worker of a version that knows no keys has settled it."""
    await limit(bench, "a", most=1)
    first = int(await bench.add(count=2, key="a"))
    claim = (await bench.claim())[0]
    for lane_key in [bench.key("lane:3")]:
        bench.redis.xack(lane_key, "w", claim.entry)
        bench.redis.xdel(lane_key, claim.entry)
    bench.redis.delete(bench.key(f"job:{claim.job_id}"))
    assert await bench.claim(want=5) == []
    bench.redis.hset(bench.key("meta"), "audit_at", 1)
    assert [found.job_id for found in await bench.claim(want=5)] == [str(first + 1)]


async def test_minutes_count_parked_jobs_as_waiting(bench: Bench) -> None:
    await bench.add(count=5, key="a")
    await bench.tick()
    bench.redis.hset(bench.key("meta"), "minute", 1)
    await bench.tick()
    ((_, fields),) = bench.redis.xrange(bench.key("minutes"))
    assert fields[b"w"] == b"5"
