"""How values are written on pages. What comes out of jobs is shown, never obeyed, and never without an end.

Escaping for HTML is the templates' own, for every value; this module takes care of what HTML lets through: control
characters, signs that turn the direction of writing around, and sheer length.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from streamq.cli import values
from streamq.cli.output import clean_text

MOST_CHARACTERS = 20_000
MOST_NAME = 200
NOTHING = "\N{EN DASH}"


def clean(value: Any, limit: int = MOST_NAME) -> str:
    """Write text on one line, cut to `limit` characters."""
    text = clean_text(" ".join(str(value)[: limit * 4].split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def block(value: Any) -> str:
    """Write text of several lines, cut where it gets too long."""
    text = str(value)
    shown = clean_text(text[:MOST_CHARACTERS])
    return shown if len(text) <= MOST_CHARACTERS else f"{shown}\n… {len(text) - MOST_CHARACTERS:,} more characters"


def pretty(value: Any) -> str:
    """Write data as indented JSON."""
    return block(values.to_json(value, indent=2))


def brief(value: Any) -> str:
    """Write data as JSON on one line, for a table."""
    return clean(values.to_json(value), 80)


def moment(at: datetime | None) -> str:
    """Write a moment, to the second, in UTC."""
    return NOTHING if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def exactly(at: datetime) -> str:
    """Write a moment to the millisecond, in UTC."""
    return at.astimezone(UTC).strftime("%H:%M:%S.") + f"{at.microsecond // 1000:03d}"


def age(seconds: float | None) -> str:
    """Write a span of time."""
    return NOTHING if seconds is None else values.age(seconds)


def since(at: datetime | None, now: datetime) -> str:
    """Write how long ago, or how far ahead, a moment is."""
    if at is None:
        return ""
    seconds = (now - at).total_seconds()
    return f"{values.age(seconds)} ago" if seconds >= 0 else f"in {values.age(-seconds)}"


def number(value: float | None) -> str:
    """Write a count."""
    return NOTHING if value is None else f"{value:,}"


def rate(value: float) -> str:
    """Write a rate per second."""
    return "0" if not value else f"{value:,.{2 if value < 10 else 0}f}"
