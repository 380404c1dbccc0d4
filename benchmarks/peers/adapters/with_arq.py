"""arq: `max_jobs` is the concurrency; `poll_delay` 10 ms (by default 500 ms, which would cap rate and latency); results
kept for an hour (default)."""

from __future__ import annotations

from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker
from kit import HOUR, Adapter, gate, job, main, run


async def noop(ctx: Any, data: Any) -> None:
    await job(data)


class Arq(Adapter):
    async def connect(self) -> None:
        self.pool = await create_pool(RedisSettings.from_dsn(self.url))

    async def add(self, data: Any) -> None:
        await self.pool.enqueue_job("noop", data)

    async def add_delayed(self, data: Any) -> None:
        await self.pool.enqueue_job("noop", data, _defer_by=HOUR)

    async def close(self) -> None:
        await self.pool.aclose()

    def worker(self) -> None:
        async def work() -> None:
            await Worker(
                [noop], redis_settings=RedisSettings.from_dsn(self.url), max_jobs=self.concurrency, poll_delay=0.01,
                log_results=False, handle_signals=False,
            ).async_run()  # fmt: skip

        gate()
        run(work())


if __name__ == "__main__":
    main(Arq)
