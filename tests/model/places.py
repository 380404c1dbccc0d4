"""The places of an add that a value may be given in: how it gets there, and how it is to come back.

A place gives a value to a queue, and says what of it a handler, a snapshot and the stored job must show in the end.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from streamq import ActiveJob, Backoff, FlowJob, Job, JobOptions, JobSnapshot, Queue, Retention
from streamq._engine import codec
from streamq._engine.transitions import StoredJob
from streamq.policy import Priority
from streamq.unique import Unique

MS = timedelta(milliseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = ("delay", "run_at")
"""The places that say when a job may start."""


class Seen(NamedTuple):
    """A job at its end, from all sides. `job` is what its handler saw; None if none was called."""

    job: ActiveJob[Any] | None
    snapshot: JobSnapshot
    stored: StoredJob

    @property
    def options(self) -> codec.EnvelopeOptions:
        """The options that travelled with it."""
        return codec.decode_envelope(self.stored.envelope).options or codec.EnvelopeOptions()


Fields = Mapping[str, Any]
Give = Callable[[Queue, int, Any, Fields], Awaitable[Job]]
"""Adds a job with a value in its place; the other fields say when it may start."""


class Place(NamedTuple):
    """One place. `as_given` tells whether a value has come through it."""

    give: Give
    as_given: Callable[[Any, Seen], bool]
    keeps_data: bool = True
    """Whether the job's data are the number of its value."""
    may_expire: bool = False
    is_id: bool = False
    """Whether jobs with equal values are one."""


def option(name: str, wrap: Callable[[Any], Any] = lambda value: value) -> Give:
    """Give a value, or what is made of it, as an option."""

    async def give(queue: Queue, at: int, value: Any, when: Fields) -> Job:
        return await queue.add("work", {"n": at}, **{**when, name: wrap(value)})

    return give


async def _name(queue: Queue, at: int, value: Any, when: Fields) -> Job:
    return await queue.add(value, {"n": at}, **when)


async def _data(queue: Queue, at: int, value: Any, when: Fields) -> Job:
    return await queue.add("work", value, **when)


async def _of_many(queue: Queue, at: int, value: Any, when: Fields) -> Job:
    return (await queue.add_many([("work", value, JobOptions(**when))]))[0]


async def _child_name(queue: Queue, at: int, value: Any, when: Fields) -> Job:
    return await _child_of(queue, FlowJob(value, {"n": at}, **when))


async def _child_data(queue: Queue, at: int, value: Any, when: Fields) -> Job:
    return await _child_of(queue, FlowJob("work", value, **when))


async def _child_of(queue: Queue, child: FlowJob) -> Job:
    parent = await queue.add_flow(FlowJob("parent", children=[child]))
    (end,) = await queue.children(parent.id)
    return Job(queue, end.id, child.name, is_new=True)


async def _schedule_id(queue: Queue, at: int, value: Any, when: Fields) -> Job:
    await queue.upsert_schedule(value, every=86_400, name="work", data={"n": at})
    found = await queue.get_schedule(value)
    assert found is not None
    assert found.id == value
    return await queue.trigger_schedule(value)


async def _schedule_data(queue: Queue, at: int, value: Any, when: Fields) -> Job:
    await queue.upsert_schedule(f"s{at}", every=86_400, name="work", data=value)
    return await queue.trigger_schedule(f"s{at}")


def same(given: Any, found: Any) -> bool:
    """Whether plain data came back as it was: -0.0 and True are not 0 and 1.

    Buffers come back as bytes, and moments in UTC.
    """
    if isinstance(given, bytearray | memoryview):
        return bytes(given) == found
    if isinstance(given, datetime) and given.tzinfo:
        given = given.astimezone(UTC)
    return bool(found == given) and repr(found) == repr(given)


def _seconds(value: Any) -> Any:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _same_data(value: Any, seen: Seen) -> bool:
    return seen.job is not None and same(value, seen.job.data) and same(value, seen.snapshot.data)


def _same_headers(given: dict[str, str], seen: Seen) -> bool:
    return seen.job is not None and dict(seen.job.headers) == dict(seen.snapshot.headers) == given


def _same_tags(given: Any, seen: Seen) -> bool:
    return seen.job is not None and list(seen.job.tags) == list(seen.snapshot.tags) == list(given)


PLACES: dict[str, Place] = {
    "name": Place(_name, lambda v, s: s.job is not None and s.job.name == s.snapshot.name == v),
    "data": Place(_data, _same_data, keeps_data=False),
    "data in add_many": Place(_of_many, _same_data, keeps_data=False),
    "sealed data": Place(_data, _same_data, keeps_data=False),
    "job_id": Place(
        option("job_id"), lambda v, s: v is None or (s.job is not None and s.job.id == s.snapshot.id == v), is_id=True
    ),
    "priority": Place(option("priority"), lambda v, s: s.snapshot.priority == Priority(v)),
    "delay": Place(option("delay"), lambda v, s: True),  # when these are due is looked at before they run
    "run_at": Place(option("run_at"), lambda v, s: True),
    "headers": Place(option("headers"), lambda v, s: _same_headers(dict(v or {}), s)),
    "a header's text": Place(option("headers", lambda v: {"h": v}), lambda v, s: _same_headers({"h": v}, s)),
    "a header's name": Place(option("headers", lambda v: {v: "x"}), lambda v, s: _same_headers({v: "x"}, s)),
    "tags": Place(option("tags"), _same_tags),
    "a tag": Place(option("tags", lambda v: (v,)), lambda v, s: _same_tags((v,), s)),
    "attempts": Place(option("attempts"), lambda v, s: s.options.a == v),
    "timeout": Place(option("timeout"), lambda v, s: s.options.t == _seconds(v)),
    "expires_in": Place(option("expires_in"), lambda v, s: s.options.x == _seconds(v), may_expire=True),
    "backoff": Place(option("backoff", Backoff.fixed), lambda v, s: s.options.b == Backoff.fixed(v)),
    "keep_failed": Place(option("keep_failed", Retention), lambda v, s: s.options.f == Retention(v)),
    "unique": Place(option("unique", Unique), lambda v, s: s.snapshot.unique_key == v, is_id=True),
    "a unique key's time": Place(
        lambda queue, at, v, when: option("unique", lambda ttl: Unique(f"u{at}", ttl=ttl))(queue, at, v, when),
        lambda v, s: s.stored.number("ut") == Unique("u", ttl=v).ttl_ms,
    ),
    "key": Place(option("key"), lambda v, s: s.job is not None and s.job.key == s.snapshot.key == v),
    "webhook": Place(option("webhook"), lambda v, s: s.stored.record.get("wh", b"").decode() == (v or "")),
    "a child's name": Place(_child_name, lambda v, s: s.job is not None and s.job.name == s.snapshot.name == v),
    "a child's data": Place(_child_data, _same_data, keeps_data=False),
    "a schedule's id": Place(_schedule_id, lambda v, s: set(s.snapshot.data) == {"n"}, keeps_data=False),
    "a schedule's data": Place(_schedule_data, _same_data, keeps_data=False),
}


def due_at(place: str, value: Any, created: datetime) -> datetime | None:
    """When a job is due that was given this delay or moment, rounded up to a millisecond; None if it was given none."""
    if place == "run_at":
        return value and EPOCH - (EPOCH - value) // MS * MS
    delay = math.ceil(value / MS if isinstance(value, timedelta) else value * 1000)
    return created + delay * MS if delay else None
