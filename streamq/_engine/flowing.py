"""Flows on their way to Redis and back: how a flow's jobs are laid out for `add`, and what the scripts tell of one.

Each job of a flow is added as any other, with a bond `f` (see `lua/lib/family.lua`): its parents by their ids, which is
why jobs with children get theirs beforehand, and how many children it waits for. Parents come before their children.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from streamq._engine import codec, keys
from streamq._engine.transitions import Arg, NewJob, bound_start
from streamq.errors import InvalidInput
from streamq.flow import FlowJob
from streamq.policy import Retention
from streamq.settings import Settings

ENDINGS = {b"": None, b"c": "completed", b"f": "failed", b"x": "cancelled", b"r": "removed"}


class StoredChild(NamedTuple):
    """A child as its parent's list has it. `state` is None while it has not ended; `queue` "" is the parent's own."""

    place: int
    queue: str
    job_id: str
    state: str | None
    body: bytes
    children: int


class ChildrenPage(NamedTuple):
    """The reply of `children`: how many there are, the place of the next page's first (0: none), those of this page."""

    total: int
    following: int
    children: list[StoredChild]


class StoredNode(NamedTuple):
    """One job in the reply of `flow`."""

    depth: int
    place: int
    queue: str
    job_id: str
    state: str
    name: str
    children: int
    open: int


class FlowTransitions:
    """What reads flows. `Store` gives it the one point that all calls pass."""

    async def _repeat(self, name: str, args: Sequence[Arg], *, within: float | None = None) -> Any:
        raise NotImplementedError

    async def children(self, job_id: str, place: int, count: int) -> ChildrenPage | None:
        """Read up to `count` of a job's children from `place` on; None if the job is unknown."""
        reply = await self._repeat("children", [job_id, place, count])
        if not reply:
            return None
        total, following, *found = reply
        children = [
            StoredChild(at, queue.decode(), child.decode(), ENDINGS[how], body, had)
            for at, queue, child, how, body, had in found
        ]
        return ChildrenPage(total, following, children)

    async def flow(self, job_id: str, depth: int, width: int, most: int) -> list[StoredNode]:
        """Read the tree below a job, each job before its children."""
        reply = await self._repeat("flow", [job_id, depth, width, most])
        return [
            StoredNode(level, place, q.decode(), j.decode(), state.decode(), name.decode(errors="replace"), had, left)
            for level, place, q, j, state, name, had, left in reply
        ]


def new_token() -> str:
    """Return what tells one add's jobs from another's."""
    return secrets.token_hex(6)


def unnamed(jobs: Sequence[FlowJob], encoded: Mapping[FlowJob, NewJob]) -> dict[str | None, list[FlowJob]]:
    """Return the jobs that need an id beforehand, by queue: those with children and no id of their own."""
    found: dict[str | None, list[FlowJob]] = {}
    for job in jobs:
        if job.children and not encoded[job].job_id:
            found.setdefault(job.queue, []).append(job)
    return found


async def reserve(
    command: Callable[..., Any], base: str, jobs: Sequence[FlowJob], encoded: Mapping[FlowJob, NewJob]
) -> dict[FlowJob, str]:
    """Take ids for the jobs that need one beforehand; one round trip for each queue that has such jobs.

    Raises:
        StoreRefused: The jobs' queues are not in one slot of a cluster.
    """
    others = {keys.counter(keys.base(job.queue)) for job in jobs if job.queue is not None}
    if others:
        await command("EXISTS", keys.counter(base), *others)
    ids = {job: encoded[job].job_id for job in jobs}
    for queue, wanting in unnamed(jobs, encoded).items():
        last = await command("INCRBY", keys.counter(base if queue is None else keys.base(queue)), len(wanting))
        for number, job in enumerate(wanting, last - len(wanting) + 1):
            ids[job] = str(number)
    return ids


class Above(NamedTuple):
    """The parent of a flow's first jobs, if it runs already: its id, and how many children it has had."""

    job_id: str
    children: int


def lay_out(
    queue: str,
    jobs: Sequence[FlowJob],
    encoded: Mapping[FlowJob, NewJob],
    ids: Mapping[FlowJob, str],
    token: str,
    settings: Settings,
    above: Above | None = None,
    roots: Sequence[FlowJob] = (),
) -> list[NewJob]:
    """Return a flow's jobs as `add` takes them; with `above`, `roots` are its next children."""
    parents: dict[FlowJob, list[tuple[str, str, int, str]]] = {job: [] for job in jobs}
    if above is not None:
        for place, job in enumerate(roots, above.children + 1):
            parents[job].append((_relative(None, job, queue), above.job_id, place, job.on_failure[0]))
    for job in jobs:
        for place, child in enumerate(job.children, 1):
            parents[child].append((_relative(job.queue, child, queue), ids[job], place, child.on_failure[0]))
    found = []
    for job in jobs:
        new = encoded[job]
        when, bonds = _apart(new.start)
        family: dict[str, Any] = {"t": token}
        if parents[job]:
            family["p"] = parents[job]
        if job.children:
            if bonds.get("u", {}).get("c") == "l":
                raise InvalidInput(f"job {job.name!r} has children: its unique key can't be on_conflict='keep_latest'")
            family["n"] = len(job.children)
            family["k"] = keeping(codec.decode_envelope(new.envelope).options, settings, only_failed=job.only_failed)
        if job.queue is not None and job.queue != queue:
            family["q"] = job.queue
        found.append(new._replace(start=bound_start(when, {**bonds, "f": family}), job_id=ids[job]))
    return found


def keeping(options: codec.EnvelopeOptions | None, settings: Settings, *, only_failed: bool = False) -> str:
    """Return how a parent is kept that ends without a run, as `lua/lib/family.lua` takes it."""
    failed: Retention = options.f if options is not None and options.f is not None else settings.keep_failed
    completed: Retention = options.c if options is not None and options.c is not None else settings.keep_completed
    kept = f"{failed.count}:{failed.age_ms}:{completed.count}:{completed.age_ms}:{settings.dead_cap}"
    return kept + "!" if only_failed else kept


def _relative(parent_queue: str | None, child: FlowJob, queue: str) -> str:
    """Return a parent's queue as its child's record names it: "" for the child's own."""
    parent = parent_queue or queue
    return "" if parent == (child.queue or queue) else parent


def _apart(start: str | bytes) -> tuple[str, dict[str, Any]]:
    """Take a start and its bonds apart."""
    if isinstance(start, str):
        return start, {}
    when, _, bonds = start.partition(b"|")
    return when.decode(), msgspec.msgpack.decode(bonds) if bonds else {}
