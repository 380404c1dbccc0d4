"""add, of a flow: jobs that wait for others."""

from __future__ import annotations

import pytest

from streamq import FlowJob, Settings
from streamq._engine.store import Store
from streamq._engine.transitions import Added, NewJob, TickArgs, added
from tests.lua.conftest import Bench, done, envelope
from tests.lua.flows import NOT_KEPT, add_flow, claims, complete, encoded, job, laid_out


async def test_a_parent_waits_for_its_children_and_they_for_a_worker(bench: Bench) -> None:
    assert await add_flow(bench, job("top", job("a"), FlowJob("b"))) == [
        Added("top", True), Added("a", True), Added("3", True),
    ]  # fmt: skip
    assert set(bench.scores("waiting_children")) == {"top"}
    assert {parts["j"] for _, parts in bench.lane()} == {b"a", b"3"}
    record = bench.record("top")
    assert (record["s"], record["fn"], record["fo"]) == (b"w", b"2", b"2")
    children = bench.redis.hgetall(bench.key("children:top"))
    assert children == {b"1": b"\0a", b"2": b"\x003"}
    assert bench.events_of("top") == ["waiting_children"]
    assert bench.redis.hget(bench.key("meta"), "bound") == b"1"
    assert bench.woken()


async def test_the_same_call_again_adds_nothing(bench: Bench) -> None:
    jobs = laid_out(job("top", job("a"), FlowJob("b")))
    first = await bench.add_raw(*jobs, number=1)
    before = bench.dump()
    assert await bench.add_raw(*jobs, number=1) == first
    assert bench.dump() == before


async def test_a_flow_whose_top_is_known_adds_nothing(bench: Bench) -> None:
    await add_flow(bench, job("top", FlowJob("a"), job("b", FlowJob("c"))))
    before = bench.dump("id", "producer:n")
    again = await add_flow(bench, job("top", FlowJob("a"), job("b", FlowJob("c"))))
    assert [done.is_new for done in again] == [False] * 4
    assert bench.dump("id", "producer:n") == before


async def test_a_child_that_is_known_stands_for_the_new_one_and_for_those_below_it(bench: Bench) -> None:
    await add_flow(bench, job("one", job("shared", job("deep"))))
    added_now = await add_flow(bench, job("two", job("shared", job("other")), job("mine")))
    assert {(found.job_id, found.is_new) for found in added_now} == {
        ("two", True), ("mine", True), ("shared", False), ("other", False),
    }  # fmt: skip
    assert bench.record("other") == {}
    await complete(bench, "deep", "mine")
    await complete(bench, "shared")
    assert set(await claims(bench)) == {"one", "two"}


async def test_a_plain_job_of_a_known_id_stands_for_a_child(bench: Bench) -> None:
    await bench.add("plain")
    await add_flow(bench, job("top", job("plain")))
    await complete(bench, "plain")
    assert set(await claims(bench)) == {"top"}


async def test_a_child_that_has_completed_before_hands_over_its_result(bench: Bench) -> None:
    await bench.ended("done", "early")
    await add_flow(bench, job("top", job("early"), job("late")))
    assert bench.record("top")["fo"] == b"1"
    await complete(bench, "late")
    assert set(await claims(bench)) == {"top"}


async def test_a_child_that_has_failed_before_fails_its_parent(bench: Bench) -> None:
    await bench.ended("fail", "early")
    await add_flow(bench, job("top", job("early"), FlowJob("late")))
    assert bench.record("top")["s"] == b"f"
    assert bench.scores("waiting_children") == {}
    assert [letter["j"] for letter in bench.dead_letters()] == [b"early", b"top"]
    assert bench.events_of("top") == ["waiting_children", "failed", "dead"]


async def test_a_job_with_two_parents_is_added_once(bench: Bench) -> None:
    shared = job("shared")
    await add_flow(bench, job("top", job("left", shared), job("right", shared)))
    await complete(bench, "shared")
    held = await claims(bench)
    assert set(held) == {"left", "right"}
    await bench.tick(outcomes=[done(held["left"]), done(held["right"])])
    assert set(await claims(bench)) == {"top"}


async def test_a_child_above_its_own_parent_counts_as_failed(bench: Bench) -> None:
    await add_flow(bench, job("top", job("middle", job("low"))))
    jobs = laid_out(job("middle", job("top")), token="t")  # noqa: S106 - no secret
    bench.redis.hset(bench.key("job:middle"), mapping={"ft": "t", "fn": 2, "fo": 2})
    (start,) = [new for new in jobs if new.job_id == "top"]
    await bench.add_raw(start._replace(start=start.start.replace(b"\x01", b"\x02")))
    assert (bench.record("middle")["s"], bench.record("top")["s"]) == (b"f", b"f")


async def test_a_parent_with_a_delay_starts_when_both_are_over(bench: Bench) -> None:
    """Incident R90."""
    await add_flow(bench, job("top", job("a"), delay=60))
    assert bench.scores("delayed") == {}
    created = int(bench.record("top")["c"])
    await complete(bench, "a")
    assert bench.scores("delayed") == {"top": created + 60_000}
    assert bench.record("top")["s"] == b"d"


async def test_a_parents_delay_that_is_over_holds_nothing_up(bench: Bench) -> None:
    """Incident R90."""
    await add_flow(bench, job("top", job("a"), delay=60))
    bench.redis.hset(bench.key("job:top"), "u", 1)
    await complete(bench, "a")
    assert set(await claims(bench)) == {"top"}


async def test_a_flows_jobs_may_be_in_other_queues(bench: Bench) -> None:
    flow = job("top", job("there", job("back", queue="q"), queue="other"), FlowJob("too", queue="other"))
    await add_flow(bench, flow)
    other = "sq:{other}"
    assert bench.redis.hget(f"{other}:job:there", "s") == b"w"
    assert bench.redis.hget(f"{other}:meta", "bound") == b"1"
    assert bench.redis.xlen(f"{other}:lane:3") == 1
    assert bench.redis.hgetall(bench.key("children:top")) == {b"1": b"other\0there", b"2": b"other\x002"}
    assert bench.redis.hgetall(f"{other}:children:there") == {b"1": b"q\0back"}
    await complete(bench, "back")
    assert bench.redis.xlen(f"{other}:lane:3") == 2
    assert bench.redis.llen(f"{other}:wake") == 1


async def test_a_staged_flow_of_several_parts_is_whole(bench: Bench) -> None:
    jobs = laid_out(job("top", *(FlowJob("leaf") for _ in range(2_500))))
    for at in range(0, len(jobs), 1_000):
        await bench.store.stage("b", at // 1_000, jobs[at : at + 1_000])
    more, *reply = await bench.store.commit("n", 1, "b", 3)
    assert added(jobs[:1_000], reply)[0] == Added("top", True)
    held = await claims(bench, 1_000)
    await bench.tick(outcomes=[done(claim, keep=0) for claim in held.values()])
    assert bench.record("top")["s"] == b"w"  # the others are still to come
    number = 1
    while more:
        number += 1
        more, *reply = await bench.store.commit("n", number, "b", None)
    while held := await claims(bench, 1_000):
        if "top" in held:
            break
        await bench.tick(outcomes=[done(claim, keep=0) for claim in held.values()])
    assert list(held) == ["top"]
    assert held["top"].children == 2_500


async def test_a_plain_add_costs_what_it_did(bench: Bench) -> None:
    await bench.add_raw(encoded(FlowJob("plain")))
    assert {key.decode().rpartition("}")[2] for key in bench.redis.scan_iter()} == {
        ":id", ":lane:3", ":events", ":wake", ":producer:n",
    }  # fmt: skip


async def test_a_child_whose_parent_has_gone_meanwhile_is_not_added(bench: Bench) -> None:
    jobs = laid_out(job("top", FlowJob("a"), FlowJob("b")))
    await bench.add_raw(jobs[0])
    await bench.store.remove("top", force=False)
    reply = await bench.add_raw(*jobs[1:])
    assert [found.is_new for found in added(jobs[1:], reply)] == [False, False]
    assert bench.lane() == []


async def test_a_parent_that_fails_and_is_not_kept_leaves_nothing(bench: Bench) -> None:
    await bench.ended("fail", "early")
    flow = job("top", job("early"), keep_failed=NOT_KEPT)
    await add_flow(bench, flow)
    assert bench.record("top") == {}
    assert bench.redis.exists(bench.key("children:top")) == 0
    assert [letter["j"] for letter in bench.dead_letters()] == [b"early", b"top"]


async def test_a_child_that_is_there_as_another_queue_s_plain_job_tells_its_parent(bench: Bench) -> None:
    other = Store("other", bench.store.wire, Settings())
    await other.add("m", 1, [NewJob(3, "0", "there", envelope())], within=5)
    await add_flow(bench, job("top", job("there", queue="other")))
    assert bench.record("top")["s"] == b"w"
    args = TickArgs(worker="bob", lease_ms=60_000, max_stalls=3, events_cap=100, dead_cap=100)
    (claim,) = (await other.tick(args, 1, [])).claimed
    await other.tick(args, 0, [done(claim)])
    assert set(await claims(bench)) == {"top"}


@pytest.mark.parametrize("keep", [0, 100])
async def test_a_child_whose_entry_was_deleted_tells_its_parent(bench: Bench, keep: int) -> None:
    await add_flow(bench, job("top", job("child")))
    held = await claims(bench)
    bench.redis.xdel(bench.key("lane:3"), held["child"].entry)
    await bench.tick(outcomes=[done(held["child"], keep=keep)])
    assert set(await claims(bench)) == {"top"}


async def test_an_ended_record_that_is_broken_stops_no_tick(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a")))
    await complete(bench, "a")
    await complete(bench, "top")
    bench.redis.delete(bench.key("job:a"))
    bench.redis.set(bench.key("job:a"), "no record")
    bench.sabotaged = True
    claim = await bench.claimed()
    await bench.tick(outcomes=[done(claim, keep=1)])
    assert list(bench.scores("completed")) == [claim.job_id]
    assert bench.redis.exists(bench.key("job:a")) == 0
