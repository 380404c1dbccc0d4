"""Pages over all shards, in order: each shard's own order stays, and of their first ones the first comes next.

A page's `next` says for each shard behind which of its pages to go on, and how much of the next one is used already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from streamq.errors import InvalidInput
from streamq.job import JobSnapshot, JobState
from streamq.listing import MOST_PER_PAGE, JobPage, Listings
from streamq.policy import whole
from streamq.sharding.parts import ShardParts

if TYPE_CHECKING:
    from streamq.queue import Queue

PAGE = 500
"""Jobs that are read at a time where many are to be skipped."""
_NEVER = datetime.fromtimestamp(0, UTC)
_Place = tuple[str, int] | None
"""Where a shard's page begins, "" at its first, and how many of its jobs are used; None: all are."""
_cursors = msgspec.json.Decoder(list[_Place])


class ShardedListings(ShardParts, Listings):
    """Pages of jobs."""

    async def jobs(
        self,
        state: JobState,
        start: int | str = 0,
        count: int = 50,
        *,
        newest_first: bool = False,
        name: str | None = None,
    ) -> JobPage:
        shards = await self._open()
        if len(shards) == 1:
            return await shards[0].jobs(state, start, count, newest_first=newest_first, name=name)
        if state not in list(JobState):
            raise InvalidInput(f"state must be one of {', '.join(JobState)}, not {state!r}")
        whole("count", count, low=1, high=MOST_PER_PAGE)
        places: list[_Place] = _read(start, len(shards)) if isinstance(start, str) else [("", 0)] * len(shards)
        skip = 0 if isinstance(start, str) else whole("start", start, low=0, high=10**9)
        order = _order(JobState(state))

        async def page(shard: Queue, place: _Place, wanted: int) -> JobPage:
            if place is None:
                return JobPage([], None)
            most = min(place[1] + wanted, MOST_PER_PAGE)
            return await shard.jobs(state, place[0] or 0, most, newest_first=newest_first, name=name)

        found: list[JobSnapshot] = []
        while True:
            wanted = min(skip, PAGE) or count - len(found)
            pages = await asyncio.gather(*(page(s, p, wanted) for s, p in zip(shards, places, strict=True)))
            before = places
            part, places = _merge(pages, places, wanted, order, newest_first=newest_first)
            if skip:
                skip -= len(part)
            else:
                found += part
            done = places == [None] * len(shards)
            if done or len(found) >= count or (not part and (name is not None or places == before)):
                return JobPage(found, None if done else msgspec.json.encode(places).decode())


def _merge(
    pages: list[JobPage], places: list[_Place], wanted: int, order: Callable[[JobSnapshot], Any], *, newest_first: bool
) -> tuple[list[JobSnapshot], list[_Place]]:
    """Take up to `wanted` jobs off the pages, in order; a page that ends while its shard has more ends this, too."""
    used = [0 if place is None else place[1] for place in places]
    found: list[JobSnapshot] = []
    pick = max if newest_first else min
    while len(found) < wanted:
        heads = [
            (order(page[at]), shard) for shard, (page, at) in enumerate(zip(pages, used, strict=True)) if at < len(page)
        ]
        if not heads or any(at >= len(page) and page.next for page, at in zip(pages, used, strict=True)):
            break
        _, shard = pick(heads)
        found.append(pages[shard][used[shard]])
        used[shard] += 1
    after: list[_Place] = []
    for page, at, place in zip(pages, used, places, strict=True):
        if place is None or (at >= len(page) and page.next is None):
            after.append(None)
        elif at >= len(page) and page.next is not None:
            after.append((page.next, at - len(page)))
        else:
            after.append((place[0], at))
    return found, after


def _order(state: JobState) -> Callable[[JobSnapshot], Any]:
    """Return by what jobs of a state are in order."""
    if state.ended:
        return lambda job: job.finished_at or _NEVER
    if state is JobState.DELAYED:
        return lambda job: job.run_at or _NEVER
    return lambda job: (job.priority, job.created_at or _NEVER)


def _read(cursor: str, shards: int) -> list[_Place]:
    try:
        places = _cursors.decode(cursor)
    except (msgspec.DecodeError, UnicodeEncodeError):
        places = []
    if len(places) != shards:
        raise InvalidInput(f"start must be a number or a page's next, not {cursor[:60]!r}")
    return places
