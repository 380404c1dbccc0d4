"""When a recurring transaction falls due: dates from a rule, pure, no I/O and no clock.

Every date is computed from the rule's start and a number (start + n periods), never from the date before it, so a
monthly rule that starts on the 31st falls on 28 February and then on 31 March again: it does not drift.
"""

from __future__ import annotations

import calendar
import enum
from collections.abc import Iterator
from datetime import date, timedelta

import msgspec

MAX_INTERVAL = 1_000


class Frequency(enum.StrEnum):
    """The period of a rule."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"


class MonthEnd(enum.StrEnum):
    """What a monthly or yearly rule does in a month that lacks its day.

    CLAMP takes the month's last day. SKIP leaves the month out (RFC 5545's way). LAST makes the rule fall on the last
    day of every month, whatever the start's day.
    """

    CLAMP = "clamp"
    SKIP = "skip"
    LAST = "last"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A recurrence: every `interval` periods from `start`, until `end_date` (counted) or `count` instances.

    Raises:
        ValueError: At construction: the interval or the count is out of range, or the end lies before the start.
    """

    frequency: Frequency
    start: date
    interval: int = 1
    end_date: date | None = None
    count: int | None = None
    month_end: MonthEnd = MonthEnd.CLAMP

    def __post_init__(self) -> None:
        if not 1 <= self.interval <= MAX_INTERVAL:
            raise ValueError(f"interval must be 1 to {MAX_INTERVAL}, not {self.interval}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, not {self.count}")
        if self.end_date is not None and self.end_date < self.start:
            raise ValueError(f"end_date {self.end_date} lies before the start {self.start}")

    def dates(self, after: date | None = None) -> Iterator[date]:
        """Yield the due dates in order, those later than `after` only if it is given."""
        first = 0 if after is None else self._periods_before(after)
        given = self._instances_before(first) if self.count is not None else 0
        for number in range(first, 1_000_000):
            try:
                due = self._period(number)
            except (OverflowError, ValueError):  # past the year 9999
                return
            if due is None:
                continue
            if (self.end_date is not None and due > self.end_date) or (self.count is not None and given >= self.count):
                return
            given += 1
            if after is None or due > after:
                yield due

    def next_after(self, day: date) -> date | None:
        """Return the first due date later than `day`, or None when the rule has ended."""
        return next(self.dates(after=day), None)

    def due(self, since: date, until: date) -> list[date]:
        """Return the due dates from `since` to `until`, both counted."""
        found = []
        for day in self.dates(after=since - timedelta(days=1)):
            if day > until:
                break
            found.append(day)
        return found

    def _period(self, number: int) -> date | None:
        """Return the date of period `number`, or None if SKIP leaves it out."""
        steps = number * self.interval
        if self.frequency is Frequency.DAILY:
            return self.start + timedelta(days=steps)
        if self.frequency is Frequency.WEEKLY:
            return self.start + timedelta(weeks=steps)
        months = steps * (12 if self.frequency is Frequency.YEARLY else 1)
        year, month0 = divmod(self.start.year * 12 + self.start.month - 1 + months, 12)
        last = calendar.monthrange(year, month0 + 1)[1]
        if self.month_end is MonthEnd.LAST:
            return date(year, month0 + 1, last)
        if self.start.day > last and self.month_end is MonthEnd.SKIP:
            return None
        return date(year, month0 + 1, min(self.start.day, last))

    def _periods_before(self, day: date) -> int:
        """Return a period number that is surely not later than the first one after `day`."""
        if day <= self.start:
            return 0
        days = {Frequency.DAILY: 1, Frequency.WEEKLY: 7, Frequency.MONTHLY: 31, Frequency.YEARLY: 366}[self.frequency]
        return max(0, (day - self.start).days // (days * self.interval) - 1)

    def _instances_before(self, number: int) -> int:
        """Return how many instances the periods before `number` hold."""
        if self.month_end is not MonthEnd.SKIP or self.start.day <= 28:
            return number
        return sum(self._period(n) is not None for n in range(number))
