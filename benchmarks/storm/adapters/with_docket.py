"""docket: a task is redelivered when nobody has renewed it for `redelivery_timeout`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from docket import Docket, Worker
from kit import CONCURRENCY, LEASE, URL, Adapter, job, main, ready


async def work(data: dict[str, Any]) -> None:
    await job(data)


class Peer(Adapter):
    async def connect(self) -> None:
        self.docket = Docket(name="storm", url=URL)
        await self.docket.__aenter__()
        self.docket.register(work)

    async def add(self, data: Any) -> None:
        await self.docket.add(work)(data)

    def worker(self) -> None:
        async def serve() -> None:
            await self.connect()
            late = timedelta(seconds=LEASE)
            async with Worker(self.docket, concurrency=CONCURRENCY, redelivery_timeout=late) as worker:
                ready()
                await worker.run_forever()

        asyncio.run(serve())


if __name__ == "__main__":
    main(Peer)
