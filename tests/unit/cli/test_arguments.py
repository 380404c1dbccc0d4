"""How the command line's values are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from streamq.cli import arguments
from streamq.job import JobState
from streamq.policy import Priority, RateLimit, Retention


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("90", 90), ("1.5", 1.5), ("250ms", 0.25), ("30s", 30), ("5m", 300), ("2h", 7_200), ("1d", 86_400),
        ("2w", 1_209_600), ("1h30m", 5_400), ("1m0.5s", 60.5),
    ],
)  # fmt: skip
def test_a_span_is_seconds_or_numbers_with_units(text: str, seconds: float) -> None:
    assert arguments.span(text) == seconds


def test_a_moment_without_a_zone_is_local() -> None:
    assert arguments.moment("2026-11-30T18:00:00+02:00") == datetime(2026, 11, 30, 16, tzinfo=UTC)
    assert arguments.moment("2026-11-30T18:00") == datetime(2026, 11, 30, 18).astimezone()


def test_priorities_are_names_or_numbers() -> None:
    assert [arguments.priority(text) for text in ("critical", "HIGH", "3", "low")] == list(Priority)


def test_rates_are_a_number_of_starts_per_span() -> None:
    assert arguments.rate("10/s") == RateLimit(10, 1)
    assert arguments.rate("100/1m") == RateLimit(100, 60)
    assert arguments.rate("5/0.5") == RateLimit(5, 0.5)
    assert arguments.rate("7") == RateLimit(7, 1)
    assert arguments.rate("none") is None


def test_the_other_values_are_read_as_their_help_says() -> None:
    assert (arguments.limit("5"), arguments.limit("none")) == (5, None)
    assert arguments.retention("100/7d") == Retention(100, 604_800)
    assert arguments.retention("0") == Retention(0)
    assert arguments.header("trace=a=b") == ("trace", "a=b")
    assert arguments.state(JobState.FAILED)("failed") is JobState.FAILED


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((arguments.span, text) for text in ("", "x", "-1", "nan", "inf", "5x", "m5", "1h 30m", "1h30", "\u0661s")),
        *((arguments.moment, text) for text in ("", "soon", "25:00", "2026-13-01")),
        *((arguments.priority, text) for text in ("", "0", "5", "urgent")),
        *((arguments.rate, text) for text in ("", "x/s", "10/", "0/s", "10/x", "10/0", "-1/s")),
        *((arguments.limit, text) for text in ("", "0", "-1", "1.5", "None", "²")),
        *((arguments.retention, text) for text in ("", "x", "1/x", "-1", "/7d")),
        *((arguments.header, text) for text in ("", "a", "=a")),
        (arguments.state(JobState.FAILED), "active"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"give|must be|is none of|is no whole number"):
        read(text)


def test_a_complaint_about_the_arguments_shows_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    parser = arguments.Parser(prog="streamq")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--reddis=redis://bank:hunter2@host/0"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "redis://bank:***@host/0" in said
    assert "hunter2" not in said
