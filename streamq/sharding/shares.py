"""What a whole allows, given out to its shards: numbers, rate limits, and counts that all are to reach together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from streamq.bulk import Progress
from streamq.errors import InvalidInput
from streamq.policy import RateLimit, Retention
from streamq.settings import Settings

P = TypeVar("P")
T = TypeVar("T")


def shares(whole: int, number: int) -> list[int]:
    """Split `whole` into `number` shares that differ by one at most, the greater ones first."""
    least, rest = divmod(whole, number)
    return [least + (at < rest) for at in range(number)]


def limit_shares(what: str, whole: int, number: int) -> list[int]:
    """Split a limit, so that every shard may do something.

    Raises:
        InvalidInput: There is less than one for each.
    """
    if whole < number:
        raise InvalidInput(f"{what} must be at least {number}, one for each shard, not {whole}")
    return shares(whole, number)


def rate_shares(rate: RateLimit | None, number: int) -> list[RateLimit | None]:
    """Split a rate limit, so that all shards together start no more than it allows.

    Raises:
        InvalidInput: There is less than one start for each in a window.
    """
    if rate is None:
        return [None] * number
    if rate.max < number:
        raise InvalidInput(
            f"a rate of {rate.max} per {rate.per_ms / 1000:g} s can't be split over {number} shards: give each at "
            f"least one start, in a window as much longer ({number} per {rate.per_ms / 1000 * number / rate.max:g} s)"
        )
    return [RateLimit(share, rate.per) for share in shares(rate.max, number)]


def settings_share(settings: Settings, number: int) -> Settings:
    """Return what one of so many shards goes by: what a queue keeps is split, rounded up."""

    def share(cap: int) -> int:
        return -(-cap // number)

    cancelled = settings.keep_cancelled
    return msgspec.structs.replace(
        settings,
        events_cap=share(settings.events_cap),
        dead_cap=share(settings.dead_cap),
        keep_cancelled=Retention(share(cancelled.count), cancelled.age),
    )


async def by_turns(
    shards: Sequence[P], limit: int | None, call: Callable[[P, int | None], Awaitable[list[T]]]
) -> list[T]:
    """Have shards do `limit` things in all (None: all there are), each its share and then what others left over."""
    found: list[T] = []
    if limit is None:
        for shard in shards:
            found += await call(shard, None)
        return found
    able = list(shards)
    while able and len(found) < limit:
        still: list[P] = []
        for shard, share in zip(able, shares(limit - len(found), len(able)), strict=True):
            if share:
                done = await call(shard, share)
                found += done
                if len(done) == share:
                    still.append(shard)
        able = still
    return found


class SummedProgress:
    """Adds up the progress of calls that each begin at nothing; `total` is that of all of them, if it is known."""

    def __init__(self, on_progress: Progress | None, total: int | None = None) -> None:
        self._on_progress, self._total, self._before, self._now = on_progress, total, 0, 0

    def begin(self) -> Progress:
        """Return what the next call is to tell."""
        self._before += self._now
        self._now = 0
        return self._tell

    def _tell(self, done: int, total: int | None) -> None:
        self._now = done
        if self._on_progress is not None:
            done += self._before
            self._on_progress(done, None if self._total is None else max(self._total, done))
