"""SAQ: a job is taken back when a sweep finds it past its `timeout`; `retries` counts such runs too."""

from __future__ import annotations

import asyncio
from typing import Any

from kit import CONCURRENCY, LEASE, MANY, URL, Adapter, job, main, ready
from saq import Queue, Worker

SWEEP = 60
"""Its default. Every five seconds is worse: sweeps overlap then, each of them sure that the jobs are its own."""


async def work(ctx: Any, *, data: Any) -> None:
    await job(data)


class Saq(Adapter):
    async def connect(self) -> None:
        self.queue = Queue.from_url(URL)
        await self.queue.connect()

    async def add(self, data: Any) -> None:
        await self.queue.enqueue("work", data=data, timeout=LEASE, retries=MANY)

    def worker(self) -> None:
        async def serve() -> None:
            ready()
            await Worker(
                Queue.from_url(URL),
                [work],
                concurrency=CONCURRENCY,
                timers={"sweep": SWEEP},
            ).start()

        asyncio.run(serve())


if __name__ == "__main__":
    main(Saq)
