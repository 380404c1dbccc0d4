"""What really happened, written outside Redis: a file that every process of a test appends a line to.

Each line is one `write` to a file opened with O_APPEND, so lines of several processes never mix and a line is whole
even if its writer is killed right after. Times are the machine's monotonic clock, which its processes share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

ENVIRONMENT = "FAULTS_LEDGER"
"""Names the file for the processors of a worker process."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. `kind` is accepted | start | end | killed | note."""

    kind: str
    at: float
    pid: int
    job: str = ""
    attempt: int = 0
    outcome: str = ""
    more: dict[str, Any] = {}


class Ledger:
    """Appends lines, and reads those of everybody."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._read_upto = 0
        self._lines: list[Line] = []

    @classmethod
    def from_environment(cls) -> Ledger:
        """Return the ledger that the test named to this process."""
        return cls(os.environ[ENVIRONMENT])

    def close(self) -> None:
        """Close the file; reading still works."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def accept(self, job_ids: Iterable[str], **more: Any) -> None:
        """Note that `add` returned for these jobs."""
        for job_id in job_ids:
            self._append("accepted", job=job_id, more=more)

    def start(self, job_id: str, attempt: int, **more: Any) -> None:
        """Note that a handler was entered."""
        self._append("start", job=job_id, attempt=attempt, more=more)

    def end(self, job_id: str, attempt: int, outcome: str, **more: Any) -> None:
        """Note how a handler was left: "returned", or the exception's type name."""
        self._append("end", job=job_id, attempt=attempt, outcome=outcome, more=more)

    def killed(self, pid: int) -> None:
        """Note that the process is dead from now on: its open runs ended here."""
        self._append("killed", pid=pid)

    def note(self, what: str, **more: Any) -> None:
        """Note anything else that happened."""
        self._append("note", outcome=what, more=more)

    def _append(
        self,
        kind: str,
        *,
        job: str = "",
        attempt: int = 0,
        outcome: str = "",
        pid: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        at, pid = time.monotonic(), os.getpid() if pid is None else pid
        line = Line(kind, at, pid, job, attempt, outcome, dict(more or {}))
        os.write(self._file, msgspec.json.encode(line) + b"\n")

    def lines(self, kind: str | None = None, *, job: str | None = None) -> list[Line]:
        """Return all lines so far, in the order of writing; only those of a kind or a job if named."""
        with self.path.open("rb") as file:
            file.seek(self._read_upto)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read_upto += len(whole)
        self._lines += [_decoder.decode(raw) for raw in whole.splitlines()]
        return [x for x in self._lines if (kind is None or x.kind == kind) and (job is None or x.job == job)]

    def count(self, kind: str) -> int:
        """Return how many lines of a kind there are."""
        return len(self.lines(kind))


_decoder = msgspec.json.Decoder(Line)
