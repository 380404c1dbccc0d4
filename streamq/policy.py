"""What happens to a job over its life, as plain values: priority, retry, backoff, retention, limits, batches.

Pure: nothing here does I/O or reads a clock. Each class refuses values that make no sense when it
is made, with the value's name and its limit, so that nothing bad gets as far as Redis.
"""

from __future__ import annotations

import enum
import math
import random
from datetime import timedelta

import msgspec

from streamq.errors import InvalidInput

Seconds = float | int | timedelta
"""A span of time as the public API takes it: seconds, or a `timedelta`."""

MAX_SECONDS = 10 * 366 * 86_400
"""The longest span that is accepted (ten years): past it a typing error is likelier than a plan."""


def seconds(name: str, value: Seconds, *, low: float = 0.0, high: float = MAX_SECONDS) -> float:
    """Return `value` in seconds; raise InvalidInput, naming it, if it is no number from `low` to `high`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or math.isnan(float(value) if isinstance(value, float) else 0)
    ):
        raise InvalidInput(f"{name} must be seconds (a number or a timedelta), not {value!r}")
    if not low <= value <= high:
        raise InvalidInput(f"{name} must be between {low:g} and {high:g} seconds, not {_shown(value)}")
    return float(value)


def whole(name: str, value: int, *, low: int, high: int) -> int:
    """Return `value`; raise InvalidInput, naming it, if it is no whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} must be a whole number, not {value!r}")
    if not low <= value <= high:
        raise InvalidInput(f"{name} must be between {low:,} and {high:,}, not {_shown(value)}")
    return value


def _shown(value: float) -> str:
    """Show a number; Python refuses to write out the longest ones."""
    return repr(value) if isinstance(value, float) or value.bit_length() < 1_000 else "a number of so many digits"


class Priority(enum.IntEnum):
    """The four lanes. A worker takes all of a lane before the next one; inside a lane, first come first served."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4


class Backoff(msgspec.Struct, frozen=True, array_like=True):
    """How long to wait before each retry. Make one with `fixed` or `exponential`.

    For rules that these two don't cover, give a processor its own function:
    `register(..., backoff=lambda attempt, error: seconds)`.
    """

    base: float = 5.0
    factor: float = 2.0
    max_delay: float = 3_600.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        seconds("backoff base", self.base)
        seconds("backoff max_delay", self.max_delay)
        if not (isinstance(self.factor, int | float) and 1 <= self.factor <= 1000):
            raise InvalidInput(f"backoff factor must be between 1 and 1000, not {self.factor!r}")
        if not (isinstance(self.jitter, int | float) and 0 <= self.jitter <= 1):
            raise InvalidInput(f"backoff jitter must be between 0 and 1 (a share of the delay), not {self.jitter!r}")

    @classmethod
    def fixed(cls, delay: Seconds, *, jitter: float = 0.0) -> Backoff:
        """Wait `delay` seconds before every retry."""
        wait = seconds("backoff delay", delay)
        return cls(wait, 1.0, wait, jitter)

    @classmethod
    def exponential(
        cls, base: Seconds, *, factor: float = 2.0, max_delay: Seconds = 3_600.0, jitter: float = 0.0
    ) -> Backoff:
        """Wait `base` seconds before the first retry, `factor` times longer before each next one, at most `max_delay`.

        `jitter` (0 to 1) takes up to that share of each delay away at random, so that jobs which failed
        together don't come back together.
        """
        return cls(seconds("backoff base", base), factor, seconds("backoff max_delay", max_delay), jitter)

    def delay(self, attempt: int, rand: random.Random | None = None) -> float:
        """Return the seconds to wait after failed attempt number `attempt` (1 is the first)."""
        try:
            wait = self.base * self.factor ** (attempt - 1)
        except OverflowError:
            wait = self.max_delay
        wait = min(wait, self.max_delay)
        if self.jitter:
            wait *= 1 - self.jitter * (rand or random).random()
        return wait


class Retention(msgspec.Struct, frozen=True, array_like=True):
    """How many ended jobs to keep, and for how long (seconds). `count=0` keeps none.

    Applied to a queue's ended jobs when one of them ends, with that job's retention, and by time
    afterwards, so that old ones go even when nothing new ends.
    """

    count: int = 100
    age: float = 86_400.0

    def __post_init__(self) -> None:
        whole("retention count", self.count, low=0, high=100_000_000)
        # timedelta in, seconds kept: the record that travels holds a plain number.
        msgspec.structs.force_setattr(self, "age", seconds("retention age", self.age))

    @property
    def age_ms(self) -> int:
        """The age in milliseconds, as the scripts take it."""
        return round(self.age * 1000)


class RateLimit(msgspec.Struct, frozen=True, array_like=True):
    """At most `max` job starts in any window of `per` seconds, over all workers of a queue."""

    max: int
    per: float = 1.0

    def __post_init__(self) -> None:
        whole("rate limit max", self.max, low=1, high=1_000_000)
        msgspec.structs.force_setattr(self, "per", seconds("rate limit per", self.per, low=0.001))

    @property
    def per_ms(self) -> int:
        """The window in milliseconds, as the scripts take it."""
        return round(self.per * 1000)


class Batch(msgspec.Struct, frozen=True):
    """Call a handler once with up to `size` jobs, gathered for at most `max_wait` seconds after the first."""

    size: int = 100
    max_wait: float = 0.1

    def __post_init__(self) -> None:
        whole("batch size", self.size, low=1, high=10_000)
        msgspec.structs.force_setattr(self, "max_wait", seconds("batch max_wait", self.max_wait, high=3_600))


KEEP_COMPLETED = Retention(count=100, age=86_400)
KEEP_FAILED = Retention(count=500, age=604_800)
KEEP_CANCELLED = Retention(count=500, age=604_800)
