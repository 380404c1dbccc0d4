"""Dead letters of a queue with shards: in the order of their ids, `<ms>-<number>#<shard>` (shard 0 is left out)."""

from __future__ import annotations

import asyncio
import heapq
import inspect
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from streamq.bulk import Progress
from streamq.dead_letters import (
    MOST_PER_PAGE,
    DeadHandler,
    DeadLetter,
    DeadLetters,
    LetterPage,
    Redriven,
    Target,
    Watch,
)
from streamq.errors import InvalidInput
from streamq.policy import whole
from streamq.sharding.parts import ShardParts
from streamq.sharding.shares import SummedProgress

_LETTER = re.compile(r"([0-9]{1,20})-([0-9]{1,20})(?:#([0-9]{1,2}))?")
_LAST = 2**64 - 1


class _Watches(Watch):
    """Those of all shards, as one."""

    def __init__(self, watches: list[Watch]) -> None:
        self._watches = watches

    async def stop(self) -> None:
        """End them; a handler that is running is cancelled."""
        await asyncio.gather(*(watch.stop() for watch in self._watches))


class ShardedLetters(ShardParts, DeadLetters):
    """Operations on dead letters."""

    async def dead_letters(
        self, start: str | None = None, count: int = 50, *, newest_first: bool = False
    ) -> LetterPage:
        whole("count", count, low=1, high=MOST_PER_PAGE)
        shards = await self._open()
        after = None if start is None else _parts(start)
        pages = await asyncio.gather(
            *(
                shard.dead_letters(_behind(after, at, newest_first), count, newest_first=newest_first)
                for at, shard in enumerate(shards)
            )
        )
        named = [[named_letter(letter, at) for letter in page] for at, page in enumerate(pages)]
        merged = list(heapq.merge(*named, key=lambda letter: _parts(letter.id), reverse=newest_first))
        more = len(merged) > count or any(page.next is not None for page in pages)
        return LetterPage(merged[:count], merged[count - 1].id if more else None)

    async def redrive(
        self,
        letter: str | DeadLetter | None = None,
        *,
        everything: bool = False,
        name: str | None = None,
        error_type: str | None = None,
        to: Target | None = None,
        on_progress: Progress | None = None,
    ) -> Redriven:
        ids: list[str] = []
        stayed, told = 0, SummedProgress(on_progress)
        for shard, own in self._picked(await self._open(), letter):
            done = await shard.redrive(
                own, everything=everything, name=name, error_type=error_type, to=to, on_progress=told.begin()
            )
            ids += done.job_ids
            stayed += done.stayed
        return Redriven(ids, stayed)

    async def purge_dead(
        self,
        letter: str | DeadLetter | None = None,
        *,
        everything: bool = False,
        name: str | None = None,
        error_type: str | None = None,
        on_progress: Progress | None = None,
    ) -> int:
        gone, told = 0, SummedProgress(on_progress)
        for shard, own in self._picked(await self._open(), letter):
            gone += await shard.purge_dead(
                own, everything=everything, name=name, error_type=error_type, on_progress=told.begin()
            )
        return gone

    def _picked(self, shards: Any, letter: str | DeadLetter | None) -> Iterator[tuple[Any, str | None]]:
        """Return the shards that a call concerns, each with the letter's id as it knows it."""
        if letter is None:
            yield from ((shard, None) for shard in shards)
            return
        ms, number, at = _parts(letter.id if isinstance(letter, DeadLetter) else letter)
        if at < len(shards):
            yield shards[at], f"{ms}-{number}"

    async def on_dead(self, handler: DeadHandler, after: str | None = None) -> Watch:
        position = None if after is None else _parts(after)
        shards = await self._open()
        if position is not None and len(shards) > 1:
            raise InvalidInput(
                f"on_dead can't go on behind a letter of queue {self.name}: its {len(shards)} shards write theirs in "
                "no common order; call it without after, and page through dead_letters() for those of before"
            )
        one_at_a_time = asyncio.Lock()

        def telling(at: int) -> DeadHandler:
            async def tell(letter: DeadLetter) -> None:
                async with one_at_a_time:
                    answer = handler(named_letter(letter, at))
                    if inspect.isawaitable(answer):
                        await answer

            return tell

        watches: list[Watch] = []
        try:
            for at, shard in enumerate(shards):
                watches.append(await shard.on_dead(telling(at), _behind(position, at, newest_first=False)))
        except BaseException:
            await _Watches(watches).stop()
            raise
        return _Watches(watches)


def named_letter(letter: DeadLetter, shard: int) -> DeadLetter:
    """Return a shard's letter under the id that it has in the whole queue."""
    return msgspec.structs.replace(letter, id=f"{letter.id}#{shard}") if shard else letter


def _parts(letter: str) -> tuple[int, int, int]:
    found = _LETTER.fullmatch(letter) if isinstance(letter, str) else None
    if found is None:
        raise InvalidInput(f"a dead letter's id looks like 1790000000000-0#3, not {letter!r}")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def _behind(after: tuple[int, int, int] | None, shard: int, newest_first: bool) -> str | None:
    """Return behind which letter of its own a shard goes on, where the whole goes on behind `after`."""
    if after is None:
        return None
    ms, number, last = after
    if newest_first:
        return f"{ms}-{number + 1}" if shard < last else f"{ms}-{number}"
    if shard <= last:
        return f"{ms}-{number}"
    return f"{ms}-{number - 1}" if number else f"{max(ms - 1, 0)}-{_LAST}"
