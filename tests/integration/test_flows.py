"""Flows with workers at work: parents run once, after their children, with their results."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamq import (
    ActiveJob,
    ChildEnd,
    FlowJob,
    InvalidInput,
    JobFailed,
    JobNotFound,
    JobState,
    Priority,
    Processors,
    Queue,
    QueueFull,
    Retention,
    Settings,
    Unrecoverable,
    Worker,
    chain,
    group,
)
from streamq.errors import JobCancelled
from tests.integration.conftest import PATIENCE, Bench

runs = Processors()


@runs.register("value")
async def value(job: ActiveJob[Any]) -> Any:
    return job.data


@runs.register("bad")
async def bad(job: ActiveJob[Any]) -> None:
    raise Unrecoverable("no such account")


@runs.register("sum")
async def add_up(job: ActiveJob[int | None]) -> int:
    return sum(await job.children_results()) + (job.data or 0)


@runs.register("sum-in-thread")
def add_up_in_thread(job: ActiveJob[Any]) -> int:
    results: Any = job.children_results()
    return sum(results)


@runs.register("ends")
async def ends(job: ActiveJob[Any]) -> list[Any]:
    return [[end.id, end.state, end.result, str(end.error or "")] for end in await job.child_ends()]


@runs.register("spread")
async def spread(job: ActiveJob[int]) -> int:
    if not job.children:
        await job.add_children([FlowJob("value", n) for n in range(job.data)])
    return sum(await job.children_results())


@runs.register("spread-in-thread")
def spread_in_thread(job: ActiveJob[int]) -> Any:
    if not job.children:
        job.add_children([FlowJob("value", n) for n in range(job.data)])
    return list(job.children_results())  # type: ignore[call-overload]  # in a thread it is the list


@runs.register("twice")
async def twice(job: ActiveJob[Any]) -> int:
    if job.children < 4:
        await job.add_children([FlowJob("value", job.children + n) for n in range(2)])
    return sum(await job.children_results())


@runs.register("grow")
async def grow(job: ActiveJob[int]) -> int:
    if job.data and not job.children:
        await job.add_children([FlowJob("grow", job.data - 1), FlowJob("grow", job.data - 1)])
    return 1 + sum(await job.children_results())


def kinds(of: list[str]) -> dict[str, int]:
    return {kind: of.count(kind) for kind in ("children_ended", "active", "completed", "failed")}


async def test_a_tree_of_five_levels_runs_from_its_leaves_up(bench: Bench) -> None:
    def tree(levels: int) -> FlowJob:
        return FlowJob("sum", 1, children=[tree(levels - 1), tree(levels - 1)] if levels > 1 else [])

    async with bench.worker(runs):
        job = await bench.queue.add_flow(tree(5))
        assert await job.result(timeout=PATIENCE) == 31
    assert kinds(await bench.history(job.id, "completed")) == {
        "children_ended": 1, "active": 1, "completed": 1, "failed": 0,
    }  # fmt: skip


async def test_the_job_at_the_top_of_a_diamond_runs_once_after_both_sides(bench: Bench) -> None:
    shared = FlowJob("value", 7)
    top = FlowJob("sum", children=[FlowJob("sum", 1, children=[shared]), FlowJob("sum", 2, children=[shared])])
    async with bench.worker(runs):
        job = await bench.queue.add_flow(top)
        assert await job.result(timeout=PATIENCE) == 17
    stats = await bench.queue.stats()
    assert (stats.completed, stats.waiting_children) == (4, 0)


async def test_a_chain_hands_each_result_on(bench: Bench) -> None:
    async with bench.worker(runs):
        flow = chain(FlowJob("value", 1), group([FlowJob("sum", 10), FlowJob("sum", 20)], then=FlowJob("sum", 100)))
        assert await (await bench.queue.add_flow(flow)).result(timeout=PATIENCE) == 132


async def test_a_plain_function_reads_its_childrens_results(bench: Bench) -> None:
    async with bench.worker(runs):
        job = await bench.queue.add_flow(FlowJob("sum-in-thread", children=[FlowJob("value", 2), FlowJob("value", 3)]))
        assert await job.result(timeout=PATIENCE) == 5


@pytest.mark.parametrize(("on", "then_runs"), [("all_succeeded", False), ("all_ended", True), ("first_failed", True)])
async def test_a_groups_callback_after_a_failure(bench: Bench, on: Any, then_runs: bool) -> None:
    async with bench.worker(runs):
        job = await bench.queue.add_flow(group([FlowJob("value", 1), FlowJob("bad")], then=FlowJob("ends"), on=on))
        if then_runs:
            result = await job.result(timeout=PATIENCE)
            assert result[1][1] == "failed"
            assert "no such account" in result[1][3]
        else:
            with pytest.raises(JobFailed, match=r"ChildFailed: child \d+ failed: Unrecoverable: no such account"):
                await job.result(timeout=PATIENCE)


@pytest.mark.parametrize("on", ["all_succeeded", "all_ended", "first_failed"])
async def test_a_groups_callback_when_nothing_fails(bench: Bench, on: Any) -> None:
    async with bench.worker(runs):
        job = await bench.queue.add_flow(group([FlowJob("value", 1), FlowJob("value", 2)], then=FlowJob("sum"), on=on))
        assert await job.result(timeout=PATIENCE) == (None if on == "first_failed" else 3)


@pytest.mark.parametrize("end", ["fail", "cancel", "remove", "clean", "drain", "expire"])
@pytest.mark.parametrize("policy", ["fail", "continue", "ignore", "remove"])
async def test_every_way_to_end_without_success_counts_as_the_policy_says(bench: Bench, end: str, policy: Any) -> None:
    """Incident R87: a parent is never left waiting with no open children."""
    queue = bench.queue
    options: dict[str, Any] = {"expires_in": 0.001} if end == "expire" else {}
    child = FlowJob("bad" if end == "fail" else "value", 1, job_id="child", on_failure=policy, **options)
    job = await queue.add_flow(FlowJob("ends", children=[child]))
    if end == "cancel":
        assert await queue.cancel("child", "not needed")
    elif end == "remove":
        assert await queue.remove("child")
    elif end == "clean":
        assert await queue.clean(0, state=JobState.WAITING) == ["child"]
    elif end == "drain":
        assert await queue.drain() == 1
    async with bench.worker(runs):
        if policy == "fail":
            with pytest.raises(JobFailed, match="ChildFailed: child child"):
                await job.result(timeout=PATIENCE)
        else:
            told = [] if policy == "remove" else [_told(end)]
            assert [[end_[0], end_[1]] for end_ in await job.result(timeout=PATIENCE)] == told
    assert (await queue.stats()).waiting_children == 0


def _told(end: str) -> list[str]:
    states = {"fail": "failed", "expire": "failed", "cancel": "cancelled"}
    return ["child", states.get(end, "removed")]


async def test_a_running_job_adds_children_and_runs_again_with_their_results(bench: Bench) -> None:
    async with bench.worker(runs):
        job = await bench.queue.add("spread", 5, attempts=1)
        assert await job.result(timeout=PATIENCE) == 10
    snapshot = await job.snapshot()
    assert snapshot is not None
    assert (snapshot.attempts_made, snapshot.children, snapshot.open_children) == (1, 5, 0)
    assert await bench.history(job.id, "completed") == [
        "added", "active", "waiting_children", "children_ended", "active", "completed",
    ]  # fmt: skip


async def test_a_plain_function_adds_children_too(bench: Bench) -> None:
    async with bench.worker(runs):
        assert await (await bench.queue.add("spread-in-thread", 3)).result(timeout=PATIENCE) == [0, 1, 2]


async def test_a_job_adds_children_more_than_once(bench: Bench) -> None:
    async with bench.worker(runs):
        assert await (await bench.queue.add("twice")).result(timeout=PATIENCE) == 0 + 1 + 2 + 3


async def test_children_add_children_of_their_own(bench: Bench) -> None:
    async with bench.worker(runs, concurrency=20):
        assert await (await bench.queue.add("grow", 5)).result(timeout=PATIENCE) == 63


async def test_ten_thousand_children_under_one_parent(bench: Bench) -> None:
    async with bench.worker(runs, concurrency=200):
        children = [FlowJob("value", n, keep_completed=Retention(count=0)) for n in range(10_000)]
        job = await bench.queue.add_flow(FlowJob("sum", children=children))
        assert await job.result(timeout=PATIENCE) == sum(range(10_000))
        found = await bench.queue.children(job.id, start=9_999, count=10)
        assert [end.result for end in found] == [9_998, 9_999]


async def test_ten_thousand_children_of_a_running_job(bench: Bench) -> None:
    async with bench.worker(runs, concurrency=200):
        job = await bench.queue.add("spread", 10_000)
        assert await job.result(timeout=PATIENCE) == sum(range(10_000))


async def test_a_flow_goes_over_several_queues(bench: Bench, settings: Settings) -> None:
    there = FlowJob("sum", 1, children=[FlowJob("value", 2)], queue="other")
    flow = FlowJob("sum", children=[there, FlowJob("value", 4)])
    async with bench.worker(runs), Worker("other", runs, settings=settings):
        job = await bench.queue.add_flow(flow)
        assert await job.result(timeout=PATIENCE) == 7
        tree = await bench.queue.flow(job.id)
        assert [(node.queue, node.state) for node in tree.nodes] == [("other", "completed"), ("q", "completed")]


async def test_a_child_knows_its_parents(bench: Bench) -> None:
    child = FlowJob("value", job_id="child")
    await bench.queue.add_flow(FlowJob("sum", job_id="top", children=[child, FlowJob("value", queue="other")]))
    snapshot = await bench.queue.get_job("child")
    assert snapshot is not None
    assert snapshot.parents == (("q", "top"),)
    (page,) = await bench.queue.jobs(JobState.WAITING_CHILDREN)
    assert (page.id, page.children, page.open_children) == ("top", 2, 2)
    assert (await bench.queue.stats()).waiting_children == 1
    assert await bench.queue.children("top") == [
        ChildEnd(place=1, queue="q", id="child", state=None),
        ChildEnd(place=2, queue="other", id="1", state=None),
    ]


async def test_adding_the_same_flow_again_adds_nothing(bench: Bench) -> None:
    def flow() -> FlowJob:
        return FlowJob("sum", job_id="monthly", children=[FlowJob("value", 1), FlowJob("value", 2)])

    first, second = await asyncio.gather(bench.queue.add_flow(flow()), bench.queue.add_flow(flow()))
    assert {first.is_new, second.is_new} == {True, False}
    assert (await bench.queue.stats()).total == 3
    async with bench.worker(runs):
        assert await second.result(timeout=PATIENCE) == 3


async def test_a_flow_that_would_wait_for_itself_is_refused_before_anything_is_sent(bench: Bench) -> None:
    low, top = FlowJob("low"), FlowJob("top")
    top.children.append(low)
    low.children.append(top)
    with pytest.raises(InvalidInput, match="job 'top' would wait for itself"):
        await bench.queue.add_flow(top)
    with pytest.raises(InvalidInput, match=r"a flow is a FlowJob\(...\), not 'top'"):
        await bench.queue.add_flow("top")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="the flow's top job is for queue other: add it there"):
        await bench.queue.add_flow(FlowJob("top", queue="other"))
    assert (await bench.queue.stats()).total == 0


async def test_a_flow_that_does_not_fit_into_the_queue_is_refused_whole(bench: Bench) -> None:
    await bench.queue.set_max_size(3)
    with pytest.raises(QueueFull):
        await bench.queue.add_flow(FlowJob("sum", children=[FlowJob("value", n) for n in range(5)]))
    assert (await bench.queue.stats()).total == 0


async def test_a_failed_flow_is_retried_whole(bench: Bench) -> None:
    """The child that failed runs again, and all above it wait for it again."""
    healed = False

    async def handle(job: ActiveJob[Any]) -> Any:
        if job.name == "leaf":
            if not healed:
                raise Unrecoverable("not yet")
            return 1
        return sum(await job.children_results()) + 1

    flow = FlowJob("top", children=[FlowJob("mid", children=[FlowJob("leaf"), FlowJob("mid")]), FlowJob("mid")])
    async with bench.worker(handle):
        job = await bench.queue.add_flow(flow)
        with pytest.raises(JobFailed, match="not yet"):
            await job.result(timeout=PATIENCE)
        healed = True
        assert len(await bench.queue.retry_flow(job.id)) == 1  # the leaf; the others wait again by that
        assert await job.result(timeout=PATIENCE) == 5
    stats = await bench.queue.stats()
    assert (stats.completed, stats.failed, stats.dead) == (5, 0, 0)


async def test_a_parent_that_failed_by_itself_is_retried_without_its_children(bench: Bench) -> None:
    tries: list[str] = []

    async def handle(job: ActiveJob[Any]) -> int:
        tries.append(job.name)
        if job.name == "top" and tries.count("top") == 1:
            raise Unrecoverable("bad luck")
        return 1

    async with bench.worker(handle):
        job = await bench.queue.add_flow(FlowJob("top", children=[FlowJob("leaf")]))
        with pytest.raises(JobFailed):
            await job.result(timeout=PATIENCE)
        assert await bench.queue.retry_flow(job.id) == [job.id]
        assert await job.result(timeout=PATIENCE) == 1
    assert tries == ["leaf", "top", "top"]


async def test_retry_many_takes_a_failed_flow_up_again(bench: Bench) -> None:
    healed = False

    async def handle(job: ActiveJob[Any]) -> int:
        if job.name == "leaf" and not healed:
            raise Unrecoverable("not yet")
        return 1

    async with bench.worker(handle):
        jobs = [await bench.queue.add_flow(FlowJob("top", children=[FlowJob("leaf")])) for _ in range(5)]
        for job in jobs:
            with pytest.raises(JobFailed):
                await job.result(timeout=PATIENCE)
        healed = True
        assert len(await bench.queue.retry_many()) == 5
        assert [await job.result(timeout=PATIENCE) for job in jobs] == [1] * 5
    stats = await bench.queue.stats()
    assert (stats.completed, stats.failed, stats.dead) == (10, 0, 0)


async def test_a_whole_flow_is_cancelled_and_taken_up_again(bench: Bench) -> None:
    started = asyncio.Event()

    async def handle(job: ActiveJob[Any]) -> int:
        started.set()
        if job.name == "slow" and job.attempt == 1 and not taken_up:
            await asyncio.sleep(60)
        return 1

    taken_up = False
    flow = FlowJob("top", children=[FlowJob("mid", children=[FlowJob("slow")]), FlowJob("later", delay=3_600)])
    async with bench.worker(handle):
        job = await bench.queue.add_flow(flow)
        await started.wait()
        assert len(await bench.queue.cancel_flow(job.id, "wrong month")) == 4
        with pytest.raises(JobCancelled):
            await job.result(timeout=PATIENCE)
        (slow,) = [node.nodes[0] for node in (await bench.queue.flow(job.id)).nodes if node.nodes]
        await bench.happened("cancelled", slow.id)
        taken_up = True
        assert len(await bench.queue.retry_flow(job.id)) == 4
        assert await job.result(timeout=PATIENCE) == 1
    assert (await bench.queue.stats()).cancelled == 0


async def test_the_tree_of_an_unknown_job_is_refused(bench: Bench) -> None:
    for read in (bench.queue.flow, bench.queue.children, bench.queue.retry_flow, bench.queue.cancel_flow):
        with pytest.raises(JobNotFound):
            await read("nope")


async def test_a_flow_keeps_its_jobs_options(bench: Bench) -> None:
    child = FlowJob("value", 1, priority=Priority.HIGH, job_id="child", tags=("a",))
    await bench.queue.add_flow(FlowJob("sum", children=[child], priority=Priority.LOW, job_id="top"))
    top, found = await bench.queue.get_job("top"), await bench.queue.get_job("child")
    assert top is not None
    assert found is not None
    assert (top.priority, top.state) == (Priority.LOW, JobState.WAITING_CHILDREN)
    assert (found.priority, found.tags) == (Priority.HIGH, ("a",))


async def test_flows_of_which_two_children_end_at_once_run_their_parent_once(bench: Bench, settings: Settings) -> None:
    """Incident R89: 500 flows, two workers, one child of each fails."""
    ran: list[str] = []

    async def handle(job: ActiveJob[Any]) -> None:
        if job.name == "parent":
            ran.append(job.id)
        elif job.name == "fails":
            raise Unrecoverable("as it should")

    def flow(n: int) -> FlowJob:
        children = [FlowJob("fails", on_failure="ignore"), FlowJob("works", on_failure="ignore")]
        return FlowJob("parent", children=children, job_id=f"p{n}")

    async with bench.worker(handle, concurrency=20), bench.worker(handle, concurrency=20):
        jobs = await asyncio.gather(*(bench.queue.add_flow(flow(n)) for n in range(500)))
        await asyncio.gather(*(_end(bench.queue, job.id) for job in jobs))
    assert sorted(ran) == sorted(f"p{n}" for n in range(500))


async def _end(queue: Queue, job_id: str) -> None:
    try:
        await queue.result(job_id, timeout=PATIENCE)
    except Exception as error:
        assert type(error).__name__ in ("ResultNotKept", "JobNotFound")  # noqa: PT017 - its retention is short


async def test_a_delayed_parent_waits_for_its_child_too(bench: Bench) -> None:
    """Incident R90."""
    order: list[str] = []

    async def handle(job: ActiveJob[Any]) -> None:
        await asyncio.sleep(0.3 if job.name == "child" else 0)
        order.append(job.name)

    async with bench.worker(handle):
        flow = FlowJob("parent", delay=0.1, children=[FlowJob("child", delay=0.2)])
        await (await bench.queue.add_flow(flow)).result(timeout=PATIENCE)
    assert order == ["child", "parent"]


@pytest.mark.parametrize(
    "value", [2**53 + 1, 2**63, -(2**63), 10**40, 0.1, 1e-320, -0.0, {"a": [], "b": {}, "c": [[]]}]
)
async def test_a_result_reaches_the_parent_exactly(bench: Bench, value: Any) -> None:
    """Incidents R62, R63."""
    seen: list[Any] = []

    async def handle(job: ActiveJob[Any]) -> Any:
        if job.name == "parent":
            seen.extend(await job.children_results())
        return job.data

    async with bench.worker(handle):
        child = FlowJob("child", value, keep_completed=Retention(count=0))
        await (await bench.queue.add_flow(FlowJob("parent", children=[child]))).result(timeout=PATIENCE)
    assert repr(seen) == repr([value])
