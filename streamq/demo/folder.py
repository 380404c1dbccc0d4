"""The demo's own folder: made anew at each run, and never at the cost of anybody else's files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import msgspec

from streamq.demo.errors import DemoFailed

_MARK = ".streamq-demo"
SOUND, BAD = 10_000, 12
"""Rows of the file of new members."""

_BAD_ROWS = (
    ("N-{0:06}", "", "someone@example.org", "2024-11-05"),
    ("N-{0:06}", "Mallory Nix", "no-address", "2024-11-05"),
    ("N-{0:06}", "Eve Late", "eve@example.org", "5/11/2024"),
    ("M-000001", "Ada Twice", "ada@example.org", "2024-11-05"),
)


class DemoFolder:
    """Where everything of one run lies."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.files = self.root / "files"
        self.server = self.root / "server"
        self.worker_log = self.root / "worker.log"
        self._ledger, self._run = self.root / "ledger.db", self.root / "run.json"

    @property
    def ledger_url(self) -> str:
        """The sample bank's database."""
        return f"sqlite:///{self._ledger}"

    def prepare(self) -> None:
        """Make the folder, or clear what an earlier run left in it.

        Raises:
            DemoFailed: It holds something that is not the demo's, or can't be written.
        """
        try:
            if self.root.exists() and not (self.root / _MARK).exists() and any(self.root.iterdir()):
                raise DemoFailed(f"{self.root} holds other files; name an empty folder with --folder")
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / _MARK).touch()
            shutil.rmtree(self.files, ignore_errors=True)
            for old in self.root.glob(f"{self._ledger.name}*"):
                old.unlink()
            self.worker_log.unlink(missing_ok=True)
            (self.files / "incoming").mkdir(parents=True)
        except OSError as error:
            raise DemoFailed(f"{self.root} can't be used: {error.strerror or error}") from error

    def write_members(self) -> str:
        """Write the CSV of new members, a few of its rows wrong, and return its name in the storage."""
        name = "incoming/new-members.csv"
        every = SOUND // BAD
        with open(self.files / name, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "name", "email", "joined_on"])
            for number in range(1, SOUND + 1):
                rows.writerow([f"N-{number:06}", f"New Member {number}", f"new.{number}@example.org", "2024-11-05"])
                if number % every == 0 and number // every <= BAD:
                    bad = _BAD_ROWS[(number // every - 1) % len(_BAD_ROWS)]
                    rows.writerow([cell.format(900_000 + number) for cell in bad])
        return name

    def earlier_jobs(self) -> dict[str, list[str]]:
        """Return the jobs of the run before, by queue."""
        try:
            return msgspec.json.decode(self._run.read_bytes(), type=dict[str, list[str]])
        except (OSError, msgspec.DecodeError):
            return {}

    def remember_jobs(self, jobs: dict[str, list[str]]) -> None:
        """Keep the jobs of this run, for the next one to remove."""
        self._run.write_text(json.dumps(jobs))
