"""streaq (client: coredis): a task is taken back when it has been idle for `idle_timeout`."""

from __future__ import annotations

from typing import Any

from kit import CONCURRENCY, LEASE, URL, Adapter, job, main, ready
from streaq import Worker


class Streaq(Adapter):
    def __init__(self) -> None:
        self.peer = Worker(redis_url=URL, concurrency=CONCURRENCY, idle_timeout=LEASE)

        @self.peer.task(name="work", max_tries=None)
        async def work(data: dict[str, Any]) -> None:
            await job(data)

        self.work = work

    async def connect(self) -> None:
        await self.peer.__aenter__()

    async def add(self, data: Any) -> None:
        await self.work.enqueue(data)

    def worker(self) -> None:
        ready()
        self.peer.run_sync()


if __name__ == "__main__":
    main(Streaq)
