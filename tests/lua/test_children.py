"""children: reads how a job's children stand."""

from __future__ import annotations

from streamq._engine.flowing import StoredChild
from tests.lua.conftest import Bench, done, fail
from tests.lua.flows import add_flow, claims, job


async def test_children_are_told_in_the_order_in_which_they_were_added(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a"), job("b", job("c"), on_failure="ignore"), job("d", queue="other")))
    held = await claims(bench)
    await bench.tick(outcomes=[done(held["a"], b"\x05")])
    before = bench.dump()
    page = await bench.store.children("top", 1, 10)
    assert page is not None
    assert (page.total, page.following) == (3, 0)
    assert page.children == [
        StoredChild(1, "", "a", "completed", b"\x05", 0),
        StoredChild(2, "", "b", None, b"", 1),
        StoredChild(3, "other", "d", None, b"", 0),
    ]
    assert bench.dump() == before


async def test_a_page_says_where_the_next_one_starts(bench: Bench) -> None:
    await add_flow(bench, job("top", *(job(f"c{i}") for i in range(5))))
    place, found = 1, []
    while place:
        page = await bench.store.children("top", place, 2)
        assert page is not None
        found += [child.job_id for child in page.children]
        place = page.following
    assert found == [f"c{i}" for i in range(5)]


async def test_large_results_end_a_page_early(bench: Bench) -> None:
    await add_flow(bench, job("top", *(job(f"c{i}") for i in range(4))))
    held = await claims(bench)
    await bench.tick(outcomes=[done(held[f"c{i}"], bytes(1_500_000), keep=0) for i in range(4)])
    page = await bench.store.children("top", 1, 10)
    assert page is not None
    assert (len(page.children), page.following) == (2, 3)


async def test_a_child_of_which_the_parent_is_not_to_be_told_is_left_out(bench: Bench) -> None:
    await add_flow(bench, job("top", job("a", on_failure="remove"), job("b")))
    held = await claims(bench)
    await bench.tick(outcomes=[fail(held["a"])])
    page = await bench.store.children("top", 1, 10)
    assert page is not None
    assert [child.job_id for child in page.children] == ["b"]
    assert page.total == 2


async def test_an_unknown_job_has_no_page_and_a_plain_one_an_empty_one(bench: Bench) -> None:
    assert await bench.store.children("17", 1, 10) is None
    await bench.add("plain")
    page = await bench.store.children("plain", 1, 10)
    assert page is not None
    assert (page.total, page.children) == (0, [])
