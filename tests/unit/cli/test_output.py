"""What the commands print, as text and as JSON."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from streamq.cli import values
from streamq.cli.output import Cell, Output, Table, clean_text, drawn, plain_lines, shorten
from streamq.job import JobError, JobState
from streamq.policy import Priority, RateLimit


class Thing(msgspec.Struct):
    """Any struct."""

    at: datetime
    priority: Priority
    state: JobState
    error: JobError


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None), (True, True), (2**80, 2**80), (1.5, 1.5), (float("nan"), "nan"), (float("-inf"), "-inf"),
        ("ü\n", "ü\n"), (b"\xff\x00", "/wA="), ([1, (2, 3)], [1, [2, 3]]), ({1: "a", None: 2, Priority.LOW: 3, (1,): 4},
        {"1": "a", "null": 2, "low": 3, "[1]": 4}), (timedelta(seconds=90), 90.0),
        (RateLimit(3, 2), {"max": 3, "per": 2.0}),
        (datetime(2026, 1, 2, 4, tzinfo=timezone(timedelta(hours=1))), "2026-01-02T03:00:00+00:00"),
    ],
    ids=repr,
)  # fmt: skip
def test_values_are_written_as_json_that_parses(value: Any, written: Any) -> None:
    text = values.to_json(value)
    assert "\n" not in text
    assert json.loads(text) == written


def test_structs_are_objects_with_names_for_what_has_names() -> None:
    thing = Thing(datetime(2026, 1, 2, tzinfo=UTC), Priority.HIGH, JobState.FAILED, JobError("ValueError", "no"))
    assert json.loads(values.to_json(thing)) == {
        "at": "2026-01-02T00:00:00+00:00",
        "priority": "high",
        "state": "failed",
        "error": {"type": "ValueError", "message": "no", "traceback": ""},
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0 ms"), (0.000_04, "0.04 ms"), (0.0042, "4.2 ms"), (0.25, "250 ms"), (1.25, "1.2 s"),
        (59.94, "59.9 s"), (60, "1m 0s"), (3_725, "1h 2m"), (90_061, "1d 1h"),
    ],
)  # fmt: skip
def test_ages_are_written_in_their_largest_units(seconds: float | None, text: str) -> None:
    assert values.age(seconds) == text


def test_counts_sizes_and_speeds_are_short() -> None:
    assert [values.count(n, "job") for n in (0, 1, 1_234)] == ["0 jobs", "1 job", "1,234 jobs"]
    assert [values.size(n) for n in (0, 1023, 1536, 3 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KB",
        "3.0 GB",
        "5.0 TB",
    ]
    assert [values.speed(n) for n in (0, 0.25, 99, 1_234.5)] == ["-", "0.2", "99.0", "1,234"]


def test_control_characters_are_shown_and_never_sent() -> None:
    assert clean_text("a\x1b[31m\x07\r\x9b\u202e\n\tb") == "a\\x1b[31m\\x07\\x0d\\u009b\\u202e\n\tb"


def test_long_text_is_cut_to_one_line() -> None:
    assert shorten("a\n b\tc") == "a b c"
    assert shorten("x" * 100, 10) == "x" * 9 + "…"


TABLE = Table(("name", ">count"), [(Cell("jobs", "name"), "7"), ("x\ny\x1b[2J", "1,000")], "a title")


def test_a_plain_table_is_aligned_and_has_a_line_per_row() -> None:
    assert plain_lines(TABLE) == [
        "a title",
        "NAME         COUNT",
        "jobs             7",
        "x\\ny\\x1b[2J  1,000",
    ]
    assert plain_lines(Table(("a", "b"), [])) == ["A  B"]


@pytest.mark.parametrize("width", [120, 60, 20])
def test_a_drawn_table_holds_all_that_the_plain_one_does_at_any_width(width: int) -> None:
    from rich.console import Console

    to = io.StringIO()
    Console(file=to, width=width, force_terminal=False).print(drawn(TABLE, width))
    text = to.getvalue().replace("\n", "").replace(" ", "")
    assert "[2J" in text
    assert "\x1b" not in text
    assert "1,000" in text
    assert all(len(line) <= width for line in to.getvalue().splitlines())


def test_text_that_looks_like_markup_is_printed_as_it_is() -> None:
    from rich.console import Console

    to = io.StringIO()
    Console(file=to, width=80).print(drawn(Table(("error",), [("[bold]no[/bold] :smile:",)]), 80))
    assert "[bold]no[/bold] :smile:" in to.getvalue()


def test_fields_are_aligned_and_their_further_lines_indented() -> None:
    to = io.StringIO()
    Output(to=to).fields([("id", "1"), ("error", "one\ntwo")])
    assert to.getvalue() == "id     1\nerror  one\n       two\n"


def test_a_record_is_one_line_of_json() -> None:
    to = io.StringIO()
    Output(json=True, to=to).record({"text": "a\nb\x1b"})
    assert to.getvalue() == '{"text": "a\\nb\\u001b"}\n'
