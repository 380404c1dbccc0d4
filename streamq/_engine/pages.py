"""The replies of the operators' scripts, read: pages of jobs, of dead letters, of a log; steps of work on many jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamq._engine.transitions import StoredJob


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
        return cls(cursor.decode(), skipped, [(job[0].decode(), StoredJob.read(job[1:])) for job in jobs])


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
