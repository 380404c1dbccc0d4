"""What operators have set for a queue, carried over to another number of shards: limits, pause, and settings of keys.

All is read and split before anything is written. New shards get theirs before the number is stored, those of before
theirs afterwards: a change that breaks off before the number is stored has changed nothing that is in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from streamq._engine.shards import home, word_of
from streamq.errors import InvalidInput
from streamq.fairness import KeyLimits, KeySnapshot
from streamq.policy import RateLimit
from streamq.sharding.overview import sum_limits
from streamq.sharding.shares import limit_shares, rate_shares

if TYPE_CHECKING:
    from streamq.queue import Queue

PAGE = 1_000
NAMED = 5
"""Keys that an error names at most."""
_NOTHING = KeyLimits(rate=None, concurrency=None, weight=None)


class Move(NamedTuple):
    """A key with settings of its own, and the shards that it leaves and goes to."""

    key: KeySnapshot
    before: int
    after: int


class Carried(NamedTuple):
    """What each shard gets, and which keys' settings move."""

    paused: bool
    rates: Sequence[RateLimit | None]
    concurrencies: Sequence[int | None]
    sizes: Sequence[int | None]
    of_all_keys: KeyLimits
    moves: Sequence[Move]

    async def set_in(self, shards: Sequence[Queue], places: Iterable[int]) -> None:
        """Set what holds for the whole queue in some shards anew, and lift there what is left of an earlier time."""
        await asyncio.gather(*(self._set(shards[at], at) for at in places))

    async def _set(self, shard: Queue, at: int) -> None:
        await shard._store.limit(self.rates[at], self.concurrencies[at])
        await shard._store.max_size(self.sizes[at])
        await _set_key(shard, None, self.of_all_keys)
        await (shard.pause() if self.paused else shard.resume())

    async def set_keys(self, shards: Sequence[Queue]) -> None:
        """Set the settings of keys where they go to."""
        for move in self.moves:
            shard, key = shards[move.after], move.key
            await _set_key(shard, key.key, key.limits)
            await (shard.pause_key(key.key) if key.paused else shard.resume_key(key.key))

    async def lift_keys(self, shards: Sequence[Queue]) -> None:
        """Lift the settings of keys where they were."""
        for move in self.moves:
            await _set_key(shards[move.before], move.key.key, _NOTHING)
            await shards[move.before].resume_key(move.key.key)


async def read_settings(shards: Sequence[Queue], number: int) -> Carried:
    """Read what is set in the shards that there are, and split it over another number of them.

    Raises:
        InvalidInput: A limit can't be split over so many, or a key that has settings of its own has jobs, too, which
            would be in another shard than those to come.
    """
    limits = sum_limits(await asyncio.gather(*(shard.limits() for shard in shards)))
    first = await shards[0].keys(1)

    def split(what: str, limit: int | None) -> Sequence[int | None]:
        return [None] * number if limit is None else limit_shares(what, limit, number)

    carried = Carried(
        paused=limits.paused,
        rates=rate_shares(limits.rate, number),
        concurrencies=split("concurrency", limits.concurrency),
        sizes=split("max_size", limits.max_size),
        of_all_keys=first.limits,
        moves=[move for at, shard in enumerate(shards) for move in await _moves(shard, at, len(shards), number)],
    )
    held = [move.key.key for move in carried.moves if move.key.jobs]
    if held:
        named = ", ".join(map(repr, held[:NAMED])) + (" …" if len(held) > NAMED else "")
        raise InvalidInput(
            f"queue {shards[0].name} can't go over to {number} shards: jobs of {len(held):,} keys that have limits or "
            f"a pause of their own would be in another shard than those to come ({named}): let them end, or lift what "
            "is set for these keys"
        )
    return carried


async def _moves(shard: Queue, at: int, before: int, number: int) -> list[Move]:
    """Return the keys with settings that a shard is the home of, and that have another one among `number`."""
    found: dict[str, Move] = {}
    skip = 0
    while True:
        page = await shard.keys(PAGE, skip)
        for key in page:
            word = word_of(key=key.key)
            after = home(word, number)
            if (key.paused or key.limits != _NOTHING) and home(word, before) == at != after:
                found[key.key] = Move(key, at, after)
        if len(page) < PAGE:
            return list(found.values())
        skip += PAGE // 2  # pages overlap, since keys change their places meanwhile


async def _set_key(shard: Queue, key: str | None, limits: KeyLimits) -> None:
    await shard.limit_key(key, concurrency=limits.concurrency, rate=limits.rate, weight=limits.weight)
