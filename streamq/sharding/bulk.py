"""Operations on many jobs of a queue with shards: shard after shard, each of them in its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from streamq.bulk import MOST, BulkOperations, Progress
from streamq.errors import InvalidInput, QueueBusy
from streamq.job import JobState
from streamq.operations import known_id
from streamq.policy import Seconds, whole
from streamq.sharding.parts import ShardParts
from streamq.sharding.shares import SummedProgress, by_turns


class ShardedBulk(ShardParts, BulkOperations):
    """Operations on many jobs. A limit is split evenly over shards that have enough."""

    async def clean(
        self,
        grace: Seconds = 0,
        limit: int | None = 1_000,
        state: JobState = JobState.COMPLETED,
        *,
        on_progress: Progress | None = None,
    ) -> list[str]:
        if limit is not None:
            whole("limit", limit, low=1, high=MOST)
        told = SummedProgress(on_progress)
        return await by_turns(
            await self._open(),
            limit,
            lambda shard, share: shard.clean(grace, share, state, on_progress=told.begin()),
        )

    async def drain(self, delayed: bool = False, *, on_progress: Progress | None = None) -> int:
        told = SummedProgress(on_progress)
        return sum([await shard.drain(delayed, on_progress=told.begin()) for shard in await self._open()])

    async def obliterate(self, force: bool = False, *, on_progress: Progress | None = None) -> int:
        shards = await self._open()
        stats = await asyncio.gather(*(shard.stats() for shard in shards))
        active = sum(found.active for found in stats)
        if active and not force:
            raise QueueBusy(self.name, active)
        told = SummedProgress(on_progress, sum(found.total for found in stats))
        return sum([await shard.obliterate(force, on_progress=told.begin()) for shard in shards])

    async def retry_many(
        self,
        state: JobState = JobState.FAILED,
        count: int | None = None,
        *,
        name: str | None = None,
        error_type: str | None = None,
        on_progress: Progress | None = None,
    ) -> list[str]:
        if count is not None:
            whole("count", count, low=1, high=MOST)
        told = SummedProgress(on_progress)
        return await by_turns(
            await self._open(),
            count,
            lambda shard, share: shard.retry_many(
                state, share, name=name, error_type=error_type, on_progress=told.begin()
            ),
        )

    async def cancel_many(
        self,
        state: JobState | None = None,
        count: int | None = None,
        *,
        ids: Iterable[str] | None = None,
        name: str | None = None,
        reason: str = "",
        on_progress: Progress | None = None,
    ) -> list[str]:
        shards = await self._open()
        if ids is None or state is not None or count is not None or name is not None:
            if count is not None:
                whole("count", count, low=1, high=MOST)
            told = SummedProgress(on_progress)
            return await by_turns(
                shards if ids is None else shards[:1],  # which says what is wrong
                count,
                lambda shard, share: shard.cancel_many(
                    state, share, ids=ids, name=name, reason=reason, on_progress=told.begin()
                ),
            )
        if isinstance(ids, str):
            raise InvalidInput("ids must be several job ids, not one text")
        named = list(dict.fromkeys(known_id(job_id) for job_id in ids))
        told = SummedProgress(on_progress, len(named))
        parts: dict[int, list[str]] = {}
        for job_id, shard in zip(named, await asyncio.gather(*map(self._of, named)), strict=True):
            parts.setdefault(shards.index(shard), []).append(job_id)
        found = [
            job_id
            for at, part in parts.items()
            for job_id in await shards[at].cancel_many(ids=part, reason=reason, on_progress=told.begin())
        ]
        return sorted(found, key={job_id: at for at, job_id in enumerate(named)}.__getitem__)
