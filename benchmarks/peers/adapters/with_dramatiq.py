"""Dramatiq: eight threads (default; for jobs that sleep as many as the concurrency); no results (default); prefetch of
1,000 (by default two per thread); `worker_timeout` 10 ms (by default a second, up to which an idle worker backs off).
"""

from __future__ import annotations

import os
import threading
from typing import Any

from kit import HOUR, KIND, Adapter, blocking_job, gate, main

os.environ["dramatiq_queue_prefetch"] = "1000"  # noqa: SIM112 - read when dramatiq is imported
import dramatiq
from dramatiq.brokers.redis import RedisBroker


class Dramatiq(Adapter):
    blocking = True

    def connect(self) -> None:
        self.broker = RedisBroker(url=self.url)
        dramatiq.set_broker(self.broker)
        self.noop = dramatiq.actor(blocking_job, actor_name="noop")

    def add(self, data: Any) -> None:
        self.noop.send(data)

    def add_delayed(self, data: Any) -> None:
        self.noop.send_with_options(args=(data,), delay=HOUR * 1000)

    def close(self) -> None:
        self.broker.close()

    def worker(self) -> None:
        self.connect()
        gate()
        threads = self.concurrency if KIND == "sleep" else 8
        dramatiq.Worker(self.broker, worker_timeout=10, worker_threads=threads).start()
        threading.Event().wait()


if __name__ == "__main__":
    main(Dramatiq)
