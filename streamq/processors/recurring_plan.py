"""Decide what a recurring transaction does on a day: pure, no I/O.

Policies are the transaction's own: what happens to instances that no run executed on their day, and what happens
when the account does not cover one.
"""

from __future__ import annotations

import enum
from datetime import date
from typing import NamedTuple

from streamq.processors.recurring_schedule import Rule


class Missed(enum.StrEnum):
    """What becomes of instances whose day passed without a run: left out, one in place of all, or each made up for."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class InsufficientFunds(enum.StrEnum):
    """What becomes of an instance that the account does not cover.

    SKIP leaves it out. RETRY tries again on the following days, then fails it; the series goes on either way. FAIL
    fails it and stops the series until somebody looks.
    """

    SKIP = "skip"
    RETRY = "retry"
    FAIL = "fail"


class Plan(NamedTuple):
    """Due dates to execute and due dates to record as skipped, both in order, and the next due date (None: ended)."""

    execute: list[date]
    skip: list[date]
    next_due: date | None


def plan(rule: Rule, next_due: date, today: date, missed: Missed) -> Plan:
    """Return what is to be done on `today` with the instances from `next_due` on.

    Instances before `today` are missed ones. ONCE executes the latest that is due, today's or a missed one.
    """
    due = rule.due(next_due, today)
    if missed is Missed.ALL:
        first = 0
    elif missed is Missed.ONCE:
        first = max(0, len(due) - 1)
    else:
        first = len(due) - due.count(today)
    return Plan(due[first:], due[:first], rule.next_after(today))
