"""Charts as plain numbers: minutes put together into bars, and a line, for the templates to draw as SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from streamq.minutes import Minute

BARS = 60
HEIGHT = 100
SPANS = {"1h": 3_600.0, "3h": 10_800.0, "12h": 43_200.0, "24h": 86_400.0}


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """Some minutes together. Parts are stacked: (kind, y, height), in a chart of 100 units; None: no worker ticked."""

    at: datetime
    completed: int
    failed: int
    retried: int
    held: int | None
    delayed: int | None
    parts: list[tuple[str, float, float]]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """The bars of a span, oldest first; `line` draws the backlog, in pieces where it is known."""

    bars: list[Bar]
    top: int
    line: str
    line_top: int
    minutes_per_bar: int

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to draw."""
        return self.top == 0 and not self.line


def chart(minutes: Sequence[Minute], span: float, now: datetime) -> Chart:
    """Put the minutes of the last `span` seconds together into 60 bars."""
    width = max(round(span / 60 / BARS), 1)
    end = int(now.timestamp() // 60) + 1
    start = end - width * BARS
    groups: list[list[Minute]] = [[] for _ in range(BARS)]
    for minute in minutes:
        at = (int(minute.at.timestamp() // 60) - start) // width
        if 0 <= at < BARS:
            groups[at].append(minute)
    top = nice(max(sum(m.completed + m.failed + m.retried for m in group) for group in groups))
    bars = [_bar(datetime.fromtimestamp((start + at * width) * 60, UTC), group, top) for at, group in enumerate(groups)]
    line_top = nice(max((bar.held for bar in bars if bar.held is not None), default=0))
    return Chart(bars=bars, top=top, line=_line(bars, line_top), line_top=line_top, minutes_per_bar=width)


def _bar(at: datetime, group: Sequence[Minute], top: int) -> Bar:
    counts = {kind: sum(getattr(m, kind) for m in group) for kind in ("completed", "retried", "failed")}
    parts, y = [], float(HEIGHT)
    for kind, count in counts.items():
        if count:
            height = max(count / top * HEIGHT, 1.0)
            y -= height
            parts.append((kind, round(max(y, 0.0), 2), round(height, 2)))
    known = [m for m in group if m.held is not None]
    held, delayed = (known[-1].held, known[-1].delayed) if known else (None, None)
    return Bar(at=at, held=held, delayed=delayed, parts=parts, **counts)


def _line(bars: Sequence[Bar], top: int) -> str:
    pieces, drawing = [], False
    for at, bar in enumerate(bars):
        if bar.held is None:
            drawing = False
            continue
        y = HEIGHT - (bar.held / top * HEIGHT if top else 0)
        pieces.append(f"{'L' if drawing else 'M'}{at * 10 + 5} {y:.1f}")
        if not drawing:
            pieces.append("l0.1 0")  # a lone point shows, too
        drawing = True
    return " ".join(pieces)


def nice(value: int) -> int:
    """Return a round number that is not below `value`."""
    if value <= 0:
        return 0
    scale = int(10 ** (len(str(value)) - 1))
    return next(step * scale for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * scale >= value)


def covered(now: datetime, span: float) -> tuple[str, str, str]:
    """Return the labels below a chart: its begin, its middle, its end."""
    moments = (now - timedelta(seconds=span), now - timedelta(seconds=span / 2), now)
    first, middle, last = (at.astimezone(UTC).strftime("%H:%M") for at in moments)
    return first, middle, last
