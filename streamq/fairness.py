"""Limits for each key of a queue, and how much a key gets when others wait too; see `docs/fairness.md`.

A job's key says whom it is for: a tenant, an account. `Queue` inherits this. Each call is one script.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from streamq._engine.key_limits import StoredKey, StoredLimits
from streamq._engine.operators import UNCHANGED, Unchanged
from streamq.errors import InvalidInput
from streamq.job import MAX_NAME, check_text
from streamq.operations import QueueParts
from streamq.policy import RateLimit, whole

MAX_WEIGHT = 1_000
MAX_CONCURRENCY = 1_000_000


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds a key's jobs back, and its weight; None where nothing is set."""

    rate: RateLimit | None
    concurrency: int | None
    weight: int | None


class KeySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A key at one moment.

    Attributes:
        key: Its name.
        jobs: How many of its jobs wait or run.
        parked: How many of those stand aside until it is their turn.
        paused: Whether it is paused.
        limits: What is set for this key alone.
    """

    key: str
    jobs: int
    parked: int
    paused: bool
    limits: KeyLimits


class KeyList(list[KeySnapshot]):
    """A list of keys. `total`: how many there are in all. `limits`: what holds for keys that have none of their own."""

    def __init__(self, keys: Iterable[KeySnapshot], total: int, limits: KeyLimits) -> None:
        super().__init__(keys)
        self.total, self.limits = total, limits


class Fairness(QueueParts):
    """Operations on the keys of a queue's jobs."""

    async def limit_key(
        self,
        key: str | None = None,
        *,
        concurrency: int | Unchanged | None = UNCHANGED,
        rate: RateLimit | Unchanged | None = UNCHANGED,
        weight: int | Unchanged | None = UNCHANGED,
    ) -> None:
        """Set how many jobs of a key may run at once, how many may start in a window, and how much it weighs.

        Without `key` this holds for every key that has none of its own. What is not given stays as it is; None lifts
        it, so that what is set for all keys holds, or nothing. `concurrency=1` keeps the order: each job of the key
        ends, its retries included, before the next one starts. A key of weight 3 gets three times as much as one of
        weight 1 (the default) where both have jobs waiting. Limits hold over all workers, from the next tick on.

        Raises:
            InvalidInput: A value makes no sense; nothing was sent.
        """
        if rate is not None and not isinstance(rate, RateLimit | Unchanged):
            raise InvalidInput(f"rate must be a RateLimit or None, not {rate!r}")
        if concurrency is not None and not isinstance(concurrency, Unchanged):
            whole("concurrency", concurrency, low=1, high=MAX_CONCURRENCY)
        if weight is not None and not isinstance(weight, Unchanged):
            whole("weight", weight, low=1, high=MAX_WEIGHT)
        await self._store.limit_key("" if key is None else check_key(key), rate, concurrency, weight)

    async def pause_key(self, key: str) -> None:
        """Let no worker start another job of this key. Running jobs go on. Survives restarts."""
        await self._store.pause_key(check_key(key))

    async def resume_key(self, key: str) -> None:
        """Undo `pause_key`."""
        await self._store.resume_key(check_key(key))

    async def keys(self, limit: int = 100, skip: int = 0) -> KeyList:
        """Return keys that have jobs waiting or running, or limits of their own: those with most jobs first."""
        whole("limit", limit, low=1, high=10_000)
        page = await self._store.keys("", whole("skip", skip, low=0, high=1_000_000_000), limit)
        return KeyList([_snapshot(found) for found in page.keys], page.total, _limits(page.limits))

    async def get_key(self, key: str) -> KeySnapshot:
        """Return one key, whether or not it is known."""
        page = await self._store.keys(check_key(key), 0, 1)
        return _snapshot(page.keys[0])


def check_key(key: str) -> str:
    """Return `key`; raise InvalidInput if no job can have it."""
    return check_text("key", key, MAX_NAME)


def _snapshot(found: StoredKey) -> KeySnapshot:
    return KeySnapshot(
        key=found.key,
        jobs=found.jobs,
        parked=max(found.jobs - found.places, 0),
        paused=found.paused,
        limits=_limits(found.limits),
    )


def _limits(found: StoredLimits) -> KeyLimits:
    return KeyLimits(rate=found.rate, concurrency=found.concurrency, weight=found.weight)
