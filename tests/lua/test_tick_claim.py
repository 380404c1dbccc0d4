"""tick, claim: waiting -> active, lane by lane, oldest first; and what it tells the worker."""

from __future__ import annotations

from streamq._engine.transitions import NewJob
from tests.lua.conftest import Bench, done, envelope, retry


async def test_the_lanes_are_claimed_in_order_and_each_oldest_first(bench: Bench) -> None:
    names = [(4, "d"), (3, "c1"), (1, "a1"), (2, "b"), (3, "c2"), (1, "a2")]
    await bench.add_raw(*[NewJob(lane, "0", name, envelope()) for lane, name in names])
    assert [claim.job_id for claim in await bench.claim(want=10)] == ["a1", "a2", "b", "c1", "c2", "d"]


async def test_no_more_is_claimed_than_was_wanted(bench: Bench) -> None:
    await bench.add(count=2, lane=1)
    await bench.add(count=5)
    assert [claim.lane for claim in await bench.claim(want=3)] == [1, 1, 3]
    assert len(bench.pending(3)) == 1
    assert (await bench.tick(want=0)).claimed == []


async def test_a_claim_is_the_entry_with_its_envelope_and_since_when_it_waits(bench: Bench) -> None:
    before = bench.now_ms()
    job_id = await bench.add(body=envelope("work", {"n": 1}))
    claim = (await bench.claim("ann"))[0]
    assert (claim.job_id, claim.entry, claim.lane) == (job_id, f"{job_id}-0", 3)
    assert claim.envelope == envelope("work", {"n": 1})
    assert before <= claim.since_ms <= bench.now_ms()
    assert bench.pending() == {claim.entry: "ann"}
    assert bench.events_of(job_id) == ["added", "active"]


async def test_two_workers_never_claim_the_same_job(bench: Bench) -> None:
    await bench.add(count=6)
    mine, yours = await bench.claim("ann", 3), await bench.claim("bob", 3)
    assert len({claim.entry for claim in mine + yours}) == 6


async def test_a_paused_queue_gives_nothing_and_loses_nothing(bench: Bench) -> None:
    await bench.add()
    await bench.store.pause()
    assert await bench.claim() == []
    assert bench.pending() == {}
    await bench.store.resume()
    assert len(await bench.claim()) == 1


async def test_a_claim_knows_the_history_of_its_job(bench: Bench) -> None:
    claim = await bench.claimed("mine")
    await bench.tick(outcomes=[retry(claim)])
    bench.redis.hset(bench.key("job:mine"), mapping={"k": 2, "i": 3, "n": 4})
    again = (await bench.claim())[0]
    assert (again.attempts_made, again.stalls, again.interruptions, again.releases) == (1, 2, 3, 4)


async def test_jobs_that_were_added_before_the_first_worker_are_found(bench: Bench) -> None:
    await bench.add(count=3)
    assert len(await bench.claim(want=10)) == 3


async def test_a_consumer_group_that_somebody_destroyed_is_made_again(bench: Bench) -> None:
    await bench.claimed()
    bench.redis.xgroup_destroy(bench.key("lane:3"), "w")
    assert len(await bench.claim(want=10)) == 1


async def test_an_entry_without_an_envelope_fails_and_does_not_block_the_others(bench: Bench) -> None:
    await bench.add("broken", start="@1")
    await bench.tick()
    bench.redis.hdel(bench.key("job:broken"), "d")
    good = await bench.add()
    assert [claim.job_id for claim in await bench.claim(want=5)] == [good]
    assert bench.record("broken") == {}
    assert [letter["j"] for letter in bench.dead_letters()] == [b"broken"]
    assert b"PayloadLost" in bench.dead_letters()[0]["x"]
    assert [entry for entry, _ in bench.lane()] == [f"{good}-0"]


async def test_what_a_worker_holds_is_listed_when_it_asks(bench: Bench) -> None:
    await bench.add(count=2)
    await bench.add("mine", lane=1)
    claims = await bench.claim("ann", 3)
    await bench.add()
    await bench.claim("bob")
    held = (await bench.tick("ann", list_held=True)).held
    assert [(c.entry, c.job_id, c.envelope) for c in held] == [(c.entry, c.job_id, c.envelope) for c in claims]


async def test_the_list_leaves_out_what_the_same_call_settles(bench: Bench) -> None:
    await bench.add(count=2)
    one, two = await bench.claim(want=2)
    reply = await bench.tick(outcomes=[done(one)], list_held=True)
    assert [claim.entry for claim in reply.held] == [two.entry]


async def test_a_held_entry_that_was_deleted_behind_our_back_is_let_go(bench: Bench) -> None:
    claim = await bench.claimed()
    bench.redis.xdel(bench.key("lane:3"), claim.entry)
    assert (await bench.tick(list_held=True)).held == []
    assert bench.pending() == {}


async def test_a_tick_that_got_all_it_wanted_leaves_a_token_for_the_next_worker(bench: Bench) -> None:
    await bench.add(count=3)
    assert bench.woken()
    await bench.claim("ann", 2)
    assert bench.woken()
    await bench.claim("bob", 2)
    assert not bench.woken()


async def test_a_tick_says_how_long_until_something_is_due(bench: Bench) -> None:
    reply = await bench.tick(lease_ms=60_000)
    assert 0 <= 60_000 - reply.next_ms < 1_000  # the lease itself
    await bench.add(start="+20000")
    assert 0 < (await bench.tick(lease_ms=60_000)).next_ms <= 20_000


async def test_a_tick_says_the_servers_time(bench: Bench) -> None:
    before = bench.now_ms()
    assert before <= (await bench.tick()).now_ms <= bench.now_ms()


async def test_a_tick_renews_its_workers_lease(bench: Bench) -> None:
    before = bench.now_ms()
    await bench.tick("ann", lease_ms=7_000)
    assert before + 7_000 <= bench.scores("workers")["ann"] <= bench.now_ms() + 7_000


async def test_one_job_is_told_of_in_the_order_in_which_it_moved(bench: Bench) -> None:
    await bench.add("late", start="@1")
    late = (await bench.claim())[0]
    assert bench.events_of("late") == ["delayed", "promoted", "active"]
    await bench.tick(want=1, outcomes=[retry(late)])
    assert bench.events_of("late")[3:] == ["retrying", "active"]


async def test_five_hundred_jobs_make_few_event_entries(bench: Bench) -> None:
    await bench.add(count=500)
    await bench.claim(want=500)
    assert bench.redis.xlen(bench.key("events")) == 10
    assert len(bench.events()) == 1_000
