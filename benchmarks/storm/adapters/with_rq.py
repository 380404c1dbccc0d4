"""RQ: the usual forking worker. Its maintenance retries a job whose heartbeat (60 s and the monitoring interval) has
lapsed, or that has been in the intermediate queue for a minute, if the job has retries left."""

from __future__ import annotations

from typing import Any

from kit import LEASE, MANY, URL, Adapter, main, ready
from redis import Redis
from rq import Queue, Retry, Worker


class Rq(Adapter):
    blocking = True

    def connect(self) -> None:
        self.redis = Redis.from_url(URL)
        self.queue = Queue("storm", connection=self.redis)

    def add(self, data: Any) -> None:
        self.queue.enqueue("kit.blocking_job", data, retry=Retry(max=MANY))

    def worker(self) -> None:
        self.connect()
        ready()
        Worker(
            [self.queue], connection=self.redis, maintenance_interval=LEASE, job_monitoring_interval=LEASE
        ).work(logging_level="WARNING")  # fmt: skip


if __name__ == "__main__":
    main(Rq)
