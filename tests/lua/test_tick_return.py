"""tick, return: a claim that never started -> waiting, at the front of its lane, as it was."""

from __future__ import annotations

from streamq._engine.operators import UNCHANGED
from streamq._engine.transitions import Claim, NewJob, Outcome
from tests.lua.conftest import Bench, done, envelope


def give_back(claim: Claim) -> Outcome:
    return Outcome("return", claim.lane, claim.entry, claim.recorded_id)


async def test_what_is_given_back_is_claimed_before_what_came_after_it(bench: Bench) -> None:
    names = ["a", "b", "c", "d", "e"]
    await bench.add_raw(*[NewJob(3, "0", name, envelope()) for name in names])
    claims = await bench.claim("ann", want=3)
    await bench.tick(outcomes=[give_back(claim) for claim in claims[1:]])
    assert [claim.job_id for claim in await bench.claim("bob", want=10)] == ["b", "c", "d", "e"]
    assert bench.pending()[claims[1].entry] == "bob"


async def test_it_keeps_its_entry_and_gets_no_record(bench: Bench) -> None:
    job_id = await bench.add()
    claim = (await bench.claim())[0]
    await bench.tick(outcomes=[give_back(claim)])
    assert bench.record(job_id) == {}
    again = (await bench.claim())[0]
    assert (again.entry, again.envelope, again.since_ms) == (claim.entry, claim.envelope, claim.since_ms)
    assert (again.attempts_made, again.interruptions, again.stalls) == (0, 0, 0)


async def test_it_counts_as_waiting_in_every_view(bench: Bench) -> None:
    first, second = await bench.add(), await bench.add()
    claims = await bench.claim(want=2)
    await bench.tick(outcomes=[give_back(claims[0])])
    counts = await bench.store.stats()
    assert (counts.waiting[3], counts.active) == (1, 1)
    assert counts.oldest_ms[3] is not None
    stored = await bench.store.get(first)
    assert stored is not None
    assert stored.state == "waiting"
    stored = await bench.store.get(second)
    assert stored is not None
    assert stored.state == "active"
    for state, job_id in (("waiting", first), ("active", second)):
        reply = await bench.call("jobs", state, "", 0, 10, "0", "")
        assert [job[0].decode() for job in reply[2:]] == [job_id], state


async def test_it_wakes_a_worker(bench: Bench) -> None:
    await bench.add()
    claim = (await bench.claim(want=2))[0]
    bench.redis.delete(bench.key("wake"))
    await bench.tick(want=0, outcomes=[give_back(claim)])
    assert bench.woken()


async def test_one_that_is_no_longer_held_stays_where_it_is(bench: Bench) -> None:
    await bench.add()
    claim = (await bench.claim("ann"))[0]
    await bench.tick("ann", outcomes=[give_back(claim)])
    await bench.claim("bob")
    reply = await bench.tick("ann", outcomes=[give_back(claim)])
    assert reply.stale == [0]
    assert bench.pending() == {claim.entry: "bob"}


async def test_sent_together_with_the_end_of_a_later_claim_of_the_same_entry_it_is_stale(bench: Bench) -> None:
    await bench.add()
    await bench.tick(outcomes=[give_back((await bench.claim())[0])])
    again = (await bench.claim())[0]
    assert (await bench.tick(outcomes=[give_back(again), done(again)])).stale == [0]
    assert bench.pending() == {}
    assert bench.scores("completed").keys() == {again.job_id}


async def test_it_can_be_removed_reprioritised_updated_and_drained_like_any_waiting_job(bench: Bench) -> None:
    jobs = [await bench.add() for _ in range(4)]
    claims = await bench.claim(want=4)
    await bench.tick(outcomes=[give_back(claim) for claim in claims])
    assert await bench.store.remove(jobs[0]) == "removed"
    assert await bench.call("change_priority", jobs[1], "1", 100) == b"changed"
    assert await bench.call("update_data", jobs[2], envelope(), envelope("work", 2), 100) == b"updated"
    assert bench.pending() == {claims[3].entry: "spare"}
    await bench.call("drain", "0", "", "", 10, 100)
    assert (await bench.store.stats()).waiting == {1: 0, 2: 0, 3: 0, 4: 0}
    assert bench.pending() == {}
    assert await bench.claim(want=10) == []


async def test_no_sweep_takes_it_for_a_lost_worker_s(bench: Bench) -> None:
    await bench.add()
    claim = (await bench.claim("ann"))[0]
    await bench.tick("ann", outcomes=[give_back(claim)])
    bench.redis.hset(bench.key("meta"), "audit_at", 0)
    await bench.tick("ann", want=0)
    assert "spare" not in bench.scores("workers")


async def test_it_does_not_count_against_the_limit_of_jobs_that_run_at_once(bench: Bench) -> None:
    await bench.store.limit(None, 1)
    await bench.add()
    claim = (await bench.claim("ann"))[0]
    await bench.tick("ann", want=0, outcomes=[give_back(claim)])
    assert [again.entry for again in await bench.claim("bob")] == [claim.entry]


async def test_spare_jobs_that_were_deleted_behind_our_back_are_forgotten(bench: Bench) -> None:
    await bench.add()
    claim = (await bench.claim("ann"))[0]
    await bench.tick("ann", want=0, outcomes=[give_back(claim)])
    bench.redis.xdel(bench.key("lane:3"), claim.entry)
    assert await bench.claim("bob", want=2) == []
    assert bench.pending() == {}
    later = await bench.add()
    assert [again.job_id for again in await bench.claim("bob")] == [later]


async def test_a_returned_job_that_was_removed_makes_no_room_beyond_the_limit(bench: Bench) -> None:
    await bench.store.limit(UNCHANGED, 1)
    returned = await bench.claimed()
    await bench.tick(outcomes=[give_back(returned)])
    assert await bench.store.remove(returned.job_id) == "removed"
    await bench.add(count=3)
    assert len(await bench.claim(want=3)) == 1


async def test_one_that_can_not_start_leaves_its_room_to_the_next_that_was_given_back(bench: Bench) -> None:
    await bench.add_raw(*[NewJob(3, "0", name, envelope()) for name in ("a", "b", "c")])
    claims = await bench.claim("ann", want=3)
    await bench.tick(outcomes=[give_back(claim) for claim in claims])
    bench.redis.delete(bench.key("job:a"))
    bench.redis.set(bench.key("job:a"), "no record")
    bench.sabotaged = True
    assert [claim.job_id for claim in await bench.claim("bob", want=1)] == ["b"]
    assert [claim.job_id for claim in await bench.claim("bob", want=1)] == ["c"]
