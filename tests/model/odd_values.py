"""500 values that somebody may give: odd ones that have broken queues, and random ones, the same in each run."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

VALUES = 500

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**53 + 1, 2**63, -(2**63) - 1,
    10**400, 0.1, -0.0, math.nan, math.inf, -math.inf,
    "", " ", "a", "0", "17", "017", "-1", "1e3", "a b", "\0", "\n", "é",
    "e\u0301", "\u2028", "\ud800", "𝄞", "{", "}", "{x}",
    "a:b", "*", "x" * 256, "x" * 257, "é" * 128, "x" * 100_000, b"", b"a", b"\xff", bytearray(b"a"), memoryview(b"a"),
    [], {}, (), set(), frozenset({1}), [None], [[[]]], {"": None},
    {"a": {"b": [1, "x", None, 2.5]}}, {1: 2}, {None: 1},
    {"a": object()}, [float("nan")], (1, 2), {1, 2}, object(), object, len,
    lambda: 0, Decimal("1.5"), 1 + 2j, UUID(int=7),
    datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1), date(2026, 1, 1),
    datetime(2100, 1, 1, tzinfo=UTC), datetime(2100, 1, 1), datetime(2100, 1, 1, 0, 0, 0, 999_001, UTC),
    datetime(2100, 6, 1, 12, 30, 15, 123_456, timezone(timedelta(hours=5, minutes=45))),
    timedelta(seconds=1), timedelta(microseconds=1), timedelta(days=-1),
    Exception("x"), range(3), iter([1]), ["a", "b"], ["a", "a"], [""],
    ["x" * 300], ("a",), ("a\0",), {"a": "b"}, {"a": 1},
    {"\0": "x"}, {"a": "x" * 20_000}, NotImplemented, ...,
    "http://example.com/hook", "https://example.com:8443/é", "https://user:word@example.com/", "file:///etc/passwd",
    "//example.com", "http://[::1", "https://example.com/?a=b#c", "webhook:1:completed:2", "a@1", "0", "-0-0", "$", ">",
]  # fmt: skip


def values() -> list[Any]:
    """The odd ones, and random ones up to the number promised."""
    chance = random.Random(11)  # noqa: S311 - the same ones each time
    found = list(ODD)
    while len(found) < VALUES:
        found.append(_random(chance, 3))
    return found


def shown(value: Any) -> str:
    """Show a value in a line; Python refuses to write out the longest numbers."""
    return "a long number" if isinstance(value, int) and value.bit_length() > 1_000 else f"{value!r:.60}"


def _random(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(9 if depth else 6)
    if kind == 0:
        return chance.choice([None, True, False])
    if kind == 1:
        return chance.randrange(-(2 ** chance.randrange(1, 80)), 2 ** chance.randrange(1, 80))
    if kind == 2:
        return chance.uniform(-1, 1) * 10.0 ** chance.randrange(-300, 300)
    if kind == 3:
        return "".join(
            chr(chance.choice([0, 10, 58, 97, 123, 125, 233, 0x2028, 0xD800, 0x1F600]))
            for _ in range(chance.randrange(6))
        )
    if kind == 4:
        return "".join(chr(chance.randrange(97, 123)) for _ in range(chance.randrange(1, 12)))
    if kind == 5:
        return chance.randbytes(chance.randrange(8))
    if kind == 6:
        return [_random(chance, depth - 1) for _ in range(chance.randrange(4))]
    if kind == 7:
        return {_random(chance, 0): _random(chance, depth - 1) for _ in range(chance.randrange(4))}
    return tuple(_random(chance, depth - 1) for _ in range(chance.randrange(3)))
