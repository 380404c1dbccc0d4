"""taskiq with taskiq-redis' RedisStreamBroker: no result backend and no trimming of its stream (defaults); as many
tasks at once and prefetched as the concurrency."""

from __future__ import annotations

from typing import Any

from kit import Adapter, gate, job, main, run
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker


class Taskiq(Adapter):
    def make(self) -> None:
        self.broker = RedisStreamBroker(self.url, max_connection_pool_size=200)

        @self.broker.task(task_name="noop")
        async def noop(data: dict[str, Any]) -> None:
            await job(data)

        self.noop = noop

    async def connect(self) -> None:
        self.make()
        await self.broker.startup()

    async def add(self, data: Any) -> None:
        await self.noop.kiq(data)

    async def close(self) -> None:
        await self.broker.shutdown()

    def worker(self) -> None:
        async def work() -> None:
            self.make()
            self.broker.is_worker_process = True
            await run_receiver_task(
                self.broker, max_async_tasks=self.concurrency, max_prefetch=self.concurrency, run_startup=True
            )

        gate()
        run(work())


if __name__ == "__main__":
    main(Taskiq)
