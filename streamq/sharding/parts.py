"""What the parts of a queue with shards stand on: its shards, and which of them a job is in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from streamq._engine.shards import home, shard_of_number, word_of
from streamq.operations import known_id

if TYPE_CHECKING:
    from streamq.queue import Queue

T = TypeVar("T")


class ShardParts:
    """What operations of a queue with shards work with; `ShardedQueue` has it."""

    async def _open(self) -> Sequence[Queue]:
        """Return the shards, once it is known that the queue has so many.

        Raises:
            WrongShards: It has another number. Nothing was changed.
        """
        raise NotImplementedError

    async def _of_all(self, call: Callable[[Queue], Awaitable[T]]) -> list[T]:
        """Call all shards at once and return their answers; if some fail, raise the first one's error at the end."""
        answers = await asyncio.gather(*(call(shard) for shard in await self._open()), return_exceptions=True)
        found: list[T] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found.append(answer)
        return found

    async def _of(self, job_id: str) -> Queue:
        """Return the shard that a job is in; if it is unknown, one that will say so.

        A generated id tells it. An id of somebody's own is looked for where a hash puts it, and then everywhere: a job
        with a key is where its key is, and one of before the number of shards was changed may be anywhere.
        """
        known_id(job_id)
        shards = await self._open()
        number = shard_of_number(job_id)
        if number is not None:
            return shards[number if number < len(shards) else 0]
        first = shards[home(word_of(own_id=job_id), len(shards))]
        if len(shards) == 1 or await first._store.get(job_id) is not None:
            return first
        found = await asyncio.gather(*(shard._store.get(job_id) for shard in shards))
        return next((shard for shard, stored in zip(shards, found, strict=True) if stored is not None), first)

    async def _of_key(self, key: str) -> Queue:
        """Return the shard that a key's jobs are in."""
        shards = await self._open()
        return shards[home(word_of(key=key), len(shards))]
