"""taskiq with taskiq-redis' RedisStreamBroker, run by its command line: a message is taken back when it has been
pending for `idle_timeout`, by a worker that has just got a new one."""

from __future__ import annotations

import os
import sys
from typing import Any

from kit import CONCURRENCY, LEASE, URL, Adapter, job, main, ready
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(URL, idle_timeout=LEASE * 1000, unacknowledged_lock_timeout=float(LEASE))


@broker.task(task_name="work")
async def work(data: dict[str, Any]) -> None:
    await job(data)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def started(state: TaskiqState) -> None:
    ready()


class Taskiq(Adapter):
    async def connect(self) -> None:
        await broker.startup()

    async def add(self, data: Any) -> None:
        await work.kiq(data)

    def worker(self) -> None:
        options = ["--workers", "1", "--max-async-tasks", str(CONCURRENCY), "--max-prefetch", str(CONCURRENCY)]
        os.execv(sys.executable, [sys.executable, "-m", "taskiq", "worker", "with_taskiq_redis:broker", *options])  # noqa: S606


if __name__ == "__main__":
    main(Taskiq)
