"""Flows as they are described: jobs that wait for other jobs. `Queue.add_flow` adds them, all or none.

A `FlowJob` is one job-to-be and those it waits for, its children; each child may have children of its own. One that is
named under several parents is one job for which all of them wait. Nothing here talks to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal, get_args

import msgspec

from streamq.errors import InvalidInput
from streamq.job import MAX_NAME, JobError, JobOptions, JobState, check_text, queue_name

OnFailure = Literal["fail", "continue", "ignore", "remove"]
"""What becomes of a parent when this child does not complete: it fails too; it starts at once, whatever else it waits
for; it goes on waiting for the rest, and is told; it goes on as if there had been no such child."""
On = Literal["all_succeeded", "all_ended", "first_failed"]
"""When a group's `then` runs."""

MOST_JOBS = 100_000
DEEPEST = 1_000
_POLICIES: dict[On, OnFailure] = {"all_succeeded": "fail", "all_ended": "ignore", "first_failed": "continue"}


class FlowJob:
    """One job of a flow: what `Queue.add` takes, the jobs it waits for, and what its own failure means to its parents.

    `options` come as `JobOptions`, or one by one as for `add`. `queue` is the name of another queue on the same server;
    None is the one that the flow is added to. `on_failure` is what it means to its parents if it does not complete, be
    it failed, cancelled or removed; see `OnFailure`.

    Raises:
        InvalidInput: A value makes no sense.
    """

    __slots__ = ("children", "data", "name", "on_failure", "only_failed", "options", "queue")

    def __init__(
        self,
        name: str,
        data: Any = None,
        options: JobOptions | None = None,
        *,
        children: Iterable[FlowJob] = (),
        queue: str | None = None,
        on_failure: OnFailure = "fail",
        **fields: Any,
    ) -> None:
        self.name, self.data = check_text("job name", name, MAX_NAME), data
        if options is not None and not isinstance(options, JobOptions):
            raise InvalidInput(f"options must be JobOptions, not {type(options).__name__}")
        self.options = _options(options, fields)
        self.queue = None if queue is None else queue_name(queue)
        if on_failure not in get_args(OnFailure):
            raise InvalidInput(f"on_failure must be one of {', '.join(get_args(OnFailure))}, not {on_failure!r}")
        self.on_failure = on_failure
        self.only_failed = False
        """Whether it is completed without a run if none of its children fails."""
        self.children = [_flow_job(child) for child in children]

    def __repr__(self) -> str:
        return f"<FlowJob {self.name}, {len(self.children)} children>"


class ChildEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How a child stands, as its parent sees it. `state` is None while it has not ended; it may be "removed"."""

    place: int
    queue: str
    id: str
    state: JobState | Literal["removed"] | None
    result: Any = None
    error: JobError | None = None


class FlowNode(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a flow's tree, and the first of its children.

    `state` is that of a job, or "removed", or "unknown" for one that nothing is known of any more. `children` is how
    many children it has had, `open` how many of them have not ended; `nodes` are those that were asked for. A job with
    several parents stands below each of them.
    """

    queue: str
    id: str
    name: str
    state: str
    place: int
    children: int
    open: int
    nodes: list[FlowNode]


def chain(*jobs: FlowJob) -> FlowJob:
    """Have each of `jobs` wait for the one before it, and return the last one, which is the flow to add.

    A job that waits for others already (a group's `then`) has those wait for the one before.

    Raises:
        InvalidInput: There is no job, or one stands there twice.
    """
    if not jobs:
        raise InvalidInput("a chain needs a job")
    for before, after in pairwise(jobs):
        for first in [job for job in ordered(_flow_job(after)) if not job.children]:
            if first is before:
                raise InvalidInput(f"job {before.name!r} can't come after itself")
            first.children.append(_flow_job(before))
    return _flow_job(jobs[-1])


def group(jobs: Iterable[FlowJob], *, then: FlowJob, on: On = "all_succeeded") -> FlowJob:
    """Have `then` wait for all of `jobs`, and return it: it is the flow to add.

    It runs when all have completed, and fails if one does not (`all_succeeded`); when all have ended, however
    (`all_ended`); or as soon as one has not completed, and not at all if all do (`first_failed`; it is then completed
    without a run, its result None). This sets each job's `on_failure`.

    Raises:
        InvalidInput: There is no job, or `on` is none of the three.
    """
    found = [_flow_job(job) for job in jobs]
    if not found:
        raise InvalidInput("a group needs a job")
    if on not in _POLICIES:
        raise InvalidInput(f"on must be one of {', '.join(_POLICIES)}, not {on!r}")
    for job in found:
        job.on_failure = _POLICIES[on]
    _flow_job(then).children.extend(found)
    then.only_failed = on == "first_failed"
    return then


def ordered(*roots: FlowJob) -> list[FlowJob]:
    """Return all jobs of a flow, each once, and before its children.

    Raises:
        InvalidInput: A job waits for itself, by whatever way; it names a child twice; the flow is too large or deep.
    """
    ended: dict[FlowJob, int] = {}
    """Each job whose children have been seen, and how many levels are below it."""
    under_way: set[FlowJob] = set()
    stack = [(job, False) for job in reversed(roots)]
    while stack:
        job, is_left = stack.pop()
        if is_left:
            under_way.discard(job)
            ended[job] = 1 + max((ended[child] for child in job.children), default=0)
            if ended[job] > DEEPEST:
                raise InvalidInput(f"the flow is more than {DEEPEST:,} levels deep")
            continue
        if job in under_way:
            raise InvalidInput(f"job {job.name!r} would wait for itself")
        if job in ended:
            continue
        if len(ended) + len(under_way) >= MOST_JOBS:
            raise InvalidInput(f"the flow has more than {MOST_JOBS:,} jobs")
        if len(set(job.children)) < len(job.children):
            raise InvalidInput(f"job {job.name!r} has the same child twice")
        under_way.add(job)
        stack.append((job, True))
        for child in job.children:
            if child in under_way:
                raise InvalidInput(f"job {child.name!r} would wait for itself")
            if child not in ended:
                stack.append((child, False))
    return list(reversed(ended))


def _flow_job(value: Any) -> FlowJob:
    if not isinstance(value, FlowJob):
        raise InvalidInput(f"a flow is made of FlowJob(...), not of {value!r:.100}")
    return value


def _options(options: JobOptions | None, fields: dict[str, Any]) -> JobOptions | None:
    known = JobOptions.__struct_fields__
    for field in fields:
        if field not in known:
            raise InvalidInput(f"unknown option {field!r}; the options are {', '.join(known)}")
    if not fields:
        return options
    return JobOptions(**fields) if options is None else msgspec.structs.replace(options, **fields)
