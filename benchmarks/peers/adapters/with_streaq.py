"""streaq (client: coredis): concurrency as given, uvloop, pickle and results for five minutes (defaults)."""

from __future__ import annotations

from typing import Any

from kit import HOUR, Adapter, gate, job, main
from streaq import Worker


class Streaq(Adapter):
    def make(self) -> None:
        self.peer = Worker(
            redis_url=self.url, concurrency=self.concurrency, handle_signals=False, anyio_kwargs={"use_uvloop": True}
        )

        @self.peer.task(name="noop")
        async def noop(data: dict[str, Any]) -> None:
            await job(data)

        self.noop = noop

    async def connect(self) -> None:
        self.make()
        await self.peer.__aenter__()

    async def add(self, data: Any) -> None:
        await self.noop.enqueue(data)

    async def add_delayed(self, data: Any) -> None:
        await self.noop.enqueue(data).start(delay=HOUR)

    async def add_many(self, many: list[Any]) -> None:
        await self.peer.enqueue_many([self.noop.enqueue(data) for data in many])

    async def close(self) -> None:
        await self.peer.__aexit__(None, None, None)

    def worker(self) -> None:
        self.make()
        gate()
        self.peer.run_sync()


if __name__ == "__main__":
    main(Streaq)
