"""RQ: SimpleWorker (the default one forks for each job); one job at a time; results kept for 500 s (default)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from kit import HOUR, Adapter, gate, main
from redis import Redis
from rq import Queue, SimpleWorker


class Rq(Adapter):
    blocking = True

    def connect(self) -> None:
        self.redis = Redis.from_url(self.url)
        self.queue = Queue("default", connection=self.redis)

    def add(self, data: Any) -> None:
        self.queue.enqueue("kit.blocking_job", data)

    def add_delayed(self, data: Any) -> None:
        self.queue.enqueue_in(timedelta(seconds=HOUR), "kit.blocking_job", data)

    def add_many(self, many: list[Any]) -> None:
        self.queue.enqueue_many([Queue.prepare_data("kit.blocking_job", (data,)) for data in many])

    def close(self) -> None:
        self.redis.close()

    def worker(self) -> None:
        self.connect()
        gate()
        SimpleWorker([self.queue], connection=self.redis).work(logging_level="ERROR")


if __name__ == "__main__":
    main(Rq)
