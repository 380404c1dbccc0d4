"""arq: a job is taken back when its in-progress key has expired, ten seconds after `job_timeout`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker
from kit import CONCURRENCY, LEASE, MANY, URL, Adapter, job, main, ready
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError, TimeoutError


def settings() -> RedisSettings:
    retried: list[Any] = [ConnectionError, TimeoutError]
    return replace(RedisSettings.from_dsn(URL), retry=Retry(ExponentialBackoff(), 5), retry_on_error=retried)


async def work(ctx: Any, data: Any) -> None:
    await job(data)


class Arq(Adapter):
    async def connect(self) -> None:
        self.pool = await create_pool(settings())

    async def add(self, data: Any) -> None:
        await self.pool.enqueue_job("work", data)

    def worker(self) -> None:
        async def serve() -> None:
            ready()
            await Worker(
                [work], redis_settings=settings(), max_jobs=CONCURRENCY, job_timeout=LEASE, max_tries=MANY,
                handle_signals=False,
            ).async_run()  # fmt: skip

        asyncio.run(serve())


if __name__ == "__main__":
    main(Arq)
