"""Flows as their owners use them: added whole, looked at as a tree, retried or cancelled from one job down.

`Queue` inherits these; `streamq.flow` is how a flow is described, and `docs/flows.md` tells what is promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import islice
from typing import Any

from streamq._engine import codec
from streamq._engine.adder import Adder
from streamq._engine.flowing import StoredChild, StoredNode, lay_out, new_token, reserve
from streamq._engine.snapshots import readable
from streamq._engine.store import Store
from streamq._engine.transitions import NewJob
from streamq.errors import InvalidInput, JobNotFound
from streamq.flow import ChildEnd, FlowJob, FlowNode, ordered
from streamq.job import Job, JobOptions, JobState
from streamq.middleware import around_add
from streamq.observer import NOBODY, Sending, begin, told
from streamq.operations import QueueParts, check_reason, known_id
from streamq.payload import PLAIN, Codec, aside
from streamq.policy import whole

PAGE = 500
AT_ONCE = 100
"""Jobs of a flow that are moved in one go."""
MOST_NODES = 10_000

_Name = tuple[str, str]
"""A job's queue and its id."""


class Flows(QueueParts):
    """The part of a queue that deals with flows."""

    def _encode(
        self, name: str, data: Any, options: JobOptions | None, fields: Any, carried: Mapping[str, str] | None = None
    ) -> NewJob:
        raise NotImplementedError

    def _adder_for(self, durable: bool) -> Adder:
        raise NotImplementedError

    async def add_flow(self, flow: FlowJob, *, durable: bool = False) -> Job:
        """Add a flow, all its jobs or none, and return the handle of its top job, which waits for the others.

        All are checked and encoded before anything is sent. While a job of the same `job_id` is known, nothing is added
        for that one nor for those below it: the one that is there stands for all of them. `durable` as in `add`. Other
        queues' jobs take this queue's defaults.

        Raises:
            InvalidInput, PayloadTooLarge: A job does not fit, or would wait for itself; nothing was sent.
            QueueFull, StoreRefused: Nothing was added.
            DuplicateJob: Another job holds the top job's unique key, and `on_conflict` is "raise"; nothing was added.
            StoreUnavailable: Redis did not answer in time; whether the flow was added is unknown.
        """
        jobs = ordered(flow) if isinstance(flow, FlowJob) else _refuse(flow)
        if flow.queue not in (None, self.name):
            raise InvalidInput(f"the flow's top job is for queue {flow.queue}: add it there")
        observer = self._store.observer
        sending = None if observer is NOBODY else begin(observer, observer.sending, self.name, "", len(jobs))
        if sending is None and not self._middleware:
            return await self._add_flow(jobs, durable, None)
        sending = sending or Sending()
        with told(observer, sending) as ids:
            async with around_add(self._middleware, self.name, "", len(jobs)) as adding:
                job = await self._add_flow(jobs, durable, {**sending.headers, **adding.headers})
            ids.append(job.id)
        return job

    async def _add_flow(self, jobs: Sequence[FlowJob], durable: bool, carried: Mapping[str, str] | None) -> Job:
        self._store.check_reach((job.queue for job in jobs if job.queue is not None), "a flow")

        def encode() -> dict[FlowJob, NewJob]:
            return {job: self._encode(job.name, job.data, job.options, {}, carried) for job in jobs}

        encoded = await aside(self._store.codec, encode)
        ids = await reserve(self._store.command, self._store.base, jobs, encoded)
        new = lay_out(self.name, jobs, encoded, ids, new_token(), self.settings)
        top = (await self._adder_for(durable).add(new))[0].if_taken()
        return Job(self, top.job_id, jobs[0].name, is_new=top.is_new)  # type: ignore[arg-type]  # a Queue is a JobSource

    # Looking ----------------------------------------------------------------------------------------------------------

    async def flow(self, job_id: str, *, depth: int = 10, width: int = 100, most: int = 1_000) -> FlowNode:
        """Read the tree of jobs below a job, in one call: `depth` levels, `width` children of each, `most` jobs in all.

        What is left out can be told from the nodes' `children`, which count all. `children(…)` pages through one job's.

        Raises:
            JobNotFound: It is unknown.
        """
        whole("depth", depth, low=0, high=1_000)
        whole("width", width, low=1, high=MOST_NODES)
        whole("most", most, low=1, high=MOST_NODES)
        found = await self._store.flow(known_id(job_id), depth, width, most)
        if found[0].state == "unknown":
            raise JobNotFound(job_id)
        return _tree(found)

    async def children(self, job_id: str, start: int = 1, count: int = 100) -> list[ChildEnd]:
        """Read how up to `count` of a job's children stand, in the order in which they were added.

        `start` is the place of the first one, from 1. Those that did not complete and whose `on_failure` is "remove"
        are left out.

        Raises:
            JobNotFound: It is unknown.
        """
        whole("start", start, low=1, high=10**9)
        whole("count", count, low=1, high=MOST_NODES)
        found: list[ChildEnd] = []
        place = start
        while place and place < start + count:
            page = await self._store.children(known_id(job_id), place, min(start + count - place, PAGE))
            if page is None:
                raise JobNotFound(job_id)
            found += await aside(self._store.codec, child_ends, self.name, page.children, self._store.codec)
            place = page.following
        return found

    async def retry_flow(self, job_id: str) -> list[str]:
        """Retry all failed and cancelled jobs of a flow, this one and those below it; return their ids.

        A job that failed because of its children waits for them again. Jobs that run, wait or have completed stay.

        Raises:
            JobNotFound: It is unknown.
        """
        stores, below = await self._below(job_id)
        return await self._each(
            TopologicalSorter(below).static_order(),  # children first: a parent that they failed waits by then
            lambda queue, found: stores[queue].retry(found),
            ("retried",),
        )

    async def cancel_flow(self, job_id: str, reason: str = "") -> list[str]:
        """Cancel all jobs of a flow that have not ended, this one and those below it; return their ids.

        Those that wait for others go first, so none of them starts on the way. Running ones are asked to end, as by
        `cancel`. Jobs above this one learn of its end as of any other.

        Raises:
            InvalidInput: The reason is no text of up to 500 characters; nothing was sent.
            JobNotFound: It is unknown.
        """
        why = check_reason(reason)
        stores, below = await self._below(job_id)
        return await self._each(
            reversed(list(TopologicalSorter(below).static_order())),
            lambda queue, found: stores[queue].cancel(found, why),
            ("cancelled", "asked"),
        )

    async def _each(
        self, jobs: Iterable[_Name], move: Callable[[str, str], Awaitable[str]], moved: tuple[str, ...]
    ) -> list[str]:
        """Move many jobs, in this order; return the ids of those that were moved."""
        done: list[str] = []
        left = iter(jobs)
        while part := list(islice(left, AT_ONCE)):
            words = await asyncio.gather(*(move(*job) for job in part))
            done += [job_id for (_, job_id), word in zip(part, words, strict=True) if word in moved]
        return done

    async def _below(self, job_id: str) -> tuple[dict[str, Store], dict[_Name, list[_Name]]]:
        """Find a job and all below it, each with its children; and the stores of their queues."""
        if await self._store.get(known_id(job_id)) is None:
            raise JobNotFound(job_id)
        stores = {self.name: self._store}
        below: dict[_Name, list[_Name]] = {(self.name, job_id): []}
        todo = list(below)
        for queue, parent in todo:  # it grows on the way
            place = 1
            while place:
                page = await stores[queue].children(parent, place, PAGE)
                place = page.following if page is not None else 0
                for child in page.children if page is not None else ():
                    name = child.queue or queue, child.job_id
                    below[queue, parent].append(name)
                    if name not in below:
                        below[name] = []
                        if name[0] not in stores:
                            stores[name[0]] = self._store.beside(name[0])
                        if child.children:
                            todo.append(name)
        return stores, below


def child_ends(queue: str, stored: Iterable[StoredChild], opener: Codec = PLAIN) -> list[ChildEnd]:
    """Return children of a job in `queue` as users see them."""
    return [_child_end(queue, child, opener) for child in stored]


def _child_end(queue: str, stored: StoredChild, opener: Codec) -> ChildEnd:
    state = JobState(stored.state) if stored.state not in (None, "removed") else stored.state
    return ChildEnd(
        place=stored.place,
        queue=stored.queue or queue,
        id=stored.job_id,
        state=state,  # type: ignore[arg-type]  # "removed" is the only other text
        result=readable(stored.body, opener) if stored.state == "completed" else None,
        error=codec.decode_error(stored.body) if stored.state == "failed" and stored.body else None,
    )


def _tree(found: Sequence[StoredNode]) -> FlowNode:
    """Put the nodes together; each comes before those below it."""
    above: list[FlowNode] = []
    for node in found:
        made = FlowNode(
            queue=node.queue, id=node.job_id, name=node.name, state=node.state, place=node.place,
            children=node.children, open=node.open, nodes=[],
        )  # fmt: skip
        del above[node.depth :]
        if above:
            above[-1].nodes.append(made)
        above.append(made)
    return above[0]


def _refuse(value: Any) -> list[FlowJob]:
    raise InvalidInput(f"a flow is a FlowJob(...), not {value!r:.100}")
