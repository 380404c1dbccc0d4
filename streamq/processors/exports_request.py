"""What an export job is asked and what it answers; camelCase on the wire."""

from __future__ import annotations

import calendar
from datetime import date
from decimal import Decimal

import msgspec

from streamq.processors.generated import GeneratedFile
from streamq.processors.imports_request import Entity
from streamq.processors.ledger import to_minor
from streamq.processors.reports_request import Month, Word, Year
from streamq.processors.writers import FileFormat


class ExportFilters(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Which rows to export; those that are given must all be met.

    Attributes:
        status: Of members and accounts.
        kind: Of accounts and transactions.
        currency: Of accounts and transactions.
        user: The member.
        account: Of transactions.
        from_, to: Days, both counted: when a member joined, an account was opened, a transaction was booked.
        month, year: The same as one period.
        min_amount: Of transactions: the smallest amount, in or out.
    """

    status: Word | None = None
    kind: Word | None = None
    currency: Word | None = None
    user: Word | None = None
    account: Word | None = None
    from_: date | None = msgspec.field(default=None, name="from")
    to: date | None = None
    month: Month | None = None
    year: Year | None = None
    min_amount: Decimal | None = None

    def __post_init__(self) -> None:
        if self.month is not None and self.year is None:
            raise ValueError("filters.month needs filters.year")
        if self.year is not None and (self.from_ or self.to):
            raise ValueError("give filters.from and filters.to, or filters.month and filters.year, not both")
        if self.min_amount is not None and to_minor(self.min_amount) <= 0:
            raise ValueError("filters.minAmount must be positive")

    def days(self) -> tuple[date | None, date | None]:
        """Return the first and the last day that are meant."""
        if self.year is None:
            return self.from_, self.to
        if self.month is None:
            return date(self.year, 1, 1), date(self.year, 12, 31)
        last = calendar.monthrange(self.year, self.month)[1]
        return date(self.year, self.month, 1), date(self.year, self.month, last)

    def given(self) -> set[str]:
        """Return the names of the filters that are given."""
        return {name for name in self.__struct_fields__ if getattr(self, name) is not None}


class ExportRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One export: every row of `entity` that meets `filters`, as one file of `format`. `user_id` says who asked."""

    entity: Entity
    format: FileFormat = FileFormat.CSV
    filters: ExportFilters = ExportFilters()
    user_id: Word | None = None

    def __post_init__(self) -> None:
        if self.format is FileFormat.PDF:
            raise ValueError("an export is csv, excel, json or jsonl; for a PDF ask for a report")


class ExportResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How an export went."""

    entity: Entity
    rows: int
    file: GeneratedFile
    seconds: float
