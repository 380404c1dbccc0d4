"""What workers do, as Prometheus series: an observer of the engine. `docs/metrics.md` lists them.

Labels are queues, registered processors and names of transitions, never ids or job names, so their number is bounded by
the deployment. In several processes (`--processes`) the series of all of them are scraped as one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from streamq.observer import Observer
from streamq.processor import Processor

RUN_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600)
WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 21600)
TICK_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
BATCH_BUCKETS = (0, 1, 5, 10, 25, 50, 100, 250, 500)
ATTEMPT_BUCKETS = (1, 2, 3, 5, 10, 20)
OUTCOMES = ("done", "retry", "fail")
"""Those that alerts go by."""


class WorkerGauges(Protocol):
    """What the gauges are read from."""

    @property
    def queue(self) -> str: ...
    @property
    def loop_lag(self) -> float: ...
    @property
    def running(self) -> int: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def lease_age(self) -> float: ...
    @property
    def connects(self) -> int: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def processors(self) -> Iterable[Processor]: ...


class Metrics(Observer):
    """The series of one process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"streamq_{name}", text, ["queue", *labels], registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"streamq_{name}", text, ["queue", *labels], buckets=buckets, registry=registry)

        def gauge(name: str, text: str, mode: str = "livesum") -> Gauge:
            return Gauge(f"streamq_{name}", text, ["queue"], registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        self._claimed = counter("jobs_claimed", "Jobs that workers of this process claimed.")
        self._ended = counter("attempts", "Attempts that ended, by how.", "processor", "outcome")
        self._stale = counter("stale_outcomes", "Outcomes refused because the lease had moved on.")
        self._taken_back = counter("jobs_taken_back", "Jobs taken back from workers whose lease had lapsed.")
        self._poisoned = counter("jobs_poisoned", "Jobs failed because they took too many workers down.")
        self._threads_left = counter("threads_left", "Threads left to handlers whose time was up.", "processor")
        self._run = histogram("job_run_seconds", "How long attempts ran.", RUN_BUCKETS, "processor")
        self._wait = histogram("job_wait_seconds", "From when a job could start to when it did.", WAIT_BUCKETS)
        self._attempt = histogram("job_attempt", "The number of the attempt that ended.", ATTEMPT_BUCKETS)
        self._ticks = histogram("tick_jobs", "Outcomes settled and jobs claimed by one tick.", BATCH_BUCKETS)
        self._transitions = histogram(
            "transition_seconds", "Script calls, by transition, the way to the server included.", TICK_BUCKETS,
            "transition",
        )  # fmt: skip
        self._errors = counter("transition_errors", "Script calls that failed.", "transition")
        self._reloads = counter("script_reloads", "Scripts that the server had lost.")
        self._gauges = {
            "running": gauge("jobs_running", "Jobs that this process holds."),
            "concurrency": gauge("worker_concurrency", "Jobs that may run at once."),
            "loop_lag": gauge("event_loop_lag_seconds", "How late the event loop was at its last beat.", "livemax"),
            "lease_age": gauge("lease_age_seconds", "How long ago the lease was renewed.", "livemax"),
            "healthy": gauge("worker_healthy", "1 if a tick succeeded within the last lease.", "livemin"),
        }
        self._connections = counter(
            "connections_opened", "Connections to Redis that were opened, the first ones included."
        )
        self._connects: dict[WorkerGauges, int] = {}
        self._reading = threading.Lock()
        self._runs: dict[tuple[str, str, str], Counter] = {}
        self._times: dict[tuple[str, str], Histogram] = {}

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        self._transitions.labels(queue, name).observe(seconds)
        if error is not None:
            self._errors.labels(queue, name).inc()

    def ticked(self, queue: str, settled: int, claimed: int) -> None:
        self._ticks.labels(queue).observe(settled + claimed)
        if claimed:
            self._claimed.labels(queue).inc(claimed)

    def ended(self, queue: str, processor: str, outcome: str, ran: float, waited: float, attempt: int) -> None:
        key = (queue, processor, outcome)
        if key not in self._runs:
            self._runs[key] = self._ended.labels(*key)
            self._times[queue, processor] = self._run.labels(queue, processor)
        self._runs[key].inc()
        self._times[queue, processor].observe(ran)
        self._wait.labels(queue).observe(max(waited, 0.0))
        self._attempt.labels(queue).observe(attempt)

    def stale(self, queue: str) -> None:
        self._stale.labels(queue).inc()

    def taken_back(self, queue: str, jobs: int) -> None:
        self._taken_back.labels(queue).inc(jobs)

    def poisoned(self, queue: str, jobs: int) -> None:
        self._poisoned.labels(queue).inc(jobs)

    def thread_left(self, queue: str, processor: str) -> None:
        self._threads_left.labels(queue, processor).inc()

    def scripts_reloaded(self, queue: str) -> None:
        self._reloads.labels(queue).inc()

    def read(self, worker: WorkerGauges) -> None:
        """Set the gauges to what a worker says now; from any thread."""
        with self._reading:
            if worker not in self._connects:
                self._begin(worker)
            for name, gauge in self._gauges.items():
                gauge.labels(worker.queue).set(float(getattr(worker, name)))
            connects = worker.connects
            self._connections.labels(worker.queue).inc(connects - self._connects[worker])
            self._connects[worker] = connects

    def _begin(self, worker: WorkerGauges) -> None:
        """Start its counters at 0: the rise from nothing to 1 is none that Prometheus could see."""
        queue = worker.queue
        self._connects[worker] = 0
        for counter in (self._claimed, self._stale, self._taken_back, self._poisoned, self._reloads):
            counter.labels(queue)
        self._errors.labels(queue, "tick")
        for processor in worker.processors:
            if processor.queue in (None, queue):
                if processor.place == "thread":
                    self._threads_left.labels(queue, processor.name)
                for outcome in OUTCOMES:
                    self._ended.labels(queue, processor.name, outcome)
