"""The demo's own folder: made anew at each run, and never at the cost of anybody else's files."""

from __future__ import annotations

import csv
import shutil
from decimal import Decimal
from pathlib import Path

import msgspec

from streamq.demo.errors import DemoFailed
from streamq.demo.facts import Facts
from streamq.demo.plan import Size

_MARK = ".streamq-demo"
MEMBERS, PAYMENTS = "incoming/new-members.csv", "incoming/card-payments.csv"

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
        self.mailbox = self.root / "mailbox"
        self._ledger, self._second = self.root / "ledger.db", self.root / "second-ledger.db"
        self._facts = self.root / "night.json"

    @property
    def ledger_url(self) -> str:
        """The sample bank's database."""
        return f"sqlite:///{self._ledger}"

    @property
    def second_url(self) -> str:
        """The database that the bank's data is synchronised to."""
        return f"sqlite:///{self._second}"

    def worker_log(self, number: int) -> Path:
        """Return where the worker of this number writes its log."""
        return self.root / f"worker-{number}.log"

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
            for old in (self.files, self.mailbox):
                shutil.rmtree(old, ignore_errors=True)
            for pattern in (f"{self._ledger.name}*", f"{self._second.name}*", "worker*.log", self._facts.name):
                for file in self.root.glob(pattern):
                    file.unlink()
            (self.files / "incoming").mkdir(parents=True)
            self.mailbox.mkdir()
        except OSError as error:
            raise DemoFailed(f"{self.root} can't be used: {error.strerror or error}") from error

    def write_members(self, size: Size) -> None:
        """Write the CSV of new members, a few of its rows wrong."""
        every = size.members // size.bad_members
        with open(self.files / MEMBERS, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "name", "email", "joined_on"])
            for number in range(1, size.members + 1):
                rows.writerow([f"N-{number:06}", f"New Member {number}", f"new.{number}@example.org", "2024-11-05"])
                if number % every == 0 and number // every <= size.bad_members:
                    bad = _BAD_ROWS[(number // every - 1) % len(_BAD_ROWS)]
                    rows.writerow([cell.format(900_000 + number) for cell in bad])

    def write_payments(self, size: Size) -> Decimal:
        """Write the CSV of card payments, booked on the morning after the nights; return what they come to."""
        total = Decimal(0)
        with open(self.files / PAYMENTS, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "account_id", "amount", "booked_on", "kind", "description"])
            for number in range(1, size.payments + 1):
                amount = Decimal(100 + number * 7_919 % 9_900).scaleb(-2)
                total -= amount
                account = f"A-{1 + number % 2_000:06}"
                rows.writerow([f"P-{number:07}", account, -amount, size.morning, "card", f"Card payment {number}"])
        return total

    def keep(self, facts: Facts) -> None:
        """Write down what the reconciliation goes by."""
        self._facts.write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=1))

    def facts(self) -> Facts:
        """Return what `keep` wrote.

        Raises:
            DemoFailed: There is none: no night has run to its end here.
        """
        try:
            return msgspec.json.decode(self._facts.read_bytes(), type=Facts)
        except (OSError, msgspec.DecodeError):
            raise DemoFailed(f"no night has run to its end in {self.root}: run the demo there first") from None
