"""Flows as they are described: what is refused before anything is sent, and in which order the jobs come."""

from __future__ import annotations

from typing import Any

import pytest

from streamq import Backoff, FlowJob, InvalidInput, JobOptions, Priority, chain, group
from streamq.flow import DEEPEST, ordered


def names(*roots: FlowJob) -> list[str]:
    return [job.name for job in ordered(*roots)]


def test_each_job_comes_before_its_children_and_once() -> None:
    shared = FlowJob("shared")
    top = FlowJob("top", children=[FlowJob("left", children=[shared]), FlowJob("right", children=[shared])])
    found = names(top)
    assert found[0] == "top"
    assert found[-1] == "shared"
    assert sorted(found) == ["left", "right", "shared", "top"]


def test_children_stay_in_their_order() -> None:
    assert names(FlowJob("top", children=[FlowJob("a"), FlowJob("b"), FlowJob("c")])) == ["top", "a", "b", "c"]


def test_in_a_chain_each_job_waits_for_the_one_before() -> None:
    a, b, c = FlowJob("a"), FlowJob("b"), FlowJob("c")
    assert chain(a, b, c) is c
    assert (c.children, b.children, a.children) == ([b], [a], [])


def test_in_a_chain_a_groups_jobs_wait_for_the_one_before() -> None:
    a, b, c, then, last = (FlowJob(name) for name in ("a", "b", "c", "then", "last"))
    assert chain(a, group([b, c], then=then), last) is last
    assert (last.children, then.children, b.children, c.children) == ([then], [b, c], [a], [a])


@pytest.mark.parametrize(
    ("on", "policy"), [("all_succeeded", "fail"), ("all_ended", "ignore"), ("first_failed", "continue")]
)
def test_a_group_says_what_a_failure_means(on: Any, policy: str) -> None:
    jobs = [FlowJob("a"), FlowJob("b", on_failure="remove")]
    then = group(jobs, then=FlowJob("then"), on=on)
    assert [job.on_failure for job in jobs] == [policy, policy]
    assert then.only_failed is (on == "first_failed")


def test_options_are_given_as_one_or_one_by_one() -> None:
    backoff = Backoff.fixed(1)
    job = FlowJob("a", 1, JobOptions(priority=Priority.LOW, attempts=7), attempts=2, backoff=backoff)
    assert job.options == JobOptions(priority=Priority.LOW, attempts=2, backoff=backoff)
    assert FlowJob("a").options is None
    assert FlowJob("a", job_id="mine").options == JobOptions(job_id="mine")


def cycle() -> FlowJob:
    low, top = FlowJob("low"), FlowJob("top")
    top.children.append(FlowJob("middle", children=[low]))
    low.children.append(top)
    return top


def deep(levels: int) -> FlowJob:
    return chain(*(FlowJob("a") for _ in range(levels)))


BAD: list[tuple[Any, str]] = [
    (lambda: ordered(cycle()), "job 'top' would wait for itself"),
    (lambda: ordered(deep(DEEPEST + 1)), "the flow is more than 1,000 levels deep"),
    (lambda: ordered(FlowJob("t", children=[FlowJob("a")] * 2)), "job 't' has the same child twice"),
    (lambda: chain(), "a chain needs a job"),
    (lambda: chain(*[FlowJob("a")] * 2), "job 'a' can't come after itself"),
    (lambda: group([], then=FlowJob("a")), "a group needs a job"),
    (
        lambda: group([FlowJob("b")], then=FlowJob("a"), on="never"),
        "on must be one of all_succeeded, all_ended, first_failed, not 'never'",
    ),
    (lambda: FlowJob("a", children=["b"]), "a flow is made of FlowJob(...), not of 'b'"),
    (
        lambda: FlowJob("a", on_failure="explode"),
        "on_failure must be one of fail, continue, ignore, remove, not 'explode'",
    ),
    (lambda: FlowJob(""), "job name must not be empty"),
    (lambda: FlowJob("a", queue="{x}"), "queue name must not contain braces (they mark a key's hash slot): '{x}'"),
    (lambda: FlowJob("a", None, {}), "options must be JobOptions, not dict"),
    (lambda: FlowJob("a", colour="red"), "unknown option 'colour'; the options are"),
]


@pytest.mark.parametrize(("make", "text"), BAD, ids=[text for _, text in BAD])
def test_what_makes_no_sense_is_refused(make: Any, text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        make()
    assert str(raised.value).startswith(text)


def test_a_chain_of_a_thousand_is_put_together_in_order() -> None:
    assert len(ordered(deep(DEEPEST))) == DEEPEST
