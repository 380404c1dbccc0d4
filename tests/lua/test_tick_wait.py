"""tick, settle: an attempt whose handler has staged children -> waiting_children, the children -> waiting."""

from __future__ import annotations

from streamq import FlowJob, Priority, Settings
from streamq._engine.adder import parts_of
from streamq._engine.flowing import Above, lay_out
from streamq._engine.transitions import Claim, NewJob, bound_start
from tests.lua.conftest import Bench, done, envelope, fail, release
from tests.lua.flows import claims, complete, encoded, job, wait


async def staged(bench: Bench, claim: Claim, *roots: FlowJob, batch: str = "abc") -> int:
    """Stage children as a running handler does; returns how many parts they are."""
    above = Above(claim.job_id, claim.children)
    new = {root: encoded(root) for root in roots}
    ids = {root: new[root].job_id for root in roots}
    parts = parts_of(lay_out("q", roots, new, ids, batch, Settings(), above, roots))
    for at, part in enumerate(parts):
        await bench.store.stage(batch, at, part)
    return len(parts)


async def test_the_job_waits_for_the_children_that_are_added_with_that(bench: Bench) -> None:
    claim = await bench.claimed(lane=2)
    parts = await staged(bench, claim, job("a"), FlowJob("b"))
    assert bench.lane() == []
    await bench.tick(outcomes=[wait(claim, "abc", parts, 2)])
    record = bench.record(claim.job_id)
    assert (record["s"], record["fn"], record["fo"], record["a"], record["p"]) == (b"w", b"2", b"2", b"0", b"2")
    assert bench.lane(2) == []
    assert len(bench.lane()) == 2
    held = await claims(bench)
    await bench.tick(outcomes=[done(child) for child in held.values()])
    again = (await claims(bench))[claim.job_id]
    assert (again.envelope, again.lane, again.children, again.attempts_made) == (claim.envelope, 2, 2, 0)
    assert bench.events_of(claim.job_id) == ["added", "active", "waiting_children", "children_ended", "active"]


async def test_an_outcome_that_is_sent_twice_counts_once(bench: Bench) -> None:
    claim = await bench.claimed()
    parts = await staged(bench, claim, job("a"))
    outcome = wait(claim, "abc", parts, 1)
    await bench.tick(outcomes=[outcome])
    before = bench.dump("workers")
    assert (await bench.tick(outcomes=[outcome])).stale == [0]
    assert bench.dump("workers") == before


async def test_children_that_are_no_longer_staged_send_the_job_back_to_its_lane(bench: Bench) -> None:
    claim = await bench.claimed()
    parts = await staged(bench, claim, job("a"))
    bench.redis.delete(bench.key("batch:abc"), bench.key("batch:abc:parts"))
    await bench.tick(outcomes=[wait(claim, "abc", parts, 1)])
    (again,) = (await claims(bench)).values()
    assert (again.job_id, again.attempts_made, again.children) == (claim.job_id, 0, 0)


async def test_what_was_staged_by_an_attempt_that_was_lost_goes_away(bench: Bench) -> None:
    claim = await bench.claimed()
    await staged(bench, claim, job("a"))
    await bench.tick(outcomes=[release(claim)])
    assert 0 < bench.redis.ttl(bench.key("batch:abc")) <= 600
    assert set(await claims(bench)) == {claim.job_id}


async def test_a_job_may_wait_again_for_others(bench: Bench) -> None:
    claim = await bench.claimed("top")
    parts = await staged(bench, claim, job("a"))
    await bench.tick(outcomes=[wait(claim, "abc", parts, 1)])
    await complete(bench, "a")
    claim = (await claims(bench))["top"]
    parts = await staged(bench, claim, job("b"), job("c"), batch="def")
    await bench.tick(outcomes=[wait(claim, "def", parts, 2)])
    assert (bench.record("top")["fn"], bench.record("top")["fo"]) == (b"3", b"2")
    await complete(bench, "b", "c")
    assert (await claims(bench))["top"].children == 3
    page = await bench.store.children("top", 1, 10)
    assert page is not None
    assert [child.job_id for child in page.children] == ["a", "b", "c"]


async def test_a_child_that_fails_at_once_does_not_stop_the_others_from_being_added(bench: Bench) -> None:
    await bench.ended("fail", "early")
    claim = await bench.claimed("top")
    parts = await staged(bench, claim, job("early"), job("late"))
    await bench.tick(outcomes=[wait(claim, "abc", parts, 2)])
    assert bench.record("top")["s"] == b"f"
    assert set(await claims(bench)) == {"late"}


async def test_thousands_of_children_come_in_parts_and_none_is_lost_with_the_worker(bench: Bench) -> None:
    claim = await bench.claimed("top")
    parts = await staged(bench, claim, *(FlowJob("leaf") for _ in range(2_500)))
    await bench.tick(outcomes=[wait(claim, "abc", parts, 2_500)])
    assert bench.redis.xlen(bench.key("lane:3")) < 2_500
    ended = 0
    while held := await claims(bench, 500):
        if "top" in held:
            break
        ended += len(held)
        await bench.tick(outcomes=[done(child, keep=0) for child in held.values()])
    assert ended == 2_500
    assert bench.redis.exists(bench.key("batch:abc")) == 0


async def test_a_job_that_waits_for_itself_fails(bench: Bench) -> None:
    claim = await bench.claimed("top")
    parts = await staged(bench, claim, job("top"))
    await bench.tick(outcomes=[wait(claim, "abc", parts, 1)])
    assert bench.record("top")["s"] == b"f"


async def test_a_failed_childs_parent_that_ran_before_is_not_run_again(bench: Bench) -> None:
    claim = await bench.claimed("top")
    parts = await staged(bench, claim, job("a"))
    await bench.tick(outcomes=[wait(claim, "abc", parts, 1)])
    held = await claims(bench)
    await bench.tick(outcomes=[fail(held["a"])])
    assert bench.record("top")["s"] == b"f"
    assert await claims(bench) == {}


async def test_a_job_that_waits_leaves_its_keys_place_to_its_children(bench: Bench) -> None:
    bench.redis.hset(bench.key("meta"), "key_active", 1)
    await bench.add_raw(NewJob(3, bound_start("0", {"k": "tenant"}), "top", envelope()))
    claim = (await bench.claim())[0]
    (child,) = [encoded(job("a"))]
    family = {"t": "abc", "p": [["", "top", 1, "f"]]}
    await bench.store.stage("abc", 0, [child._replace(start=bound_start("0", {"k": "tenant", "f": family}))])
    await bench.tick(outcomes=[wait(claim, "abc", 1, 1)])
    await complete(bench, "a")
    assert set(await claims(bench)) == {"top"}


async def test_children_that_are_still_on_their_way_when_the_job_adds_others_come_all_the_same(bench: Bench) -> None:
    claim = await bench.claimed("top", lane=1)
    first = FlowJob("first", job_id="first", on_failure="continue", priority=Priority.CRITICAL)
    parts = await staged(bench, claim, first, *(FlowJob("other") for _ in range(3_000)))
    await bench.tick(outcomes=[wait(claim, "abc", parts, 3_001)])
    (child,) = await bench.claim()
    await bench.tick(outcomes=[fail(child)])
    (claim,) = await bench.claim()
    assert (child.job_id, claim.job_id) == ("first", "top")
    parts = await staged(bench, claim, FlowJob("late"), batch="def")
    await bench.tick(outcomes=[wait(claim, "def", parts, 1)])
    while bench.redis.exists(bench.key("batches")):
        await bench.tick()
    assert len(bench.lane()) == 3_001
    assert bench.record("top")["fo"] == b"3001"
