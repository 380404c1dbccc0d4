"""Count days and round money as a bank does: pure integer arithmetic, no I/O, no floats.

The conventions are those of the 2006 ISDA Definitions, section 4.16: Actual/365 (Fixed) is (d), Actual/360 is (e),
30/360 (Bond Basis) is (f), 30E/360 (Eurobond Basis) is (g).
"""

from __future__ import annotations

import enum
from datetime import date, timedelta

_ONE_DAY = timedelta(days=1)


class DayCount(enum.StrEnum):
    """How many days lie between two dates, and how many make a year."""

    ACTUAL_365 = "actual/365"
    ACTUAL_360 = "actual/360"
    THIRTY_360 = "30/360"
    THIRTY_E_360 = "30E/360"

    @property
    def year(self) -> int:
        """Days in a year of this convention."""
        return 365 if self is DayCount.ACTUAL_365 else 360

    def days(self, start: date, end: date) -> int:
        """Return the days from `start` (counted) to `end` (not counted).

        Raises:
            ValueError: `end` lies before `start`.
        """
        if end < start:
            raise ValueError(f"a period can't end ({end}) before it starts ({start})")
        if self in (DayCount.ACTUAL_365, DayCount.ACTUAL_360):
            return (end - start).days
        first, last = min(start.day, 30), end.day
        if last == 31 and (first == 30 or self is DayCount.THIRTY_E_360):
            last = 30
        return 360 * (end.year - start.year) + 30 * (end.month - start.month) + last - first

    def days_of(self, day: date) -> int:
        """Return what the single date `day` weighs: the days from it to the next date.

        Under 30/360 the 30th of a 31-day month weighs 0 and the last day of February 3 (2 in a leap year), so that
        every month adds up to 30.
        """
        return self.days(day, day + _ONE_DAY)


def divide_half_even(numerator: int, denominator: int) -> int:
    """Return `numerator / denominator` rounded to a whole number, ties to the even one. Exact at any size.

    Raises:
        ValueError: The denominator is not positive.
    """
    if denominator <= 0:
        raise ValueError(f"the denominator must be positive, not {denominator}")
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return whole + (twice > denominator or (twice == denominator and whole % 2 == 1))


def daily_interest(balance_minor: int, rate: int, rate_scale: int, convention: DayCount, day: date) -> int:
    """Return the interest in minor units that `balance_minor` earns on `day`, rounded half-even.

    The yearly rate is the fraction `rate / rate_scale` (3.65 % is 365 / 10,000). A negative balance gives a negative
    amount: interest owed.
    """
    return divide_half_even(balance_minor * rate * convention.days_of(day), rate_scale * convention.year)
