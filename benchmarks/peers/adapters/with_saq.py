"""SAQ: concurrency as given; results kept for ten minutes (default); the worker may have 50 commands under way
(by default 20)."""

from __future__ import annotations

import time
from typing import Any

from kit import HOUR, Adapter, gate, job, main, run
from saq import Queue, Worker


async def noop(ctx: Any, *, data: Any) -> None:
    await job(data)


class Saq(Adapter):
    async def connect(self) -> None:
        self.queue = Queue.from_url(self.url)
        await self.queue.connect()

    async def add(self, data: Any) -> None:
        await self.queue.enqueue("noop", data=data)

    async def add_delayed(self, data: Any) -> None:
        await self.queue.enqueue("noop", data=data, scheduled=time.time() + HOUR)

    async def close(self) -> None:
        await self.queue.disconnect()

    def worker(self) -> None:
        async def work() -> None:
            queue = Queue.from_url(self.url, max_concurrent_ops=50)
            await Worker(queue, [noop], concurrency=self.concurrency).start()

        gate()
        run(work())


if __name__ == "__main__":
    main(Saq)
