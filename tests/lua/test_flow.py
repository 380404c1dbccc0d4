"""flow: reads the tree of jobs below a job."""

from __future__ import annotations

from streamq._engine.flowing import StoredNode
from tests.lua.conftest import Bench, done, fail
from tests.lua.flows import add_flow, claims, job


async def test_each_job_comes_before_its_children_with_its_state_and_counts(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a", job("deep")), job("b", queue="other")))
    await claims(bench)
    before = bench.dump()
    assert await bench.store.flow("top", 10, 100, 1_000) == [
        StoredNode(0, 0, "q", "top", "waiting_children", "top", 2, 2),
        StoredNode(1, 1, "q", "a", "waiting_children", "a", 1, 1),
        StoredNode(2, 1, "q", "deep", "active", "deep", 0, 0),
        StoredNode(1, 2, "other", "b", "waiting", "b", 0, 0),
    ]
    assert bench.dump() == before


async def test_depth_width_and_size_are_capped(bench: Bench) -> None:
    await add_flow(bench, job("top", *(job(f"c{i}", job(f"d{i}")) for i in range(4))))
    assert [node.job_id for node in await bench.store.flow("top", 1, 100, 100)] == ["top", "c0", "c1", "c2", "c3"]
    assert [node.job_id for node in await bench.store.flow("top", 9, 2, 100)] == ["top", "c0", "d0", "c1", "d1"]
    assert [node.job_id for node in await bench.store.flow("top", 9, 9, 3)] == ["top", "c0", "d0"]


async def test_a_child_whose_record_is_gone_is_told_as_it_ended(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a"), job("b", on_failure="ignore"), job("c", on_failure="ignore")))
    held = await claims(bench)
    await bench.tick(outcomes=[done(held["a"], keep=0), fail(held["b"], keep=0)])
    await bench.store.remove("c", force=True)
    found = await bench.store.flow("top", 1, 9, 9)
    assert [(node.job_id, node.state, node.name) for node in found[1:]] == [
        ("a", "completed", ""), ("b", "failed", ""), ("c", "removed", ""),
    ]  # fmt: skip


async def test_an_unknown_job_says_so(bench: Bench) -> None:
    assert await bench.store.flow("nope", 9, 9, 9) == [StoredNode(0, 0, "q", "nope", "unknown", "", 0, 0)]
