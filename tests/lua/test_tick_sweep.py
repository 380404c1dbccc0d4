"""tick, sweep: what a worker held whose lease lapsed -> waiting, or failed as poison."""

from __future__ import annotations

from streamq._engine import codec
from tests.lua.conftest import Bench, done


async def test_the_jobs_of_a_lost_worker_go_back_to_the_end_of_their_lanes(bench: Bench) -> None:
    lost = await bench.claimed("mine", lane=2, worker="lost")
    other = await bench.add(lane=2)
    bench.lapse("lost")
    reply = await bench.tick("ann")
    assert reply.requeued == 1
    (first, _), (second, parts) = bench.lane(2)
    assert first == f"{other}-0"
    assert second != lost.entry
    assert (parts["j"], parts["d"]) == (b"mine", lost.envelope)
    assert bench.record("mine")["k"] == b"1"
    assert bench.record("mine")["e"] == second.encode()
    assert bench.events_of("mine") == ["added", "active", "stalled"]


async def test_a_swept_job_without_a_record_gets_one_and_uses_no_attempt(bench: Bench) -> None:
    lost = await bench.claimed(worker="lost")
    bench.lapse("lost")
    again = (await bench.claim("ann"))[0]
    assert (again.job_id, again.envelope) == (lost.job_id, lost.envelope)
    assert (again.attempts_made, again.stalls) == (0, 1)
    assert bench.record(lost.job_id)["c"] == str(lost.since_ms).encode()


async def test_a_swept_worker_and_its_consumers_are_gone(bench: Bench) -> None:
    await bench.claimed(worker="lost")
    bench.lapse("lost")
    await bench.tick("ann")
    assert set(bench.scores("workers")) == {"ann"}
    assert [c["name"] for c in bench.redis.xinfo_consumers(bench.key("lane:3"), "w")] == []


async def test_the_jobs_of_a_live_worker_are_left_alone(bench: Bench) -> None:
    claim = await bench.claimed(worker="bob")
    assert (await bench.tick("ann")).requeued == 0
    assert bench.pending() == {claim.entry: "bob"}


async def test_a_worker_whose_own_lease_has_lapsed_renews_it_and_keeps_its_jobs(bench: Bench) -> None:
    claim = await bench.claimed(worker="slow")
    bench.lapse("slow")
    assert (await bench.tick("slow")).requeued == 0
    assert (await bench.tick("ann", outcomes=[])).requeued == 0
    assert (await bench.tick("slow", outcomes=[done(claim)])).stale == []


async def test_a_job_that_took_down_max_stalls_workers_fails_and_says_so(bench: Bench) -> None:
    await bench.add("poison")
    for turn in range(3):
        await bench.tick(f"w{turn}", 1, max_stalls=3)
        if turn:
            assert (await bench.tick(f"w{turn}", marks=["poison"])).poisoned == 0
        bench.lapse(f"w{turn}")
    found = await bench.tick("ann", max_stalls=3)
    assert (found.requeued, found.poisoned) == (1, 1)
    assert (await bench.tick("ann", max_stalls=3)).poisoned == 0
    record = bench.record("poison")
    assert (record["s"], record["k"]) == (b"f", b"3")
    error = codec.decode_error(record["x"])
    assert str(error) == "WorkerLost: its worker was lost 3 times while running it"
    assert [letter["j"] for letter in bench.dead_letters()] == [b"poison"]
    assert bench.lane() == []
    assert bench.events_of("poison")[-2:] == ["failed", "dead"]


async def test_a_suspect_that_was_claimed_but_not_started_is_not_blamed(bench: Bench) -> None:
    await bench.add("suspect")
    await bench.claim("one")
    bench.lapse("one")
    await bench.claim("two")
    assert bench.record("suspect")["k"] == b"1"
    bench.lapse("two")
    await bench.tick("ann")
    assert bench.record("suspect")["k"] == b"1"


async def test_a_mark_blames_one_run_only(bench: Bench) -> None:
    await bench.add("suspect")
    await bench.claim("one")
    bench.lapse("one")
    await bench.claim("two")
    await bench.tick("two", marks=["suspect"])
    bench.lapse("two")
    await bench.claim("three")
    assert bench.record("suspect")["k"] == b"2"
    bench.lapse("three")  # claimed it, but never marked it as started
    await bench.tick("ann")
    assert bench.record("suspect")["k"] == b"2"


async def test_a_worker_that_was_swept_cannot_mark_what_waits_or_what_others_hold(bench: Bench) -> None:
    await bench.add("suspect")
    await bench.claim("one")
    bench.lapse("one")
    await bench.claim("two")
    bench.lapse("two")
    await bench.tick("ann")
    await bench.tick("two", marks=["suspect"])
    assert "m" not in bench.record("suspect")
    await bench.claim("three")
    await bench.tick("two", marks=["suspect"])
    assert "m" not in bench.record("suspect")
    await bench.tick("three", marks=["suspect"])
    assert "m" in bench.record("suspect")


async def test_a_mark_of_a_job_without_a_record_writes_nothing(bench: Bench) -> None:
    claim = await bench.claimed()
    before = bench.dump("workers")
    await bench.tick(marks=[claim.job_id, "unknown"])
    assert bench.dump("workers") == before


async def test_a_call_sweeps_a_bounded_number_and_the_next_ones_go_on(bench: Bench) -> None:
    await bench.add(count=450)
    await bench.claim("lost", 450)
    bench.woken()
    bench.lapse("lost")
    assert [(await bench.tick("ann")).requeued for _ in range(4)] == [200, 200, 50, 0]
    assert len(bench.lane()) == 450
    assert set(bench.scores("workers")) == {"ann"}


async def test_taken_back_jobs_wake_a_worker(bench: Bench) -> None:
    await bench.claimed(worker="lost")
    assert bench.woken()
    bench.woken()
    bench.lapse("lost")
    await bench.tick("ann")
    assert bench.woken()


async def test_a_consumer_whose_lease_entry_was_lost_gets_one_and_is_swept_later(bench: Bench) -> None:
    claim = await bench.claimed(worker="lost")
    bench.redis.delete(bench.key("workers"))
    bench.redis.hset(bench.key("meta"), "audit_at", 0)
    assert (await bench.tick("ann")).requeued == 0
    assert set(bench.scores("workers")) == {"ann", "lost"}
    bench.lapse("lost")
    assert [c.job_id for c in (await bench.tick("ann", 1)).claimed] == [claim.job_id]


async def test_an_audit_shortens_no_lease(bench: Bench) -> None:
    await bench.claimed(worker="bob")
    lease = bench.scores("workers")["bob"]
    bench.redis.hset(bench.key("meta"), "audit_at", 0)
    await bench.tick("ann", lease_ms=1_000)
    assert bench.scores("workers")["bob"] == lease


async def test_a_lost_entry_that_was_deleted_behind_our_back_is_let_go(bench: Bench) -> None:
    claim = await bench.claimed(worker="lost")
    bench.redis.xdel(bench.key("lane:3"), claim.entry)
    bench.lapse("lost")
    await bench.tick("ann")
    assert bench.pending() == {}
    assert bench.lane() == []


async def test_a_sweep_that_runs_again_finds_nothing(bench: Bench) -> None:
    await bench.claimed(worker="lost")
    bench.lapse("lost")
    await bench.tick("ann")
    before = bench.dump("workers")
    await bench.tick("ann")
    assert bench.dump("workers") == before


async def test_a_job_whose_entry_was_deleted_behind_our_back_is_failed_if_its_record_says_who_it_was(
    bench: Bench,
) -> None:
    job_id = await bench.add()
    claim = (await bench.claim("ann"))[0]
    await bench.store.progress(claim.lane, claim.entry, job_id, b"\x01")
    bench.redis.xdel(bench.key("lane:3"), claim.entry)
    bench.lapse("ann")
    await bench.tick("bob")
    stored = await bench.store.get(job_id)
    assert stored is not None
    assert stored.state == "failed"
    assert b"PayloadLost" in stored.record["x"]
    assert bench.pending() == {}


# All leases have lapsed: nobody could renew, so that says nothing of who lives ----------------------------------------


def lapsed(bench: Bench, *workers: str, ago_ms: int = 5_000) -> None:
    """Let leases have run out unrenewed."""
    bench.redis.zadd(bench.key("workers"), dict.fromkeys(workers, bench.now_ms() - ago_ms))


async def test_after_an_outage_longer_than_the_lease_everybodys_lease_begins_anew(bench: Bench) -> None:
    anns, bobs = await bench.claimed(worker="ann"), await bench.claimed(worker="bob")
    lapsed(bench, "ann", "bob")
    assert (await bench.tick("ann", lease_ms=30_000)).requeued == 0
    assert bench.pending() == {anns.entry: "ann", bobs.entry: "bob"}
    assert bench.scores("workers")["bob"] >= bench.now_ms() + 29_000
    assert (await bench.tick("bob", outcomes=[done(bobs)])).stale == []


async def test_a_worker_that_does_not_come_back_after_an_outage_is_swept_one_lease_later(bench: Bench) -> None:
    claim = await bench.claimed(worker="lost")
    lapsed(bench, "lost")
    assert (await bench.tick("ann")).requeued == 0
    lapsed(bench, "lost", ago_ms=1)
    assert [c.job_id for c in (await bench.tick("ann", 1)).claimed] == [claim.job_id]


async def test_while_one_worker_lives_the_others_leases_lapse(bench: Bench) -> None:
    claim = await bench.claimed(worker="frozen")
    await bench.tick("ann")
    lapsed(bench, "frozen")
    assert [c.job_id for c in (await bench.tick("bob", 1)).claimed] == [claim.job_id]


async def test_what_a_worker_gave_up_is_taken_back_at_once_after_an_outage_too(bench: Bench) -> None:
    claim = await bench.claimed(worker="left")
    await bench.store.leave("left")
    await bench.claimed(worker="bob")
    lapsed(bench, "bob")
    assert [c.job_id for c in (await bench.tick("ann", 1)).claimed] == [claim.job_id]
    assert set(bench.scores("workers")) == {"ann", "bob"}


async def test_leases_that_end_too_late_because_the_clock_was_put_back_are_cut(bench: Bench) -> None:
    await bench.claimed(worker="lost")
    hour = 3_600_000
    bench.redis.zincrby(bench.key("workers"), hour, "lost")
    bench.redis.hset(bench.key("meta"), "audit_at", bench.now_ms() + hour)
    await bench.tick("ann", lease_ms=1_000)
    assert bench.scores("workers")["lost"] <= bench.now_ms() + 30_000
    assert int(bench.redis.hget(bench.key("meta"), "audit_at") or 0) <= bench.now_ms() + 30_000
