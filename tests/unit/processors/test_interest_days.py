"""Day counts against ISDA's own published table, and amounts against tables worked out by hand.

The date pairs and their counts are the "Comparison" sheet of ISDA's workbook of calculation examples for the 2006
Definitions (https://www.isda.org/a/mIJEE/30-360-2006ISDADefs.xls, linked from
https://www.isda.org/2008/12/22/30-360-day-count-conventions/).
"""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.processors.interest_days import DayCount, daily_interest, divide_half_even

# start, end, 30/360 (4.16(f)), 30E/360 (4.16(g)), actual days
ISDA_2006 = [
    ("2007-01-15", "2007-01-30", 15, 15, 15),
    ("2007-01-15", "2007-02-15", 30, 30, 31),
    ("2007-01-15", "2007-07-15", 180, 180, 181),
    ("2007-09-30", "2008-03-31", 180, 180, 183),
    ("2007-09-30", "2007-10-31", 30, 30, 31),
    ("2007-09-30", "2008-09-30", 360, 360, 366),
    ("2007-01-15", "2007-01-31", 16, 15, 16),
    ("2007-01-31", "2007-02-28", 28, 28, 28),
    ("2007-02-28", "2007-03-31", 33, 32, 31),
    ("2006-08-31", "2007-02-28", 178, 178, 181),
    ("2007-02-28", "2007-08-31", 183, 182, 184),
    ("2007-02-14", "2007-02-28", 14, 14, 14),
    ("2007-02-26", "2008-02-29", 363, 363, 368),
    ("2008-02-29", "2009-02-28", 359, 359, 365),
    ("2008-02-29", "2008-03-30", 31, 31, 30),
    ("2008-02-29", "2008-03-31", 32, 31, 31),
    ("2007-02-28", "2007-03-05", 7, 7, 5),
    ("2007-10-31", "2007-11-28", 28, 28, 28),
    ("2007-08-31", "2008-02-29", 179, 179, 182),
    ("2008-02-29", "2008-08-31", 182, 181, 184),
    ("2008-08-31", "2009-02-28", 178, 178, 181),
    ("2009-02-28", "2009-08-31", 183, 182, 184),
]


@pytest.mark.parametrize(("start", "end", "thirty", "thirty_e", "actual"), ISDA_2006)
def test_the_counts_are_those_of_isdas_published_table(
    start: str, end: str, thirty: int, thirty_e: int, actual: int
) -> None:
    first, last = date.fromisoformat(start), date.fromisoformat(end)
    assert DayCount.THIRTY_360.days(first, last) == thirty
    assert DayCount.THIRTY_E_360.days(first, last) == thirty_e
    assert DayCount.ACTUAL_360.days(first, last) == actual
    assert DayCount.ACTUAL_365.days(first, last) == actual


@pytest.mark.parametrize(
    ("day", "weight"),
    [
        ("2025-01-29", 1),
        ("2025-01-30", 0),  # the 31st is the 30th again
        ("2025-01-31", 1),
        ("2025-02-28", 3),
        ("2024-02-28", 1),
        ("2024-02-29", 2),
        ("2025-04-30", 1),
        ("2025-12-31", 1),
    ],
)
def test_under_30_360_each_day_has_its_own_weight(day: str, weight: int) -> None:
    assert DayCount.THIRTY_360.days_of(date.fromisoformat(day)) == weight


@pytest.mark.parametrize("year", [2023, 2024, 1900, 2000])
def test_the_days_of_every_month_weigh_30_together(year: int) -> None:
    for month in range(1, 13):
        first = date(year, month, 1)
        days = [first + timedelta(days=n) for n in range(31) if (first + timedelta(days=n)).month == month]
        assert sum(DayCount.THIRTY_360.days_of(day) for day in days) == 30


# Worked out by hand: balance x rate x weight / year, in minor units.
#   100,000.00 at 3.65 % actual/365: 10,000,000 x 0.0365 / 365 = 1,000 exactly
#   100,000.00 at 3.65 % actual/360: 10,000,000 x 0.0365 / 360 = 1,013.888... -> 1,014
#   1,234.56 at 2.5 % actual/365: 123,456 x 0.025 / 365 = 8.4558... -> 8
#   100,000.00 at 5 % 30/360 on 28 February 2025, weight 3: 10,000,000 x 0.05 x 3 / 360 = 4,166.67 -> 4,167
#   the same on 30 January: weight 0
#   18.25 at 10 % actual/365: 1,825 x 0.1 / 365 = 0.5 exactly -> 0 (even); 54.75: 1.5 -> 2 (even); 91.25: 2.5 -> 2
#   an overdraft of 54.75 at 10 %: -1.5 -> -2
BY_HAND = [
    (10_000_000, 365, DayCount.ACTUAL_365, "2025-06-15", 1_000),
    (10_000_000, 365, DayCount.ACTUAL_365, "2024-02-29", 1_000),
    (10_000_000, 365, DayCount.ACTUAL_360, "2025-06-15", 1_014),
    (123_456, 250, DayCount.ACTUAL_365, "2025-06-15", 8),
    (10_000_000, 500, DayCount.THIRTY_360, "2025-02-28", 4_167),
    (10_000_000, 500, DayCount.THIRTY_360, "2025-01-30", 0),
    (10_000_000, 500, DayCount.THIRTY_360, "2025-06-15", 1_389),
    (1_825, 1_000, DayCount.ACTUAL_365, "2025-06-15", 0),
    (5_475, 1_000, DayCount.ACTUAL_365, "2025-06-15", 2),
    (9_125, 1_000, DayCount.ACTUAL_365, "2025-06-15", 2),
    (-5_475, 1_000, DayCount.ACTUAL_365, "2025-06-15", -2),
    (0, 1_000, DayCount.ACTUAL_365, "2025-06-15", 0),
]


@pytest.mark.parametrize(("balance", "rate", "convention", "day", "interest"), BY_HAND)
def test_a_days_interest_is_what_the_hand_computed_table_says(
    balance: int, rate: int, convention: DayCount, day: str, interest: int
) -> None:
    assert daily_interest(balance, rate, 10_000, convention, date.fromisoformat(day)) == interest


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_rounding_agrees_with_exact_fractions(numerator: int, denominator: int) -> None:
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(st.dates(date(1900, 1, 1), date(2199, 12, 31)), st.integers(0, 800))
def test_daily_weights_add_up_to_the_30e_count_of_the_whole_period(start: date, length: int) -> None:
    days = [start + timedelta(days=n) for n in range(length)]
    end = start + timedelta(days=length)
    assert sum(DayCount.THIRTY_360.days_of(day) for day in days) == DayCount.THIRTY_E_360.days(start, end)


def test_a_period_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"can't end \(2025-01-01\) before it starts \(2025-01-02\)"):
        DayCount.ACTUAL_365.days(date(2025, 1, 2), date(2025, 1, 1))


def test_a_denominator_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, not 0"):
        divide_half_even(1, 0)
