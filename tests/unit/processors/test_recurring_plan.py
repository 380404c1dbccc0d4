"""What becomes of missed instances, by policy."""

from __future__ import annotations

from datetime import date

import pytest

from streamq.processors.recurring_plan import Missed, Plan, plan
from streamq.processors.recurring_schedule import Frequency, Rule

WEEKLY = Rule(frequency=Frequency.WEEKLY, start=date(2025, 1, 1))
FIRST, SECOND, THIRD, FOURTH = (date(2025, 1, day) for day in (1, 8, 15, 22))


@pytest.mark.parametrize("missed", list(Missed))
def test_an_instance_on_its_day_is_executed_whatever_the_policy(missed: Missed) -> None:
    assert plan(WEEKLY, SECOND, SECOND, missed) == Plan([SECOND], [], THIRD)


@pytest.mark.parametrize(
    ("missed", "today", "expected"),
    [
        (Missed.ALL, THIRD, Plan([FIRST, SECOND, THIRD], [], FOURTH)),
        (Missed.ONCE, THIRD, Plan([THIRD], [FIRST, SECOND], FOURTH)),
        (Missed.SKIP, THIRD, Plan([THIRD], [FIRST, SECOND], FOURTH)),
        (Missed.ALL, date(2025, 1, 17), Plan([FIRST, SECOND, THIRD], [], FOURTH)),
        (Missed.ONCE, date(2025, 1, 17), Plan([THIRD], [FIRST, SECOND], FOURTH)),
        (Missed.SKIP, date(2025, 1, 17), Plan([], [FIRST, SECOND, THIRD], FOURTH)),
    ],
)
def test_missed_instances_go_by_the_policy(missed: Missed, today: date, expected: Plan) -> None:
    assert plan(WEEKLY, FIRST, today, missed) == expected


@pytest.mark.parametrize("missed", list(Missed))
def test_before_the_next_due_date_nothing_is_done(missed: Missed) -> None:
    assert plan(WEEKLY, SECOND, date(2025, 1, 7), missed) == Plan([], [], SECOND)


def test_an_ended_rule_has_no_next_date() -> None:
    twice = Rule(frequency=Frequency.WEEKLY, start=FIRST, count=2)
    assert plan(twice, SECOND, SECOND, Missed.ALL) == Plan([SECOND], [], None)
