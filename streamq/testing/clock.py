"""Time travel: the server's clock, as the scripts read it, moved while a test runs.

Scripts ask the server what time it is, in one place (`lua/lib/clock.lua`). Under `time_travel` this process sends
scripts whose clock adds an offset: other scripts for the server, under other digests. So nothing of production looks
for an offset anywhere, other processes are not moved, and nothing is left in Redis.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from streamq._engine import scripts
from streamq._engine.scripts import Script
from streamq._engine.store import Store
from streamq.errors import InvalidInput
from streamq.policy import Seconds, seconds

_SERVER_TIME = "return tonumber(time[1]) * 1000"
"""How `lua/lib/clock.lua` tells the time."""


class Clock:
    """How far this process's queues and workers have travelled. Starts at now and goes on by itself."""

    def __init__(self, load: Callable[..., Script]) -> None:
        self._load = load
        self._offset_ms = 0
        self._moved: dict[tuple[str, bool, int], Script] = {}

    @property
    def offset(self) -> float:
        """Seconds that the clock is ahead of the server's."""
        return self._offset_ms / 1000

    def now(self) -> datetime:
        """Return the travelled time by this machine's clock: for a `run_at`, say."""
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.offset, UTC)

    def advance(self, by: Seconds) -> None:
        """Go on by so many seconds, or a timedelta. What falls due runs with the next `drain`.

        A worker that runs meanwhile notices at its next tick, which may be seconds away.

        Raises:
            InvalidInput: It is less than nothing, or over ten years.
        """
        self._offset_ms += round(seconds("the time to advance by", by) * 1000)

    def travel_to(self, at: datetime) -> None:
        """Go on to a moment of the future, an aware datetime.

        Raises:
            InvalidInput: It is naive, past, or over ten years away: jobs never run backwards.
        """
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise InvalidInput(f"travel_to takes a datetime with a time zone, not {at!r}")
        self.advance(at - self.now())

    def load(self, name: str, *, plain: bool = False) -> Script:
        """Return a script with the moved clock in place."""
        if not self._offset_ms:
            return self._load(name, plain=plain)
        key = name, plain, self._offset_ms
        if key not in self._moved:
            body = self._load(name, plain=plain).body.replace(_SERVER_TIME, f"{_SERVER_TIME} + {self._offset_ms}", 1)
            self._moved[key] = Script(name, body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())
        return self._moved[key]


@contextmanager
def time_travel() -> Iterator[Clock]:
    """Let the queues and workers of this process go by a clock that can be moved, until the block ends.

    What Redis itself times out stays: the TTLs in `docs/keys.md`, and the moments in the ids of events.
    """
    load, now_ms = scripts.load, Store.now_ms
    clock = Clock(load)

    async def travelled(store: Store) -> int:
        return await now_ms(store) + round(clock.offset * 1000)

    scripts.load, Store.now_ms = clock.load, travelled  # type: ignore[assignment, method-assign]
    try:
        yield clock
    finally:
        scripts.load, Store.now_ms = load, now_ms  # type: ignore[method-assign]
