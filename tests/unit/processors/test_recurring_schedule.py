"""Due dates of recurring transactions: month ends, leap years, ends by date and by count, no drift."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.processors.recurring_schedule import Frequency, MonthEnd, Rule


def rule(frequency: str, start: str, **more: Any) -> Rule:
    return Rule(frequency=Frequency(frequency), start=date.fromisoformat(start), **more)


def first(count: int, of: Rule) -> list[str]:
    return [day.isoformat() for day in islice(of.dates(), count)]


@pytest.mark.parametrize(
    ("given_rule", "days"),
    [
        (rule("daily", "2024-02-28"), ["2024-02-28", "2024-02-29", "2024-03-01"]),
        (rule("daily", "2025-02-27", interval=2), ["2025-02-27", "2025-03-01", "2025-03-03"]),
        (rule("weekly", "2025-12-29"), ["2025-12-29", "2026-01-05", "2026-01-12"]),
        (rule("weekly", "2025-01-01", interval=2), ["2025-01-01", "2025-01-15", "2025-01-29"]),
        (rule("monthly", "2025-01-15"), ["2025-01-15", "2025-02-15", "2025-03-15"]),
        (rule("monthly", "2025-11-30", interval=3), ["2025-11-30", "2026-02-28", "2026-05-30"]),
        (rule("yearly", "2023-05-01"), ["2023-05-01", "2024-05-01", "2025-05-01"]),
    ],
)
def test_each_frequency_falls_on_its_dates(given_rule: Rule, days: list[str]) -> None:
    assert first(3, given_rule) == days


def test_a_rule_from_the_31st_takes_short_months_last_day_and_does_not_drift() -> None:
    assert first(5, rule("monthly", "2025-01-31")) == [
        "2025-01-31", "2025-02-28", "2025-03-31", "2025-04-30", "2025-05-31",
    ]  # fmt: skip


def test_skip_leaves_out_months_that_lack_the_day() -> None:
    skipping = rule("monthly", "2025-01-31", month_end=MonthEnd.SKIP)
    assert first(4, skipping) == ["2025-01-31", "2025-03-31", "2025-05-31", "2025-07-31"]


def test_last_falls_on_every_months_last_day() -> None:
    last = rule("monthly", "2024-02-29", month_end=MonthEnd.LAST)
    assert first(3, last) == ["2024-02-29", "2024-03-31", "2024-04-30"]


@pytest.mark.parametrize(
    ("month_end", "days"),
    [
        (MonthEnd.CLAMP, ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]),
        (MonthEnd.SKIP, ["2024-02-29", "2028-02-29", "2032-02-29", "2036-02-29", "2040-02-29"]),
    ],
)
def test_a_leap_day_comes_back_by_the_month_end_rule(month_end: MonthEnd, days: list[str]) -> None:
    assert first(5, rule("yearly", "2024-02-29", month_end=month_end)) == days


def test_the_end_date_counts_and_nothing_comes_after_it() -> None:
    ending = rule("weekly", "2025-01-01", end_date=date(2025, 1, 15))
    assert first(9, ending) == ["2025-01-01", "2025-01-08", "2025-01-15"]
    assert ending.next_after(date(2025, 1, 15)) is None


def test_the_count_is_of_instances_not_of_months_looked_at() -> None:
    counted = rule("monthly", "2025-01-31", month_end=MonthEnd.SKIP, count=3)
    assert first(9, counted) == ["2025-01-31", "2025-03-31", "2025-05-31"]
    assert counted.next_after(date(2025, 3, 31)) == date(2025, 5, 31)
    assert counted.next_after(date(2025, 5, 31)) is None


def test_due_lists_both_ends_of_the_window() -> None:
    assert rule("daily", "2025-01-01").due(date(2025, 1, 3), date(2025, 1, 5)) == [
        date(2025, 1, 3), date(2025, 1, 4), date(2025, 1, 5),
    ]  # fmt: skip
    assert rule("daily", "2025-01-01").due(date(2024, 1, 3), date(2024, 12, 31)) == []


RULES = st.builds(
    Rule,
    frequency=st.sampled_from(list(Frequency)),
    start=st.dates(date(1950, 1, 1), date(2050, 12, 31)),
    interval=st.integers(1, 14),
    count=st.none() | st.integers(1, 40),
    month_end=st.sampled_from(list(MonthEnd)),
)


@given(RULES, st.integers(-30, 9_000))
def test_starting_in_the_middle_finds_the_same_dates_as_starting_at_the_start(some: Rule, offset: int) -> None:
    after = some.start + timedelta(days=offset)
    expected = [day for day in islice(some.dates(), 400) if day > after][:3]
    if len(expected) == 3:
        assert list(islice(some.dates(after=after), 3)) == expected


@given(RULES)
def test_dates_rise_strictly_and_respect_the_count(some: Rule) -> None:
    days = list(islice(some.dates(), 60))
    assert all(one < two for one, two in pairwise(days))
    assert some.count is None or len(days) <= some.count


def test_a_rule_stops_at_the_calendars_end() -> None:
    assert first(9, rule("yearly", "9998-01-01")) == ["9998-01-01", "9999-01-01"]
    assert first(9, rule("daily", "9999-12-30")) == ["9999-12-30", "9999-12-31"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"interval": 0}, "interval must be 1 to 1000, not 0"),
        ({"count": 0}, "count must be at least 1, not 0"),
        ({"end_date": date(2024, 12, 31)}, "end_date 2024-12-31 lies before the start 2025-01-01"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(more: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        rule("daily", "2025-01-01", **more)
