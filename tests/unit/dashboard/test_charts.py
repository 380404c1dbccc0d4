"""Minutes as bars and lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streamq.dashboard.charts import BARS, HEIGHT, SPANS, chart, nice
from streamq.minutes import Minute

NOW = datetime(2026, 11, 30, 12, 30, 20, tzinfo=UTC)


def minute(ago: int, completed: int = 0, failed: int = 0, retried: int = 0, held: int | None = 0) -> Minute:
    at = NOW.replace(second=0) - timedelta(minutes=ago)
    return Minute(at=at, completed=completed, failed=failed, retried=retried, stalled=0, held=held, delayed=held)


@pytest.mark.parametrize("span", SPANS.values())
def test_the_minute_that_runs_is_in_the_last_bar_and_each_minute_of_the_span_in_one(span: float) -> None:
    minutes = int(span // 60)
    found = chart([minute(ago, completed=1) for ago in reversed(range(minutes))], span, NOW)
    assert len(found.bars) == BARS
    assert {bar.completed for bar in found.bars} == {minutes // BARS}


def test_minutes_before_the_span_are_left_out() -> None:
    assert chart([minute(60, completed=9)], 3_600, NOW).nothing
    assert not chart([minute(59, completed=9)], 3_600, NOW).nothing


def test_parts_are_stacked_and_never_leave_the_chart() -> None:
    found = chart([minute(0, completed=999, failed=1, retried=200)], 3_600, NOW)
    parts = {kind: (y, height) for kind, y, height in found.bars[-1].parts}
    assert set(parts) == {"completed", "retried", "failed"}
    assert all(0 <= y <= HEIGHT and height >= 1 for y, height in parts.values())
    assert parts["completed"][0] + parts["completed"][1] == HEIGHT


def test_the_line_breaks_where_no_worker_ticked() -> None:
    found = chart([minute(5, held=10), minute(4, held=20), minute(1, held=5)], 3_600, NOW)
    assert found.line.count("M") == 2
    assert found.line_top == 20


def test_nothing_is_nothing() -> None:
    found = chart([], 3_600, NOW)
    assert found.nothing
    assert all(not bar.parts and bar.held is None for bar in found.bars)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (1, 1), (7, 8), (10, 10), (11, 20), (999, 1_000), (4_100, 5_000)]
)
def test_a_scale_ends_at_a_round_number(value: int, expected: int) -> None:
    assert nice(value) == expected
