"""What a report job is asked and what it answers. Field names are camelCase on the wire: `reportType`, `userId`."""

from __future__ import annotations

import calendar
import enum
from datetime import date, timedelta
from typing import Annotated, Any

import msgspec

from streamq.processors.generated import GeneratedFile
from streamq.processors.writers import FileFormat

Year = Annotated[int, msgspec.Meta(ge=1900, le=9998)]
Month = Annotated[int, msgspec.Meta(ge=1, le=12)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class RelativePeriod(enum.StrEnum):
    """A period counted from the day the job runs, for reports that a schedule asks for."""

    THIS_MONTH = "this-month"
    PREVIOUS_MONTH = "previous-month"
    THIS_YEAR = "this-year"
    PREVIOUS_YEAR = "previous-year"


class Period(msgspec.Struct, frozen=True):
    """Days from `start` to `end`, both counted. Without a start: everything up to the end."""

    start: date | None
    end: date
    label: str


class ReportFilters(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a report is limited to.

    Attributes:
        month, year: A month of a year, or a whole year; without either, all that is booked.
        period: The same, relative to the day the job runs; not together with `year`.
        user: The member whose accounts to report on.
        currency: Only accounts in this currency.
    """

    month: Month | None = None
    year: Year | None = None
    period: RelativePeriod | None = None
    user: Word | None = None
    currency: Word | None = None

    def __post_init__(self) -> None:
        if self.month is not None and self.year is None:
            raise ValueError("filters.month needs filters.year")
        if self.period is not None and self.year is not None:
            raise ValueError("give filters.period or filters.year, not both")

    def resolve(self, today: date) -> Period:
        """Return the days that are meant, on the day `today`."""
        year, month = self.year, self.month
        match self.period:
            case RelativePeriod.THIS_MONTH:
                year, month = today.year, today.month
            case RelativePeriod.PREVIOUS_MONTH:
                before = today.replace(day=1) - timedelta(days=1)
                year, month = before.year, before.month
            case RelativePeriod.THIS_YEAR:
                year = today.year
            case RelativePeriod.PREVIOUS_YEAR:
                year = today.year - 1
        if year is None:
            return Period(None, today, f"until {today.isoformat()}")
        if month is None:
            return Period(date(year, 1, 1), date(year, 12, 31), str(year))
        last = calendar.monthrange(year, month)[1]
        return Period(date(year, month, 1), date(year, month, last), f"{calendar.month_name[month]} {year}")

    def slug(self, today: date) -> str:
        """Return the period as a part of a file name."""
        period = self.resolve(today)
        if period.start is None:
            return period.end.isoformat()
        whole_year = period.start.month != period.end.month
        return f"{period.start:%Y}" if whole_year else f"{period.start:%Y-%m}"


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One report to make.

    Attributes:
        report_type: One of `reports_catalogue`, or `custom`.
        user_id: Who asked for it; kept with the file.
        filters: What to limit it to.
        formats: The files to write, each of the same rows.
        query: For `custom`: the named query of `reports_queries`.
        parameters: For `custom`: the query's parameters, by name.
    """

    report_type: Word
    user_id: Word | None = None
    filters: ReportFilters = ReportFilters()
    formats: Annotated[list[FileFormat], msgspec.Meta(min_length=1, max_length=5)] = msgspec.field(
        default_factory=lambda: [FileFormat.CSV]
    )
    query: Word | None = None
    parameters: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if (self.report_type == "custom") != (self.query is not None):
            raise ValueError("reportType 'custom' needs a query, and only it takes one")


class ReportResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A report that was made: what it says in sum, and its files. Amounts travel as text."""

    report_type: str
    title: str
    period: str
    rows: int
    totals: dict[str, Any]
    files: list[GeneratedFile]
