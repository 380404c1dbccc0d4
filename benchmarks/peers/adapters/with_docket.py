"""docket: concurrency as given; execution records kept for 15 minutes (default); `minimum_check_interval` 10 ms (by
default 250 ms, slept whenever all slots are full); enough connections for the concurrency."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from docket import Docket, Worker
from kit import HOUR, Adapter, gate, job, main, run


async def noop(data: dict[str, Any]) -> None:
    await job(data)


class Peer(Adapter):
    def make(self) -> Docket:
        return Docket(name="bench", url=self.url + "?max_connections=1000")

    async def connect(self) -> None:
        self.docket = self.make()
        await self.docket.__aenter__()
        self.docket.register(noop)

    async def add(self, data: Any) -> None:
        await self.docket.add(noop)(data)

    async def add_delayed(self, data: Any) -> None:
        await self.docket.add(noop, when=datetime.now(UTC) + timedelta(seconds=HOUR))(data)

    async def add_many(self, many: list[Any]) -> None:
        await self.docket.add_many([self.docket.call(noop)(data) for data in many])

    async def close(self) -> None:
        await self.docket.__aexit__(None, None, None)

    def worker(self) -> None:
        async def work() -> None:
            async with self.make() as docket:
                docket.register(noop)
                every = timedelta(milliseconds=10)
                async with Worker(docket, concurrency=self.concurrency, minimum_check_interval=every) as worker:
                    await worker.run_forever()

        gate()
        run(work())


if __name__ == "__main__":
    main(Peer)
