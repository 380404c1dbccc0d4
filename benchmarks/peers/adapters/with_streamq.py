"""streamq with its defaults."""

from __future__ import annotations

from typing import Any

from kit import HOUR, Adapter, gate, job, main, run

from streamq import ActiveJob, Processors, Queue, Worker


class Streamq(Adapter):
    """streamq's side of the comparison."""

    async def connect(self) -> None:
        self.queue = Queue("bench", self.url)

    async def add(self, data: Any) -> None:
        await self.queue.add("noop", data)

    async def add_delayed(self, data: Any) -> None:
        await self.queue.add("noop", data, delay=HOUR)

    async def add_many(self, many: list[Any]) -> None:
        await self.queue.add_many([("noop", data) for data in many])

    async def close(self) -> None:
        await self.queue.close()

    def worker(self) -> None:
        processors = Processors()

        @processors.register("noop")
        async def noop(active: ActiveJob[Any]) -> None:
            await job(active.data)

        async def work() -> None:
            await Worker("bench", processors, redis=self.url, concurrency=self.concurrency).run()

        gate()
        run(work())


if __name__ == "__main__":
    main(Streamq)
