"""How values are written: as JSON for scripts, as short text for people."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import msgspec

from streamq.policy import Priority

NOTHING = "-"


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Write a value as JSON: structs as objects, times in ISO 8601 (UTC), bytes in base64, priorities by name.

    Numbers stay exact, however large. What JSON has no word for (NaN, infinity) becomes text.
    """
    return json.dumps(_simple(value), ensure_ascii=False, indent=indent, allow_nan=False)


def _simple(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case Priority():
            return value.name.lower()
        case Enum():
            return _simple(value.value)
        case str() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime():
            return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(bytes(value)).decode()
        case msgspec.Struct():
            return {name: _simple(getattr(value, name)) for name in value.__struct_fields__}
        case Mapping():
            return {_key(key): _simple(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_simple(item) for item in value]
    return str(value)


def _key(key: Any) -> str:
    simple = _simple(key)
    return simple if isinstance(simple, str) else json.dumps(simple)


def when(at: datetime | None) -> str:
    """Write a moment in local time, to the second."""
    return NOTHING if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def when_exactly(at: datetime | None) -> str:
    """Write a moment in local time with its zone, to the millisecond."""
    return NOTHING if at is None else at.astimezone().isoformat(sep=" ", timespec="milliseconds")


def age(seconds: float | None) -> str:
    """Write a span of time in its two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        digits = 0 if seconds >= 0.01 or not seconds else 1 if seconds >= 0.001 else 2
        return f"{seconds * 1000:.{digits}f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    units = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
    left = int(seconds)
    parts: list[str] = []
    for size, unit in units:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def number(value: float) -> str:
    """Write a count with its thousands parted."""
    return f"{value:,}"


def count(number_of: int, what: str) -> str:
    """Write a count of things: `1 job`, `2 jobs`."""
    return f"{number_of:,} {what}{'' if number_of == 1 else 's'}"


def size(value: float) -> str:
    """Write bytes."""
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"


def speed(per_second: float) -> str:
    """Write a rate per second."""
    return NOTHING if not per_second else f"{per_second:,.{1 if per_second < 100 else 0}f}"
