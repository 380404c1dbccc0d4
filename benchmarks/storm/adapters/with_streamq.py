"""streamq: defaults, but for the lease and the limit of stalls."""

from __future__ import annotations

import asyncio
from typing import Any

from kit import CONCURRENCY, LEASE, MANY, URL, Adapter, job, main, ready

from streamq import ActiveJob, Processors, Queue, Settings, Worker


class Streamq(Adapter):
    async def connect(self) -> None:
        self.queue = Queue("storm", URL)

    async def add(self, data: Any) -> None:
        await self.queue.add("work", data)

    def worker(self) -> None:
        processors = Processors()

        @processors.register("work")
        async def work(active: ActiveJob[Any]) -> None:
            await job(active.data)

        async def serve() -> None:
            settings = Settings(redis_url=URL, lease=float(LEASE), max_stalls=MANY)
            ready()
            await Worker("storm", processors, redis=URL, settings=settings, concurrency=CONCURRENCY).run()

        asyncio.run(serve())


if __name__ == "__main__":
    main(Streamq)
