"""Celery: late acknowledgement, so that a message that was not acknowledged within the visibility timeout is restored;
the interval of that search and the expiry of its lock are lowered to match."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.signals import worker_ready
from kit import CONCURRENCY, LEASE, URL, Adapter, blocking_job, main, ready

app = Celery("storm", broker=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": LEASE, "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
        "unacked_mutex_expire": LEASE,
    },
)  # fmt: skip
work = app.task(name="work")(blocking_job)


@worker_ready.connect
def started(**_: Any) -> None:
    ready()


class Peer(Adapter):
    blocking = True

    def connect(self) -> None:
        """Celery connects with the first call."""

    def add(self, data: Any) -> None:
        work.delay(data)

    def worker(self) -> None:
        app.worker_main(["worker", "-l", "WARNING", "-c", str(CONCURRENCY), "--without-gossip", "--without-mingle"])


if __name__ == "__main__":
    main(Peer)
