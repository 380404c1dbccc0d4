"""The state of queues as Prometheus series, read from Redis when a scraper asks. `docs/metrics.md` lists them.

Collects in a thread with an event loop and connections of its own, so that it works beside anything: the command
`streamq exporter`, a worker (`--export`), a process of yours. One collection serves all that ask within `FRESH`
seconds. While Redis is away it says `streamq_up 0` and no state of queues at all, since an old one would be a
lie; the next scrape tries anew.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from streamq.errors import InvalidInput, StoreError
from streamq.policy import Priority
from streamq.queue import Queue
from streamq.sampling import QueueSample, Sampler
from streamq.settings import Settings

log = logging.getLogger("streamq.exporter")

FRESH = 1.0
"""Seconds for which what was collected is good for another scrape."""
PATIENCE = 5.0
"""Seconds that a collection may take: less than a scraper's usual ten."""
MOST_QUEUES = 500

PRIORITIES = {priority: priority.name.lower() for priority in Priority}


class _Collected(msgspec.Struct, frozen=True):
    """What one collection found; no samples if Redis was away."""

    at: float
    seconds: float
    samples: dict[str, QueueSample]
    error: str = ""


class Exporter(Collector):
    """The series of some queues: register it with a registry of prometheus-client, and `close` it at the end.

    Raises:
        InvalidInput: A name can't be a queue's, or there are none or too many.
    """

    def __init__(self, queues: Iterable[str], settings: Settings | None = None) -> None:
        self._names = list(dict.fromkeys(queues))
        if not 1 <= len(self._names) <= MOST_QUEUES:
            raise InvalidInput(f"an exporter takes 1 to {MOST_QUEUES} queues, not {len(self._names)}")
        settings = settings or Settings.from_env()
        self._settings = msgspec.structs.replace(settings, timeout=min(settings.timeout, PATIENCE / 2))
        self._asking = threading.Lock()
        self._last: _Collected | None = None
        self._failures = 0
        self._loop = asyncio.new_event_loop()
        self._samplers = self._make_samplers()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streamq-exporter", daemon=True)
        self._thread.start()

    def _make_samplers(self) -> list[Sampler]:
        try:
            return [Sampler(Queue(name, settings=self._settings, shards="stored")) for name in self._names]
        except BaseException:
            self._loop.close()
            raise

    def alive(self) -> str:
        """Say that the thread has ended; "" while it runs."""
        return "" if self._thread.is_alive() else "the exporter's thread has ended"

    def ready(self) -> str:
        """Say why there is nothing to export now; "" if there is. Asks Redis, unless it was just asked."""
        return self._collected().error

    def collect(self) -> Iterator[Metric]:
        """Yield all series; prometheus-client calls this with each scrape."""
        found = self._collected()
        up = GaugeMetricFamily("streamq_up", "1 if Redis answered this scrape.", value=0 if found.error else 1)
        seconds = GaugeMetricFamily(
            "streamq_exporter_collect_seconds", "How long collecting took.", value=found.seconds
        )
        failures = CounterMetricFamily("streamq_exporter_failures", "Collections that failed.", value=self._failures)
        yield from (up, seconds, failures)
        yield from families(found.samples)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not ask Redis."""
        return []

    def _collected(self) -> _Collected:
        with self._asking:
            if self._last is None or time.monotonic() - self._last.at > FRESH:
                self._last = self._collect()
            return self._last

    def _collect(self) -> _Collected:
        start = time.monotonic()
        samples: dict[str, QueueSample] = {}
        error = ""
        call: Future[list[QueueSample]] = asyncio.run_coroutine_threadsafe(self._sample(), self._loop)
        try:
            samples = dict(zip(self._names, call.result(PATIENCE + 1), strict=True))
        except (StoreError, TimeoutError) as raised:
            error = str(raised) or f"no answer within {PATIENCE:g} s"
        except Exception as raised:
            log.exception("collecting failed")
            error = type(raised).__name__
        if error:
            call.cancel()
            self._failures += 1
            if self._last is None or not self._last.error:
                log.warning("the queues can't be read: %s", error)
        elif self._last is not None and self._last.error:
            log.info("the queues can be read again")
        end = time.monotonic()
        return _Collected(end, end - start, samples, error)

    async def _sample(self) -> list[QueueSample]:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*(sampler.sample() for sampler in self._samplers))

    def close(self) -> None:
        """Close the connections and end the thread."""
        with self._asking:
            if self._loop.is_closed():
                return
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            self._loop.close()

    async def _close(self) -> None:
        await asyncio.gather(*(sampler.queue.close() for sampler in self._samplers))
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def families(samples: dict[str, QueueSample]) -> Sequence[Metric]:
    """Return the series of queues."""

    def gauge(name: str, text: str, *labels: str) -> Any:
        return GaugeMetricFamily(f"streamq_queue_{name}", text, labels=["queue", *labels])

    jobs = gauge("jobs", "Jobs by state; those that wait or run by priority, too.", "state", "priority")
    age = gauge("oldest_waiting_age_seconds", "How long the oldest waiting job has waited; 0 if none does.", "priority")
    paused = gauge("paused", "1 if the queue is paused.")
    dead = gauge("dead_letters", "Dead letters that are kept.")
    workers = gauge("workers", "Workers whose lease holds.")
    lapsed = gauge("lapsed_leases", "Workers whose lease has lapsed and whose jobs nobody has taken back yet.")
    schedules = gauge("schedules", "Schedules, paused and ended ones included.")
    late = gauge("schedules_late", "Schedules that no worker has looked at in time.")
    cancelled = CounterMetricFamily("streamq_queue_jobs_cancelled", "Jobs that were cancelled.", labels=["queue"])
    memory = gauge("memory_bytes", "Memory that the queue takes in Redis, estimated from samples.")
    for queue, sample in samples.items():
        stats = sample.stats
        for priority, word in PRIORITIES.items():
            jobs.add_metric([queue, "waiting", word], stats.waiting_by_priority[priority])
            jobs.add_metric([queue, "active", word], sample.active[priority])
            age.add_metric([queue, word], stats.oldest_by_priority[priority] or 0.0)
        for state in ("delayed", "waiting_children", "completed", "failed", "cancelled"):
            jobs.add_metric([queue, state, ""], getattr(stats, state))
        paused.add_metric([queue], float(stats.paused))
        dead.add_metric([queue], stats.dead)
        workers.add_metric([queue], stats.workers)
        lapsed.add_metric([queue], max(sample.leases - stats.workers, 0))
        schedules.add_metric([queue], sample.schedules)
        late.add_metric([queue], sample.schedules_late)
        cancelled.add_metric([queue], sample.cancelled_so_far)
        if sample.memory is not None:
            memory.add_metric([queue], sample.memory)
    return jobs, age, paused, dead, workers, lapsed, schedules, late, cancelled, memory
