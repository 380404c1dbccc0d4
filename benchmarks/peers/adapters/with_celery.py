"""Celery: two prefork processes with a prefetch of 100 each, without gossip, mingle and heartbeat; for jobs that sleep
as many threads as the concurrency; no result backend (default)."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kit import HOUR, KIND, Adapter, blocking_job, gate, main

app = Celery("bench")
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=100)
noop = app.task(name="noop")(blocking_job)


class Peer(Adapter):
    blocking = True

    def __init__(self, url: str, concurrency: int) -> None:
        super().__init__(url, concurrency)
        app.conf.broker_url = url

    def connect(self) -> None:
        """Celery connects with the first call."""

    def add(self, data: Any) -> None:
        noop.delay(data)

    def add_delayed(self, data: Any) -> None:
        noop.apply_async((data,), countdown=HOUR)

    def close(self) -> None:
        app.close()

    def worker(self) -> None:
        gate()
        pool = ["-P", "prefork", "-c", "2"]
        if KIND == "sleep":
            app.conf.worker_prefetch_multiplier = 2
            pool = ["-P", "threads", "-c", str(self.concurrency)]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        app.worker_main(["worker", "-l", "ERROR", *quiet, *pool])


if __name__ == "__main__":
    main(Peer)
