"""What a queue did minute by minute, for charts. `Queue` inherits this; nothing here changes anything.

Workers' ticks count in Redis (`docs/keys.md`, `:minutes`), so the figures are of all workers, and outlive them.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from streamq._engine import keys
from streamq.operations import QueueParts
from streamq.policy import Seconds, seconds

MOST_SECONDS = 86_400.0
_COUNTERS = ("minute", "minute_c", "minute_f", "minute_r", "minute_s")


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """One minute of a queue.

    Attributes:
        at: When it began, by the server's clock.
        completed, failed: Jobs that ended in it; failed ones for good.
        retried: Attempts that failed and are repeated.
        stalled: Jobs that were taken back from lost workers.
        held: Jobs that waited or ran at its end; None while it runs.
        delayed: Delayed jobs at its end; None while it runs.
    """

    at: datetime
    completed: int
    failed: int
    retried: int
    stalled: int
    held: int | None = None
    delayed: int | None = None


class Minutes(QueueParts):
    """Looks at the last hours."""

    async def minutes(self, over: Seconds = 3_600.0) -> list[Minute]:
        """Return the minutes of the last `over` seconds (a day at most), oldest first, the running one last.

        A minute in which no worker ticked is left out.

        Raises:
            InvalidInput: `over` makes no sense.
        """
        span = seconds("over", over, low=60.0, high=MOST_SECONDS)
        start_ms = round(await self._store.now_ms() // 1000 * 1000 - span * 1000)
        found = await self._store.command("XRANGE", keys.minutes(self._store.base), start_ms, "+")
        minutes = [_closed(entry.decode(), dict(zip(f[::2], f[1::2], strict=True))) for entry, f in found]
        number, *counts = await self._store.command("HMGET", keys.meta(self._store.base), *_COUNTERS)
        if number is not None and int(number) * 60_000 >= start_ms:
            completed, failed, retried, stalled = (int(count or 0) for count in counts)
            minutes.append(
                Minute(
                    at=_moment(int(number) * 60_000),
                    completed=completed,
                    failed=failed,
                    retried=retried,
                    stalled=stalled,
                )
            )
        return minutes


def _closed(entry: str, fields: dict[bytes, bytes]) -> Minute:
    return Minute(
        at=_moment(int(entry.partition("-")[0])),
        completed=int(fields[b"c"]),
        failed=int(fields[b"f"]),
        retried=int(fields[b"r"]),
        stalled=int(fields[b"s"]),
        held=int(fields[b"w"]),
        delayed=int(fields[b"d"]),
    )


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
