"""BullMQ's Python port: a job whose lock has lapsed is moved back by the stalled check, so often as we allow."""

from __future__ import annotations

import asyncio
from typing import Any

from bullmq import Queue, Worker
from kit import CONCURRENCY, LEASE, MANY, URL, Adapter, job, main, ready


class Bull(Adapter):
    async def connect(self) -> None:
        self.queue = Queue("storm", {"connection": URL})

    async def add(self, data: Any) -> None:
        await self.queue.add("work", data)

    def worker(self) -> None:
        async def work(active: Any, token: str) -> None:
            await job(active.data)

        async def serve() -> None:
            options: Any = {
                "connection": URL, "concurrency": CONCURRENCY, "lockDuration": LEASE * 1000,
                "stalledInterval": LEASE * 1000, "maxStalledCount": MANY,
            }  # fmt: skip
            ready()
            Worker("storm", work, options)
            await asyncio.Event().wait()

        asyncio.run(serve())


if __name__ == "__main__":
    main(Bull)
