"""What operators do to a queue with shards, and to single jobs, keys and flows of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from streamq._engine.operators import UNCHANGED, Unchanged
from streamq.errors import InvalidInput
from streamq.events import Event
from streamq.fairness import Fairness, KeyList, KeySnapshot, check_key
from streamq.flow import ChildEnd, FlowNode
from streamq.flows import Flows
from streamq.job import JobSnapshot
from streamq.operations import Operations
from streamq.overview import StepsSnapshot
from streamq.policy import Priority, RateLimit, Seconds, whole
from streamq.results import Results
from streamq.sharding.parts import ShardParts
from streamq.sharding.shares import limit_shares, rate_shares

PAGE_KEYS = 10_000


class ShardedOperations(ShardParts, Operations, Results):
    """Operations on the queue, by all shards, and on one job, by its own."""

    async def pause(self) -> None:
        await self._of_all(lambda shard: shard.pause())

    async def resume(self) -> None:
        await self._of_all(lambda shard: shard.resume())

    async def set_rate_limit(self, limit: RateLimit | None) -> None:
        if limit is not None and not isinstance(limit, RateLimit):
            raise InvalidInput(f"limit must be a RateLimit or None, not {limit!r}")
        shards = await self._open()
        given = dict(zip(shards, rate_shares(limit, len(shards)), strict=True))
        await self._of_all(lambda shard: shard.set_rate_limit(given[shard]))

    async def set_concurrency(self, limit: int | None) -> None:
        shares = await self._shares("concurrency", limit, 1_000_000)
        await self._of_all(lambda shard: shard.set_concurrency(shares[shard]))

    async def set_max_size(self, most: int | None) -> None:
        shares = await self._shares("max_size", most, 1_000_000_000)
        await self._of_all(lambda shard: shard.set_max_size(shares[shard]))

    async def _shares(self, what: str, limit: int | None, high: int) -> dict[Any, int | None]:
        shards = await self._open()
        if limit is None:
            return dict.fromkeys(shards)
        split = limit_shares(what, whole(what, limit, low=1, high=high), len(shards))
        return dict(zip(shards, split, strict=True))

    async def get_job(self, job_id: str) -> JobSnapshot | None:
        return await (await self._of(job_id)).get_job(job_id)

    async def result(self, job_id: str, timeout: Seconds | None = None) -> Any:
        return await (await self._of(job_id)).result(job_id, timeout)

    async def retry(self, job_id: str) -> None:
        await (await self._of(job_id)).retry(job_id)

    async def remove(self, job_id: str, *, force: bool = False) -> bool:
        return await (await self._of(job_id)).remove(job_id, force=force)

    async def cancel(self, job_id: str, reason: str = "") -> bool:
        return await (await self._of(job_id)).cancel(job_id, reason)

    async def promote(self, job_id: str) -> None:
        await (await self._of(job_id)).promote(job_id)

    async def reschedule(self, job_id: str, *, delay: Seconds | None = None, run_at: datetime | None = None) -> None:
        await (await self._of(job_id)).reschedule(job_id, delay=delay, run_at=run_at)

    async def change_priority(self, job_id: str, priority: Priority) -> None:
        await (await self._of(job_id)).change_priority(job_id, priority)

    async def update_data(self, job_id: str, data: Any) -> None:
        await (await self._of(job_id)).update_data(job_id, data)

    async def logs(self, job_id: str, start: int = 0, count: int = 100) -> list[str]:
        return await (await self._of(job_id)).logs(job_id, start, count)

    async def follow_logs(self, job_id: str, start: int = 0) -> AsyncGenerator[str, None]:
        shard = await self._of(job_id)
        async with aclosing(shard.follow_logs(job_id, start)) as lines:
            async for line in lines:
                yield line

    async def history(self, job_id: str, since: datetime | None = None) -> list[Event]:
        return await (await self._of(job_id)).history(job_id, since)

    async def steps(self, job_id: str) -> StepsSnapshot:
        return await (await self._of(job_id)).steps(job_id)


class ShardedFlows(ShardParts, Flows):
    """Looks at flows and moves of them: all of a flow's jobs are in one shard."""

    async def flow(self, job_id: str, *, depth: int = 10, width: int = 100, most: int = 1_000) -> FlowNode:
        return await (await self._of(job_id)).flow(job_id, depth=depth, width=width, most=most)

    async def children(self, job_id: str, start: int = 1, count: int = 100) -> list[ChildEnd]:
        return await (await self._of(job_id)).children(job_id, start, count)

    async def retry_flow(self, job_id: str) -> list[str]:
        return await (await self._of(job_id)).retry_flow(job_id)

    async def cancel_flow(self, job_id: str, reason: str = "") -> list[str]:
        return await (await self._of(job_id)).cancel_flow(job_id, reason)


class ShardedFairness(ShardParts, Fairness):
    """Operations on keys: each key is in one shard, what holds for all keys is set in all."""

    async def limit_key(
        self,
        key: str | None = None,
        *,
        concurrency: int | Unchanged | None = UNCHANGED,
        rate: RateLimit | Unchanged | None = UNCHANGED,
        weight: int | Unchanged | None = UNCHANGED,
    ) -> None:
        if key is None:
            await self._of_all(lambda shard: shard.limit_key(None, concurrency=concurrency, rate=rate, weight=weight))
            return
        shard = await self._of_key(check_key(key))
        await shard.limit_key(key, concurrency=concurrency, rate=rate, weight=weight)

    async def pause_key(self, key: str) -> None:
        await (await self._of_key(check_key(key))).pause_key(key)

    async def resume_key(self, key: str) -> None:
        await (await self._of_key(check_key(key))).resume_key(key)

    async def keys(self, limit: int = 100, skip: int = 0) -> KeyList:
        whole("limit", limit, low=1, high=10_000)
        needed = whole("skip", skip, low=0, high=1_000_000_000) + limit
        lists = await self._of_all(lambda shard: _first_keys(shard, needed))
        found = sorted((key for keys in lists for key in keys), key=lambda key: -key.jobs)
        return KeyList(found[skip : skip + limit], sum(keys.total for keys in lists), lists[0].limits)

    async def get_key(self, key: str) -> KeySnapshot:
        return await (await self._of_key(check_key(key))).get_key(key)


async def _first_keys(shard: Fairness, number: int) -> KeyList:
    found = await shard.keys(min(number, PAGE_KEYS))
    while len(found) < min(number, found.total):
        page = await shard.keys(min(number - len(found), PAGE_KEYS), len(found))
        if not page:
            break
        found.extend(page)
    return found
