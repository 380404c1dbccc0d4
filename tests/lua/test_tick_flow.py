"""tick, settle, of jobs that others wait for: each end is told to each parent once."""

from __future__ import annotations

import pytest

from streamq import FlowJob, Retention, group
from streamq._engine import codec
from streamq.flow import OnFailure
from tests.lua.conftest import Bench, EndsBy, done, fail, retry
from tests.lua.flows import NOT_KEPT, add_flow, claims, complete, job


async def test_the_last_childs_end_starts_the_parent_once(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a"), job("b")))
    held = await claims(bench)
    await bench.tick(outcomes=[done(held["a"])])
    assert (bench.record("top")["s"], bench.record("top")["fo"]) == (b"w", b"1")
    bench.woken()
    await bench.tick(outcomes=[done(held["b"])])
    assert (bench.record("top")["s"], bench.record("top")["fo"]) == (b"q", b"0")
    assert bench.scores("waiting_children") == {}
    assert bench.woken()
    assert bench.events_of("top") == ["waiting_children", "children_ended"]
    claim = (await claims(bench))["top"]
    assert (claim.children, claim.attempts_made) == (2, 0)
    await bench.tick(outcomes=[done(claim)])
    assert bench.record("top")["s"] == b"c"


async def test_an_end_that_is_sent_again_is_told_once(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a"), job("b")))
    held = await claims(bench)
    await bench.tick(outcomes=[done(held["a"])])
    reply = await bench.tick(outcomes=[done(held["a"]), done(held["a"])])
    assert reply.stale == [0, 1]
    assert (bench.record("top")["s"], bench.record("top")["fo"]) == (b"w", b"1")


@pytest.mark.parametrize("keep", [0, 1, 100])
async def test_a_childs_result_reaches_its_parent_however_it_is_kept(bench: Bench, keep: int) -> None:
    """Incident R91."""
    await add_flow(bench, job("top", job("a"), job("b")))
    held = await claims(bench)
    ends = [done(held["a"], b"\x01", keep=keep), done(held["b"], b"\x02", keep=keep)]
    assert (await bench.tick(outcomes=ends)).bound
    page = await bench.store.children("top", 1, 10)
    assert page is not None
    assert [(child.state, child.body) for child in page.children] == [("completed", b"\x01"), ("completed", b"\x02")]


async def test_a_retry_is_no_end(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a")))
    held = await claims(bench)
    await bench.tick(outcomes=[retry(held["a"])])
    assert bench.record("top")["fo"] == b"1"
    await complete(bench, "a")
    assert bench.record("top")["s"] == b"q"


async def test_a_child_that_fails_fails_its_parent_and_says_which(bench: Bench) -> None:
    """Incident R87."""
    await add_flow(bench, job("top", job("a"), job("b")))
    held = await claims(bench)
    await bench.tick(outcomes=[fail(held["a"], "no such account")])
    record = bench.record("top")
    assert (record["s"], record["fx"], record["fo"]) == (b"f", b"1", b"1")
    error = codec.decode_error(record["x"])
    assert (error.type, error.message) == ("ChildFailed", "child a failed: ValueError: no such account")
    assert set(bench.scores("failed")) == {"a", "top"}
    assert [letter["j"] for letter in bench.dead_letters()] == [b"a", b"top"]
    assert bench.events_of("top") == ["waiting_children", "failed", "dead"]
    before = bench.record("top")
    await bench.tick(outcomes=[done(held["b"])])
    assert bench.record("top") == {**before, "fo": b"0"}


async def test_a_failure_goes_all_the_way_up_and_names_its_cause(bench: Bench) -> None:
    await add_flow(bench, job("one", job("two", job("three", job("low")))))
    held = await claims(bench)
    await bench.tick(outcomes=[fail(held["low"])])
    for job_id in ("three", "two", "one"):
        record = bench.record(job_id)
        assert record["s"] == b"f"
        assert codec.decode_error(record["x"]).message == "child low failed: ValueError: boom"
    assert bench.redis.hget(bench.key("meta"), "minute_f") == b"4"


@pytest.mark.parametrize(
    ("policy", "after_one", "after_all", "told"),
    [
        ("fail", b"f", b"f", ["failed", "completed"]),
        ("continue", b"q", b"q", ["failed", "completed"]),
        ("ignore", b"w", b"q", ["failed", "completed"]),
        ("remove", b"w", b"q", ["completed"]),
    ],
)
async def test_what_a_childs_failure_means_to_its_parent(
    bench: Bench, policy: OnFailure, after_one: bytes, after_all: bytes, told: list[str]
) -> None:
    """Incident R87."""
    await add_flow(bench, job("top", job("a", on_failure=policy), job("b", on_failure=policy)))
    held = await claims(bench)
    await bench.tick(outcomes=[fail(held["a"])])
    assert bench.record("top")["s"] == after_one
    await bench.tick(outcomes=[done(held["b"])])
    assert bench.record("top")["s"] == after_all
    assert bench.record("top")["fo"] == b"0"
    page = await bench.store.children("top", 1, 10)
    assert page is not None
    assert [child.state for child in page.children] == told
    assert bench.events_of("top").count("children_ended") == (policy != "fail")


@pytest.mark.parametrize("ends", [done, fail])
async def test_two_children_that_end_in_one_call_start_the_parent_once(bench: Bench, ends: EndsBy) -> None:
    """Incident R89."""
    await add_flow(bench, job("top", job("a", on_failure="ignore"), job("b", on_failure="ignore")))
    held = await claims(bench)
    await bench.tick(outcomes=[ends(held["a"]), fail(held["b"])])
    assert bench.events_of("top").count("children_ended") == 1
    assert list(await claims(bench)) == ["top"]
    assert await claims(bench) == {}


async def test_a_poisoned_child_fails_its_parent(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a")))
    await claims(bench)
    bench.lapse()
    await bench.tick("ben", max_stalls=1)
    assert codec.decode_error(bench.record("top")["x"]).message.startswith("child a failed: WorkerLost: ")


async def test_a_requeued_child_is_told_of_once(bench: Bench) -> None:
    """Incident R36: what the worker that was thought dead reports does not count."""
    await add_flow(bench, job("top", job("a")))
    held = await claims(bench)
    bench.lapse()
    await bench.tick("ben")
    taken = (await bench.claim("ben"))[0]
    await bench.tick(outcomes=[done(held["a"], b"\x01")])  # it signs in again
    assert (await bench.tick(outcomes=[done(held["a"], b"\x01")])).stale == [0]
    assert bench.record("top")["s"] == b"w"
    await bench.tick("ben", outcomes=[done(taken, b"\x02")])
    page = await bench.store.children("top", 1, 10)
    assert page is not None
    assert page.children[0].body == b"\x02"
    assert bench.events_of("top").count("children_ended") == 1


async def test_nothing_of_a_waiting_family_has_a_ttl(bench: Bench) -> None:
    """Incident R32."""
    await add_flow(bench, job("top", job("a"), job("b", delay=30 * 86_400)))
    held = await claims(bench)
    await bench.tick(outcomes=[retry(held["a"], 30 * 86_400_000)])
    kept = [key for key in bench.redis.scan_iter() if not key.startswith(bench.key("producer:").encode())]
    assert {bench.redis.ttl(key) for key in kept} == {-1}


async def test_a_group_of_all_ended_runs_its_callback_after_a_failure(bench: Bench) -> None:
    await add_flow(bench, group([job("a"), job("b")], then=job("then"), on="all_ended"))
    held = await claims(bench)
    await bench.tick(outcomes=[fail(held["a"]), fail(held["b"])])
    assert list(await claims(bench)) == ["then"]


async def test_a_group_of_first_failed_runs_its_callback_at_the_first_failure_only(bench: Bench) -> None:
    await add_flow(bench, group([job("a"), job("b"), job("c")], then=job("then"), on="first_failed"))
    held = await claims(bench)
    await bench.tick(outcomes=[done(held["a"]), fail(held["b"])])
    assert list(await claims(bench)) == ["then"]
    await bench.tick(outcomes=[fail(held["c"])])
    assert await claims(bench) == {}


@pytest.mark.parametrize("kept", [True, False])
async def test_a_group_of_first_failed_is_completed_without_a_run_if_nothing_fails(bench: Bench, kept: bool) -> None:
    then = job("then") if kept else job("then", keep_completed=NOT_KEPT)
    await add_flow(bench, group([job("a"), job("b")], then=then, on="first_failed"))
    await complete(bench, "a", "b")
    assert await claims(bench) == {}
    assert bench.events_of("then") == ["waiting_children", "completed"]
    assert bench.scores("waiting_children") == {}
    record = bench.record("then")
    assert (record["s"] == b"c" and "then" in bench.scores("completed")) if kept else record == {}


async def test_a_parents_children_go_with_its_record(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a")))
    await complete(bench, "a")
    claim = (await claims(bench))["top"]
    await bench.tick(outcomes=[done(claim)])
    assert bench.redis.exists(bench.key("children:top")) == 1
    await bench.ended("done", "later")
    bench.redis.zadd(bench.key("completed"), {"top": 1, "a": 1})
    await bench.tick()
    assert bench.record("top") == {}
    assert bench.redis.exists(bench.key("children:top")) == 0


async def test_a_parent_of_which_nothing_is_kept_leaves_nothing(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a")))
    await complete(bench, "a", keep=0)
    await complete(bench, "top", keep=0)
    assert [key for key in bench.redis.scan_iter() if b":job:" in key or b":children:" in key] == []
    assert bench.scores("waiting_children") == {}


async def test_parents_that_fail_are_kept_no_longer_than_others(bench: Bench) -> None:
    for i in range(4):
        await add_flow(bench, FlowJob("p", children=[job(f"c{i}")], job_id=f"p{i}"), keep_failed=Retention(count=2))
        held = await claims(bench)
        await bench.tick(outcomes=[fail(held[f"c{i}"], keep=0)])
    assert list(bench.scores("failed")) == ["p2", "p3"]
    assert bench.record("p1") == {}
