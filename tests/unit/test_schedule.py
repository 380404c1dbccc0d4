"""Schedules before they are sent: what is refused, and with which words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamq import InvalidInput, JobOptions, Priority, Queue, Schedule
from streamq.schedule import MAX_SCHEDULE_ID, ScheduleFields

DAY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either cron or every"),
        ({"cron": "@daily", "every": 5}, "not both"),
        ({"cron": "0 25 * * *"}, "cron '0 25 \\* \\* \\*': Bad hour"),
        ({"cron": "0 0 31 2 *"}, "cron .*: Bad day-of-month"),
        ({"cron": "@fortnightly"}, "cron '@fortnightly' is no alias"),
        ({"cron": 5}, "cron must be text"),
        ({"every": 0.09}, "every must be between 0.1"),
        ({"every": timedelta(0)}, "every must be between 0.1"),
        ({"every": -5}, "every must be between"),
        ({"every": float("nan")}, "every must be seconds"),
        ({"every": float("inf")}, "every must be between"),
        ({"every": "5"}, "every must be seconds"),
        ({"every": True}, "every must be seconds"),
        ({"every": 5, "tz": "Europe/Bonn"}, "tz must be the name of a time zone.*'Europe/Bonn'"),
        ({"every": 5, "tz": "../etc/passwd"}, "tz must be"),
        ({"every": 5, "tz": "Europe"}, "tz must be"),
        ({"every": 5, "tz": ""}, "tz must be"),
        ({"every": 5, "tz": None}, "tz must be"),
        ({"every": 5, "start": datetime(2026, 1, 1)}, "start must have a time zone"),
        ({"every": 5, "end": datetime(2026, 1, 1)}, "end must have a time zone"),
        ({"every": 5, "start": "2026-01-01"}, "start must be a datetime"),
        ({"every": 5, "start": DAY, "end": DAY - timedelta(seconds=1)}, "end must not lie before start"),
        ({"every": 5, "limit": 0}, "limit must be between 1"),
        ({"every": 5, "limit": 1.5}, "limit must be a whole number"),
        ({"every": 5, "missed": "never"}, "missed must be one of skip, once, all, not 'never'"),
        ({"every": 5, "overlap": None}, "overlap must be one of allow, skip, queue, cancel_previous, not None"),
        ({"every": 5, "overlap": ["skip"]}, "overlap must be one of"),
        ({"every": 5, "grace": -1}, "grace must be between 0"),
        ({"every": 5, "jitter": "much"}, "jitter must be seconds"),
        ({"every": 5, "name": ""}, "job name must not be empty"),
        ({"every": 5, "name": None}, "job name must be text"),
        ({"every": 5, "name": "a{b}"}, "job name must not contain braces"),
        ({"every": 5, "options": {"priority": 1}}, "options must be JobOptions"),
        ({"every": 5, "options": JobOptions(delay=5)}, "options of a schedule can't have job_id, run_at or delay"),
        ({"every": 5, "options": JobOptions(run_at=DAY)}, "options of a schedule can't have"),
        ({"every": 5, "options": JobOptions(job_id="mine")}, "options of a schedule can't have"),
    ],
)
def test_what_makes_no_schedule_is_refused_by_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Schedule(**{"name": "report", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"cron": "*/5 9-17 * * MON-FRI", "tz": "Europe/Berlin"},
        {"cron": "30 0 9 L * *"},
        {"every": 0.1},
        {"every": timedelta(weeks=2), "start": DAY, "end": DAY},
        {"every": 5, "limit": 1, "missed": "all", "overlap": "queue", "grace": 0, "jitter": timedelta(minutes=1)},
        {"every": 5, "options": JobOptions(priority=Priority.LOW, attempts=1)},
    ],
)
def test_what_makes_a_schedule_is_accepted(fields: dict[str, Any]) -> None:
    Schedule(**{"name": "report", **fields})


def test_the_keywords_are_the_fields() -> None:
    assert list(ScheduleFields.__annotations__) == list(Schedule.__struct_fields__)


@pytest.fixture
async def queue() -> Queue:
    """A queue whose server does not exist: whatever is sent fails with another error."""
    return Queue("q", "redis://127.0.0.1:1/0")


@pytest.mark.parametrize(
    ("schedule_id", "words"),
    [
        ("", "schedule id must not be empty"),
        ("a{b}", "schedule id must not contain braces"),
        ("a\nb", "schedule id must not contain control characters"),
        ("é" * 121, f"schedule id takes 242 bytes, over the limit of {MAX_SCHEDULE_ID}"),
        (7, "schedule id must be text"),
    ],
)
@pytest.mark.parametrize(
    "method",
    ["upsert_schedule", "get_schedule", "pause_schedule", "resume_schedule", "trigger_schedule", "remove_schedule"],
)
async def test_an_id_that_could_break_a_key_is_refused_before_anything_is_sent(
    queue: Queue, method: str, schedule_id: Any, words: str
) -> None:
    fields = {"every": 5, "name": "report"} if method == "upsert_schedule" else {}
    with pytest.raises(InvalidInput, match=words):
        await getattr(queue, method)(schedule_id, **fields)


@pytest.mark.parametrize(
    ("given", "fields", "words"),
    [
        (None, {"every": 5, "name": "report", "color": "red"}, "unknown field 'color'; a schedule has cron, every"),
        (None, {"every": 5}, "job name must not be empty"),
        ({"every": 5}, {}, "schedule must be a Schedule, not dict"),
        (Schedule(every=5, name="report"), {"every": 0.01}, "every must be between"),
        (Schedule(every=5, name="report"), {"cron": "@daily"}, "not both"),
        (None, {"every": 5, "name": "report", "data": {1, 2}}, "data would not come back"),
        (None, {"every": 5, "name": "report", "data": "x" * 2_000_000}, "over the limit"),
    ],
)
async def test_an_upsert_that_does_not_fit_is_refused_before_anything_is_sent(
    queue: Queue, given: Any, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        await queue.upsert_schedule("nightly", given, **fields)  # type: ignore[typeddict-item]
