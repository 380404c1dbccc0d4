"""The replies of the operators' scripts, read: pages of jobs, of dead letters, of a log, of workers; steps of work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamq._engine.transitions import StoredJob


def _text(value: bytes) -> str:
    """Read a job's id or name; an entry that streamq did not write may hold anything, and must not hide the rest."""
    return value.decode(errors="replace")


class Step(NamedTuple):
    """Where a piece of work on many jobs stands after one call.

    `bound` (a time, or a letter) keeps what comes later out of it. `counted` is what the script counts beside `ids`.
    """

    bound: str = ""
    cursor: str = ""
    done: bool = False
    ids: Sequence[str] = ()
    counted: int = 0


class JobsPage(NamedTuple):
    """The reply of `jobs`: where the next page starts ("": nowhere), jobs skipped, ids and jobs."""

    cursor: str
    skipped: int
    jobs: list[tuple[str, StoredJob]]

    @classmethod
    def read(cls, reply: list[Any]) -> JobsPage:
        """Read the reply of `jobs`."""
        cursor, skipped, *jobs = reply
        return cls(
            cursor.decode(), skipped, [(job[0].decode(errors="replace"), StoredJob.read(job[1:])) for job in jobs]
        )


class StoredLetter(NamedTuple):
    """A dead letter as Redis holds it. `is_kept`: whether its job's record is still there."""

    letter: str
    job_id: str
    lane: int
    envelope: bytes
    error: bytes
    is_kept: bool


class LettersPage(NamedTuple):
    """The reply of `dead_letters`."""

    cursor: str
    letters: list[StoredLetter]

    @classmethod
    def read(cls, reply: list[Any]) -> LettersPage:
        """Read the reply of `dead_letters`."""
        cursor, *letters = reply
        return cls(
            cursor.decode(),
            [StoredLetter(at.decode(), j.decode(), int(p), d, x, bool(kept)) for at, j, p, d, x, kept in letters],
        )


class LogPage(NamedTuple):
    """The reply of `logs`: the number of the first line in `lines`, how many were logged so far, the lines."""

    first: int
    total: int
    lines: list[str]


class HeldJob(NamedTuple):
    """A job that a worker holds. `name` is "" if it can't be told."""

    job_id: str
    lane: int
    idle_ms: int
    name: str


class StoredWorker(NamedTuple):
    """A worker in the reply of `workers`: ms until its lease ends (0: lapsed), jobs held by lane, some of them."""

    worker: str
    lease_ms: int
    held: dict[int, int]
    jobs: list[HeldJob]


class WorkersPage(NamedTuple):
    """The reply of `workers`: how many there are in all, and those that were asked for."""

    total: int
    workers: list[StoredWorker]

    @classmethod
    def read(cls, reply: list[Any]) -> WorkersPage:
        """Read the reply of `workers`."""
        now_ms, total, *workers = reply
        found = []
        for name, until_ms, *held, jobs in workers:
            told = [HeldJob(_text(job_id), lane, idle, _text(name)) for job_id, lane, idle, name in jobs]
            found.append(StoredWorker(name.decode(), max(until_ms - now_ms, 0), dict(enumerate(held, 1)), told))
        return cls(total, found)
