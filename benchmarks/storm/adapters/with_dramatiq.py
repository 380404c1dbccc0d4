"""Dramatiq: messages of a worker whose heartbeat is older than `heartbeat_timeout` are requeued by maintenance, which
a share of all commands set off (`maintenance_chance`, in a million)."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from kit import CONCURRENCY, LEASE, URL, Adapter, blocking_job, main, ready


class Dramatiq(Adapter):
    blocking = True

    def connect(self) -> None:
        self.broker = RedisBroker(url=URL, heartbeat_timeout=LEASE * 1000, maintenance_chance=200_000)
        dramatiq.set_broker(self.broker)
        self.work = dramatiq.actor(blocking_job, actor_name="work")

    def add(self, data: Any) -> None:
        self.work.send(data)

    def worker(self) -> None:
        self.connect()
        ready()
        dramatiq.Worker(self.broker, worker_threads=CONCURRENCY).start()
        threading.Event().wait()


if __name__ == "__main__":
    main(Dramatiq)
