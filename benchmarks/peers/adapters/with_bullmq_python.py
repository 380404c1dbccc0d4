"""BullMQ's Python port: concurrency as given; completed jobs kept (default); addBulk for bulk."""

from __future__ import annotations

import asyncio
from typing import Any

from bullmq import Queue, Worker
from kit import HOUR, Adapter, gate, job, main, run


class Bull(Adapter):
    async def connect(self) -> None:
        self.queue = Queue("bench", {"connection": self.url})

    async def add(self, data: Any) -> None:
        await self.queue.add("noop", data)

    async def add_delayed(self, data: Any) -> None:
        await self.queue.add("noop", data, {"delay": HOUR * 1000})

    async def add_many(self, many: list[Any]) -> None:
        await self.queue.addBulk([{"name": "noop", "data": data, "opts": {}} for data in many])

    async def close(self) -> None:
        await self.queue.close()

    def worker(self) -> None:
        async def noop(active: Any, token: str) -> None:
            await job(active.data)

        async def work() -> None:
            worker = Worker("bench", noop, {"connection": self.url, "concurrency": self.concurrency})
            await asyncio.Event().wait()
            await worker.close()

        gate()
        run(work())


if __name__ == "__main__":
    main(Bull)
