"""tick, claim under limits: a rate, a number that may run at once, a hold that a handler asked for."""

from __future__ import annotations

from typing import Any

from tests.lua.conftest import Bench, done, release


async def limit(bench: Bench, rate: Any = "", per_ms: Any = "", active: Any = "") -> None:
    await bench.call("limit", rate, per_ms, active)


async def test_no_more_start_in_a_window_than_the_rate_allows_over_all_workers(bench: Bench) -> None:
    await bench.add(count=10)
    await limit(bench, 5, 60_000)
    assert len(await bench.claim("ann", 3)) == 3
    reply = await bench.tick("bob", 10)
    assert len(reply.claimed) == 2
    assert await bench.claim("ann", 10) == []


async def test_a_worker_is_told_when_the_rate_allows_the_next_one(bench: Bench) -> None:
    await bench.add(count=3)
    await limit(bench, 1, 5_000)
    await bench.claim()
    assert 0 < (await bench.tick(want=1)).next_ms <= 5_050


async def test_starts_that_left_the_window_count_no_more(bench: Bench) -> None:
    await bench.add(count=3)
    await limit(bench, 1, 5_000)
    await bench.claim()
    bench.redis.lset(bench.key("starts"), 0, "1:1")
    assert len(await bench.claim(want=5)) == 1


async def test_starts_that_lie_ahead_because_the_clock_was_put_back_hold_up_nobody(bench: Bench) -> None:
    await bench.add(count=3)
    await limit(bench, 1, 5_000)
    await bench.claim()
    bench.redis.lset(bench.key("starts"), 0, f"{bench.now_ms() + 3_600_000}:1")
    assert len(await bench.claim(want=5)) == 1


async def test_a_backlog_that_met_the_limit_starts_evenly_from_then_on(bench: Bench) -> None:
    await bench.add(count=50)
    await limit(bench, 20, 60_000)
    assert len(await bench.claim(want=50)) == 20
    bench.redis.lset(bench.key("starts"), 0, "1:20")
    assert len(await bench.claim(want=50)) == 3
    reply = await bench.tick(want=50)
    assert reply.claimed == []
    assert 0 < reply.next_ms <= 6_005  # a tenth of the window and its margin


async def test_what_one_worker_started_and_another_could_not_is_a_backlog_too(bench: Bench) -> None:
    await bench.add(count=21)
    await limit(bench, 20, 60_000)
    assert len(await bench.claim("ann", want=20)) == 20
    assert not bench.redis.hexists(bench.key("meta"), "rate_full")
    await bench.claim("bob", want=20)
    assert bench.redis.hexists(bench.key("meta"), "rate_full")


async def test_a_worker_that_finds_nothing_to_start_sees_no_backlog(bench: Bench) -> None:
    await bench.add(count=20)
    await limit(bench, 20, 60_000)
    await bench.claim("ann", want=20)
    await bench.claim("bob", want=20)
    assert not bench.redis.hexists(bench.key("meta"), "rate_full")


async def test_a_queue_that_was_quiet_starts_as_many_at_once_as_the_rate_allows(bench: Bench) -> None:
    await bench.add(count=50)
    await limit(bench, 20, 60_000)
    await bench.claim(want=50)
    bench.redis.delete(bench.key("starts"))
    bench.redis.hset(bench.key("meta"), "rate_full", bench.now_ms() - 150_000)
    assert len(await bench.claim(want=50)) == 20


async def test_a_limit_that_is_lifted_leaves_no_trace(bench: Bench) -> None:
    await bench.add(count=3)
    await limit(bench, 1, 60_000)
    await bench.claim(want=3)
    assert bench.redis.hexists(bench.key("meta"), "rate_full")
    await limit(bench, 0)
    assert not bench.redis.hexists(bench.key("meta"), "rate_full")


async def test_no_more_run_at_once_than_the_limit_over_all_workers(bench: Bench) -> None:
    await bench.add(count=5)
    await limit(bench, active=3)
    claims = await bench.claim("ann", 2)
    assert len(await bench.claim("bob", 5)) == 1
    assert await bench.claim("bob", 5) == []
    assert len((await bench.tick("ann", 2, outcomes=[done(claims[0])])).claimed) == 1


async def test_a_slot_that_frees_up_wakes_another_worker(bench: Bench) -> None:
    await bench.add(count=3)
    await limit(bench, active=1)
    claim = (await bench.claim("ann"))[0]
    bench.woken()
    await bench.tick("ann", 0, outcomes=[done(claim)])
    assert bench.woken()


async def test_a_held_queue_starts_nothing_until_the_hold_is_over(bench: Bench) -> None:
    await bench.add(count=2)
    claim = (await bench.claim())[0]
    hold = release(claim, 30_000, "")._replace(kind="hold")
    reply = await bench.tick(want=5, outcomes=[hold])
    assert reply.claimed == []
    assert 0 < reply.next_ms <= 30_000
    assert "a" not in bench.record(claim.job_id) or bench.record(claim.job_id)["a"] == b"0"
    bench.redis.hset(bench.key("meta"), "hold_until", 1)
    assert len(await bench.claim(want=5)) == 1


async def test_of_starts_that_are_out_of_order_only_those_that_count_no_more_go(bench: Bench) -> None:
    await limit(bench, 3, 60_000)
    now = bench.now_ms()
    bench.redis.rpush(bench.key("starts"), f"{now - 1_000}:2", f"{now + 3_600_000}:1")
    await bench.add(count=5)
    assert len(await bench.claim(want=5)) == 1
    assert bench.redis.lindex(bench.key("starts"), 0) == f"{now - 1_000}:2".encode()
