"""The workers' series: what an observer is told becomes figures, with bounded labels; the page lists them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from streamq.metrics import Metrics
from streamq.observer import NOBODY, Observer, tell
from streamq.processor import Processor

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(streamq_\w+)` \| (\w+) \|\s*(.*?)\s*\| (.+) \|$", re.MULTILINE)


class FakeWorker:
    """What gauges are read from, as a worker says it."""

    processors = (Processor(name="send", handler=print), Processor(name="else", handler=print, queue="other"))
    queue, loop_lag, running, concurrency, lease_age, connects, healthy = "q", 0.25, 3, 5, 1.5, 2, True


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def tell_everything(metrics: Metrics) -> None:
    metrics.transition("q", "tick", 0.002, None)
    metrics.transition("q", "tick", 0.002, ConnectionError())
    metrics.ticked("q", 3, 4)
    metrics.ended("q", "send", "done", 0.2, 0.1, 1)
    metrics.stale("q")
    metrics.taken_back("q", 7)
    metrics.poisoned("q", 2)
    metrics.thread_left("q", "send")
    metrics.scripts_reloaded("q")
    metrics.read(FakeWorker())


def listed() -> dict[str, tuple[str, list[str]]]:
    """The rows of the page: type and labels by name."""
    return {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels, _ in ROW.findall(PAGE.read_text())}


def exported(families: list[Metric]) -> dict[str, tuple[str, list[str]]]:
    """The same of what a registry collects."""
    found = {}
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels if label != "le"}
        found[name] = (family.type, sorted(labels))
    return found


def test_the_page_lists_the_workers_series_as_they_are_exported(registry: CollectorRegistry, metrics: Metrics) -> None:
    tell_everything(metrics)
    told = exported(list(registry.collect()))
    page = {name: (kind, sorted(labels)) for name, (kind, labels) in listed().items()}
    assert told == {name: row for name, row in page.items() if not name.startswith(EXPORTERS)}


EXPORTERS = ("streamq_queue_", "streamq_up", "streamq_exporter_")


def test_what_is_told_can_be_read(registry: CollectorRegistry, metrics: Metrics) -> None:
    tell_everything(metrics)
    tell_everything(metrics)
    q = {"queue": "q"}
    figures = {
        ("streamq_jobs_claimed_total", ()): 8,
        ("streamq_attempts_total", (("outcome", "done"), ("processor", "send"))): 2,
        ("streamq_stale_outcomes_total", ()): 2,
        ("streamq_jobs_taken_back_total", ()): 14,
        ("streamq_jobs_poisoned_total", ()): 4,
        ("streamq_threads_left_total", (("processor", "send"),)): 2,
        ("streamq_job_run_seconds_sum", (("processor", "send"),)): 0.4,
        ("streamq_job_wait_seconds_bucket", (("le", "0.05"),)): 0,
        ("streamq_job_wait_seconds_bucket", (("le", "0.1"),)): 2,
        ("streamq_job_attempt_bucket", (("le", "1.0"),)): 2,
        ("streamq_tick_jobs_sum", ()): 14,
        ("streamq_transition_seconds_count", (("transition", "tick"),)): 4,
        ("streamq_transition_errors_total", (("transition", "tick"),)): 2,
        ("streamq_script_reloads_total", ()): 2,
        ("streamq_jobs_running", ()): 3,
        ("streamq_worker_concurrency", ()): 5,
        ("streamq_event_loop_lag_seconds", ()): 0.25,
        ("streamq_lease_age_seconds", ()): 1.5,
        ("streamq_worker_healthy", ()): 1,
    }
    for (name, labels), value in figures.items():
        assert registry.get_sample_value(name, {**q, **dict(labels)}) == value, name


def test_counters_that_alerts_go_by_start_at_0(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.read(FakeWorker())
    for name in ("jobs_taken_back", "stale_outcomes", "script_reloads"):
        assert registry.get_sample_value(f"streamq_{name}_total", {"queue": "q"}) == 0
    for outcome in ("done", "retry", "fail"):
        labels = {"queue": "q", "processor": "send", "outcome": outcome}
        assert registry.get_sample_value("streamq_attempts_total", labels) == 0
    labels = {"queue": "q", "processor": "else", "outcome": "done"}
    assert registry.get_sample_value("streamq_attempts_total", labels) is None, "it is not for this queue"


def test_connections_are_counted_once_however_often_they_are_read(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    worker = FakeWorker()
    for worker.connects in (2, 2, 3):
        metrics.read(worker)
    metrics.read(FakeWorker())
    assert registry.get_sample_value("streamq_connections_opened_total", {"queue": "q"}) == 5


def test_a_job_that_waited_less_than_nothing_by_two_clocks_waited_nothing(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.ended("q", "send", "done", 0.2, -0.001, 1)
    assert registry.get_sample_value("streamq_job_wait_seconds_sum", {"queue": "q"}) == 0


class Failing(Observer):
    def stale(self, queue: str) -> None:
        raise ValueError(queue)


def test_an_observer_that_fails_is_logged_and_goes_no_further(caplog: pytest.LogCaptureFixture) -> None:
    observer = Failing()
    tell(observer, observer.stale, "q")
    tell(NOBODY, NOBODY.stale, "q")
    assert [record.getMessage() for record in caplog.records] == ["an observer failed on stale"]
