"""The transitions that concern keys of jobs: a method per script, as in `store`, which inherits them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from streamq._engine.operators import Unchanged
from streamq._engine.transitions import Arg
from streamq.policy import RateLimit


class StoredLimits(NamedTuple):
    """What is set for a key, or for all; None where nothing is."""

    rate: RateLimit | None
    concurrency: int | None
    weight: int | None

    @classmethod
    def read(cls, found: Sequence[bytes]) -> StoredLimits:
        """Read four fields: starts per window, its length in ms, jobs at once, weight."""
        rate_max, rate_ms, most, weight = (int(value) if value else None for value in found)
        rate = RateLimit(rate_max, rate_ms / 1000) if rate_max and rate_ms else None
        return cls(rate, most, weight)


class StoredKey(NamedTuple):
    """One key: how many of its jobs wait or run, how many of those have a place, what is set for it."""

    key: str
    jobs: int
    places: int
    limits: StoredLimits
    paused: bool


class KeysPage(NamedTuple):
    """The reply of `keys`: how many keys there are, what is set for all, and some of them."""

    total: int
    limits: StoredLimits
    keys: list[StoredKey]

    @classmethod
    def read(cls, reply: list[Any]) -> KeysPage:
        """Read the reply of `keys`."""
        total, common, *found = reply
        keys = [
            StoredKey(key.decode(errors="replace"), jobs, places, StoredLimits.read(own), bool(paused))
            for key, jobs, places, *own, paused in found
        ]
        return cls(total, StoredLimits.read(common), keys)


class KeyTransitions:
    """What operators do to keys. `Store` gives it the one point that all calls pass."""

    async def _repeat(self, name: str, args: Sequence[Arg], *, within: float | None = None) -> Any:
        raise NotImplementedError

    async def limit_key(
        self,
        key: str,
        rate: RateLimit | Unchanged | None,
        concurrency: int | Unchanged | None,
        weight: int | Unchanged | None,
    ) -> None:
        """Set the limits of one key, or of all ("") that have none of their own; None lifts a limit."""
        said: list[Arg] = ["", 0] if isinstance(rate, Unchanged) else ["0", 0]
        if isinstance(rate, RateLimit):
            said = [rate.max, rate.per_ms]
        rest = ["" if isinstance(value, Unchanged) else value or 0 for value in (concurrency, weight)]
        await self._repeat("limit_key", [key, *said, *rest])

    async def pause_key(self, key: str) -> bool:
        """Start none of a key's jobs; False if it was paused already."""
        return bool(await self._repeat("pause_key", [key]))

    async def resume_key(self, key: str) -> bool:
        """Start a key's jobs again; False if it was not paused."""
        return bool(await self._repeat("resume_key", [key]))

    async def keys(self, key: str, skip: int, count: int) -> KeysPage:
        """Read one key, or ("") some, those with most jobs first."""
        return KeysPage.read(await self._repeat("keys", [key, skip, count]))
