"""The typed contract of each script: how its arguments are laid out and what its reply means.

Nothing here talks to Redis; `store` sends what this module lays out. One class or function per script that needs one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from streamq.errors import DuplicateJob

Arg = str | bytes | int | float


class NewJob(NamedTuple):
    """One job for `add`: its lane, its start (`0`, `+ms`, `@ms`, and its bonds), its own id or "", its envelope."""

    lane: int
    start: str | bytes
    job_id: str
    envelope: bytes


def bound_start(when: str, bonds: dict[str, Any]) -> bytes:
    """Return when a bound job may start, with its bonds, as `lua/lib/enqueue.lua` takes it."""
    return when.encode() + b"|" + msgspec.msgpack.encode(bonds)


class Added(NamedTuple):
    """What became of one job of an `add`: its id, and whether it is new.

    If not, and for its unique `key`, the id is that of the job which is there, and `instead` is `known`, `replaced` or
    `refused`.
    """

    job_id: str
    is_new: bool
    instead: str = ""
    key: str = ""

    def if_taken(self) -> Added:
        """Return this; raise DuplicateJob if the job was refused."""
        if self.instead == "refused":
            raise DuplicateJob(self.job_id, self.key)
        return self


def added(jobs: Sequence[NewJob], reply: Sequence[Any]) -> list[Added]:
    """Read the reply of `add` and `commit` (less its own first element): one `Added` for each of `jobs`."""
    first = reply[0]
    found = [Added(job.job_id or str(first + i), True) for i, job in enumerate(jobs)]
    for known in reply[1:]:
        if isinstance(known, int):
            found[known - 1] = found[known - 1]._replace(is_new=False)
        else:
            at, job_id, how, key = known
            found[at - 1] = Added(job_id.decode(), False, how.decode(), key.decode())
    return found


class Outcome(NamedTuple):
    """How one attempt ended, as `tick` takes it. `a` and `b` depend on the kind; see `lua/tick.lua`.

    `job_id` is "" if the job had no record when it was claimed.
    """

    kind: str
    lane: int
    entry: str
    job_id: str
    body: bytes = b""
    a: int = 0
    b: int | str = 0
    started_ms: int = 0
    attempts_made: int = 0

    @property
    def of(self) -> str:
        """The id of the job whose attempt this was."""
        return self.job_id or self.entry.partition("-")[0]


class Claim:
    """A job that this worker holds: the entry is its lease token."""

    __slots__ = (
        "attempts_made",
        "children",
        "cursor",
        "entry",
        "envelope",
        "interruptions",
        "job_id",
        "lane",
        "recorded_id",
        "releases",
        "since_ms",
        "stalls",
    )

    def __init__(self, lane: int, entry: str, job_id: str, envelope: bytes, since_ms: int) -> None:
        self.lane, self.entry, self.job_id, self.envelope = lane, entry, job_id, envelope
        self.since_ms = since_ms
        self.attempts_made = self.stalls = self.interruptions = self.releases = self.children = 0
        self.cursor = b""
        self.recorded_id = ""
        """The job's id if it has a record: an outcome that goes without tells that nothing binds the job to others."""

    def __repr__(self) -> str:
        return f"<Claim {self.job_id} entry {self.entry} in lane {self.lane}>"


class TickArgs(msgspec.Struct, frozen=True):
    """What does not change from one tick of a worker to the next."""

    worker: str
    lease_ms: int
    max_stalls: int
    events_cap: int
    dead_cap: int

    def lay_out(self, want: int, *, list_held: bool, marks: Sequence[str], outcomes: Iterable[Outcome]) -> list[Arg]:
        """Return the arguments of `tick`."""
        args: list[Arg] = [
            self.worker, self.lease_ms, want, self.max_stalls, int(list_held), self.events_cap, self.dead_cap,
            len(marks), *marks,
        ]  # fmt: skip
        for outcome in outcomes:
            args.extend(outcome)
        return args


class Renewal(NamedTuple):
    """The reply of `renew`: whether the lease holds, and why which of the worker's entries are to be interrupted."""

    holds: bool
    cancels: dict[str, str]

    @classmethod
    def read(cls, reply: list[Any]) -> Renewal:
        """Read the reply of `renew`."""
        asked = {reply[at].decode(): reply[at + 1].decode("utf-8", "replace") for at in range(1, len(reply), 2)}
        return cls(bool(reply[0]), asked)


NOT_SETTLED = -1
"""Among the stale outcomes of a tick: the worker had no lease, so nothing was settled; it has to list what it holds."""


class TickReply(NamedTuple):
    """What a tick brought back. `next_ms`: milliseconds until something is due, -1 if nothing is."""

    now_ms: int
    next_ms: int
    stale: list[int]
    claimed: list[Claim]
    held: list[Claim]
    requeued: int
    promoted: int
    limited: bool
    bound: bool
    schedules: list[str]
    poisoned: int

    @classmethod
    def read(cls, reply: list[Any]) -> TickReply:
        """Read the reply of `tick`."""
        now_ms, next_ms, stale, claimed, records, held, requeued, promoted, limited, due, poisoned = reply
        known = {records[at]: records[at + 1 : at + 9] for at in range(0, len(records), 9)} if records else {}
        claims, holds = _claims(claimed, known), _claims(held, known)
        schedules = [schedule_id.decode() for schedule_id in due]
        flags = bool(limited & 1), bool(limited & 2)
        return cls(now_ms, next_ms, stale, claims, holds, requeued, promoted, *flags, schedules, poisoned)


def _claims(flat: list[Any], known: dict[bytes, list[Any]]) -> list[Claim]:
    """Read claims, four values each (lane, entry, envelope, since), with what the records add to some of them."""
    found = []
    values = iter(flat)
    for lane, entry, envelope, since in zip(values, values, values, values, strict=True):
        record = known.get(entry) if known else None
        text = entry.decode()
        if record is None:
            # A job without a record: its id is its entry's number.
            found.append(Claim(lane, text, text[:-2], envelope, _tolerant(since)))
            continue
        job_id, envelope, *counts, cursor = record
        claim = Claim(lane, text, job_id.decode(), envelope, _tolerant(since))
        claim.attempts_made, claim.stalls, claim.interruptions, claim.releases, claim.children = map(_tolerant, counts)
        claim.cursor, claim.recorded_id = cursor, claim.job_id
        found.append(claim)
    return found


MOST_DIGITS = 16


def _tolerant(value: bytes | int) -> int:
    """Read a time or a count; what was not written by streamq may hold anything, and must not stop a tick."""
    return int(value) if isinstance(value, int) or (value.isdigit() and len(value) <= MOST_DIGITS) else 0


class StoredJob(msgspec.Struct, frozen=True):
    """The reply of `get`: a job as Redis holds it. Times are milliseconds since 1970; `record` has its other fields."""

    state: str
    lane: int
    envelope: bytes
    created_ms: int | None
    started_ms: int | None
    record: dict[str, bytes]

    @classmethod
    def read(cls, reply: list[Any]) -> StoredJob:
        """Read the reply of `get` for a job that exists."""
        state, lane, envelope, created, started, *rest = reply
        record = {rest[at].decode(errors="replace"): rest[at + 1] for at in range(0, len(rest), 2)}
        return cls(state.decode(), int(lane), envelope, _int(created), _int(started), record)

    def number(self, field: str) -> int | None:
        """Return a whole number of the record, None if it has none."""
        return _int(self.record.get(field, b""))


def _int(value: bytes) -> int | None:
    return (
        int(value) if value.isdigit() and len(value) <= MOST_DIGITS else None
    )  # an entry that was not written by streamq may hold anything


class QueueCounts(msgspec.Struct, frozen=True):
    """The reply of `stats`. Per-lane figures are keyed 1 to 4; ages are milliseconds, None where nothing waits."""

    waiting: dict[int, int]
    active: int
    delayed: int
    completed: int
    failed: int
    dead: int
    paused: bool
    oldest_ms: dict[int, int | None]
    workers: int
    cancelled: int
    waiting_children: int

    @classmethod
    def read(cls, reply: list[int]) -> QueueCounts:
        """Read the reply of `stats`."""
        ages = {lane: None if age < 0 else age for lane, age in enumerate(reply[10:14], 1)}
        active, delayed, completed, failed, dead = reply[4:9]
        waiting = dict(enumerate(reply[0:4], 1))
        paused, workers = bool(reply[9]), reply[14]
        return cls(waiting, active, delayed, completed, failed, dead, paused, ages, workers, reply[16], reply[17])
