"""A trace from the producer through Redis into the handler, with OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from streamq import Batch, BatchJob, InvalidInput, JobFailed, JobOptions, Processors, Queue, Settings, Unrecoverable
from streamq.metrics import Metrics
from streamq.observer import together
from streamq.tracing import Tracing
from tests.faults.workers import ROOT, eventually
from tests.integration.conftest import PATIENCE, Bench
from tests.integration.scraping import served


class Spans:
    """A tracer provider of the test's own, and the spans that have ended."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = self.provider.get_tracer("test")
        self.observer = Tracing(self.provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._memory.get_finished_spans() if span.name == name]

    async def ended(self, name: str, count: int = 1) -> list[ReadableSpan]:
        await eventually(lambda: len(self.named(name)) == count, PATIENCE)
        return self.named(name)


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
async def traced(settings: Settings, spans: Spans) -> AsyncIterator[Queue]:
    async with Queue("q", settings=settings, observer=spans.observer) as queue:
        yield queue


def ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_an_attempt_comes_below_its_add_and_both_say_what_the_conventions_ask(
    traced: Queue, bench: Bench, spans: Spans
) -> None:
    async def work(job: object) -> str:
        return "done"

    async with bench.worker({"send": work}, observer=spans.observer):
        with spans.tracer.start_as_current_span("request") as request:
            job = await traced.add("send", {"secret": 1})
        await job.result(PATIENCE)
    (sent,), (ran,) = await spans.ended("add q"), await spans.ended("process q")
    assert parent(sent) == (request.get_span_context().trace_id, request.get_span_context().span_id)
    assert parent(ran) == ids(sent)
    assert [(link.context.trace_id, link.context.span_id) for link in ran.links] == [ids(sent)]
    assert (sent.kind, ran.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    common = {"messaging.system": "streamq", "messaging.destination.name": "q", "messaging.message.id": job.id,
              "streamq.job.name": "send"}  # fmt: skip
    assert attributes(sent) == {**common, "messaging.operation.name": "add", "messaging.operation.type": "send"}
    assert attributes(ran) == {
        **common, "messaging.operation.name": "process", "messaging.operation.type": "process",
        "streamq.job.attempt": 1, "streamq.processor": "send", "streamq.job.outcome": "done",
    }  # fmt: skip
    assert ran.status.status_code == StatusCode.UNSET


async def test_what_a_handler_does_comes_below_its_attempt_on_the_loop_and_in_a_thread(
    traced: Queue, bench: Bench, spans: Spans
) -> None:
    async def on_the_loop(job: object) -> str | None:
        with spans.tracer.start_as_current_span("query"):
            return str(baggage.get_baggage("tenant"))

    def in_a_thread(job: object) -> str | None:
        with spans.tracer.start_as_current_span("query"):
            return str(baggage.get_baggage("tenant"))

    async with bench.worker({"loop": on_the_loop, "thread": in_a_thread}, observer=spans.observer):
        token = context.attach(baggage.set_baggage("tenant", "bank"))
        jobs = [await traced.add(name) for name in ("loop", "thread")]
        context.detach(token)
        assert [await job.result(PATIENCE) for job in jobs] == ["bank", "bank"]
    attempts = {ids(span) for span in await spans.ended("process q", 2)}
    assert {parent(span) for span in await spans.ended("query", 2)} == attempts


async def test_jobs_of_producers_that_trace_nothing_have_traces_of_their_own(
    queue: Queue, bench: Bench, spans: Spans
) -> None:
    """The second attempt is started where the first one ended, and is no part of it."""

    async def work(job: object) -> bool:
        return trace.get_current_span().is_recording()

    jobs = [await queue.add("send") for _ in range(5)]
    async with bench.worker(work, observer=spans.observer, concurrency=1):
        assert [await job.result(PATIENCE) for job in jobs] == [True] * 5
    attempts = await spans.ended("process q", 5)
    assert [parent(span) for span in attempts] == [None] * 5
    assert len({ids(span)[0] for span in attempts}) == 5


async def test_each_attempt_is_a_span_of_the_one_trace_and_a_failure_says_its_type_only(
    traced: Queue, bench: Bench, spans: Spans
) -> None:
    async def fail(job: object) -> None:
        raise ValueError("IBAN-DE89")

    async with bench.worker(fail, observer=spans.observer):
        job = await traced.add("send", "IBAN-DE89", attempts=2)
        with pytest.raises(JobFailed):
            await job.result(PATIENCE)
    (sent,), attempts = await spans.ended("add q"), await spans.ended("process q", 2)
    assert {parent(span) for span in attempts} == {ids(sent)}
    told = [(attributes(s)["streamq.job.attempt"], attributes(s)["streamq.job.outcome"]) for s in attempts]
    assert told == [(1, "retry"), (2, "fail")]
    for span in attempts:
        assert (span.status.status_code, attributes(span)["error.type"]) == (StatusCode.ERROR, "ValueError")
        assert "IBAN" not in span.to_json()


async def test_many_jobs_added_at_once_share_one_span(traced: Queue, bench: Bench, spans: Spans) -> None:
    async def work(job: object) -> None:
        return None

    async with bench.worker(work, observer=spans.observer):
        jobs = await traced.add_many([("a", 1), ("b", 2, JobOptions(headers={"mine": "1"})), ("c", 3)])
        await asyncio.gather(*(traced.result(job.id, PATIENCE) for job in jobs))
    (sent,), attempts = await spans.ended("add q"), await spans.ended("process q", 3)
    assert attributes(sent)["messaging.batch.message_count"] == 3
    assert {parent(span) for span in attempts} == {ids(sent)}


async def test_an_add_that_fails_is_a_span_that_says_so(traced: Queue, spans: Spans) -> None:
    with pytest.raises(InvalidInput):
        await traced.add("send", object())
    with pytest.raises(InvalidInput):
        await traced.add_many([("send", 1), 17])  # type: ignore[list-item]
    one, many = await spans.ended("add q", 2)
    assert attributes(one)["error.type"] == "UnencodableData"
    assert attributes(many)["error.type"] == "InvalidInput"
    assert {one.status.status_code, many.status.status_code} == {StatusCode.ERROR}


@pytest.mark.parametrize("headers", [{"traceparent": "mine"}, {"big": "x" * 4090}], ids=["the same name", "no room"])
async def test_headers_that_a_job_was_given_come_first(traced: Queue, headers: dict[str, str]) -> None:
    job = await (await traced.add("send", headers=headers)).snapshot()
    assert job is not None
    assert job.headers == headers


async def test_an_attempt_that_is_handed_back_ends_its_span(traced: Queue, bench: Bench, spans: Spans) -> None:
    started = asyncio.Event()

    async def work(job: object) -> None:
        started.set()
        await asyncio.Event().wait()

    async with bench.worker(work, observer=spans.observer) as worker:
        await traced.add("send")
        await asyncio.wait_for(started.wait(), PATIENCE)
        await worker.stop(grace=0)
    (ran,) = await spans.ended("process q")
    assert attributes(ran)["streamq.job.outcome"] == "release"


async def test_metrics_and_traces_go_together(traced: Queue, bench: Bench, spans: Spans) -> None:
    async def work(job: object) -> None:
        return None

    registry = CollectorRegistry()
    async with bench.worker({"send": work}, observer=together(Metrics(registry), spans.observer)):
        await (await traced.add("send")).result(PATIENCE)
    await spans.ended("process q")
    labels = {"queue": "q", "processor": "send", "outcome": "done"}
    assert registry.get_sample_value("streamq_attempts_total", labels) == 1


# Off, and in a process ------------------------------------------------------------------------------------------------


async def test_nothing_is_carried_where_tracing_is_off(queue: Queue, spans: Spans) -> None:
    with spans.tracer.start_as_current_span("request"):
        job = await (await queue.add("send")).snapshot()
    assert job is not None
    assert job.headers == {}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout + done.stderr


def test_opentelemetry_is_not_imported_where_tracing_is_off() -> None:
    code = "import sys, streamq.worker.__main__, streamq.cli; print([m for m in sys.modules if 'opentel' in m])"
    assert python(code) == "[]\n"


def test_want_of_the_extra_is_told() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from streamq.worker.__main__ import main; print(main(['--tracing']))"
    )
    assert sorted(python(code).splitlines()) == [
        "2", 'streamq.worker: tracing needs OpenTelemetry: pip install "streamq[otel]"',
    ]  # fmt: skip


async def test_a_worker_process_traces_with_the_provider_that_its_plugin_sets(
    redis_url: str, tmp_path: Path, spans: Spans
) -> None:
    path = tmp_path / "spans"
    arguments = ["streamq.worker", "-q", "m", "-p", "tests.integration.processors_for_tracing", "--tracing"]
    with served(tmp_path, arguments, REDIS_URL=redis_url, SPANS=str(path)) as worker:
        async with Queue("m", redis_url, observer=spans.observer) as queue:
            job = await queue.add("pid")
            assert await job.result(PATIENCE) == worker.process.pid
        await eventually(lambda: path.exists() and path.read_text().endswith("\n"), PATIENCE)
    (span,) = [json.loads(line) for line in path.read_text().splitlines()]
    (sent,) = spans.named("add m")
    assert (span["name"], span["kind"]) == ("process m", "SpanKind.CONSUMER")
    assert int(span["context"]["trace_id"], 16) == ids(sent)[0]
    assert int(span["parent_id"], 16) == ids(sent)[1]


async def test_each_job_of_a_batch_has_its_attempt_below_its_add_and_the_call_is_linked_to_all(
    traced: Queue, bench: Bench, spans: Spans
) -> None:
    processors = Processors()

    @processors.register("index", batch=Batch(2, 3_600))
    async def index(jobs: list[BatchJob[object]]) -> list[object]:
        with spans.tracer.start_as_current_span("bulk"):
            return ["fine", Unrecoverable("no")]

    async with bench.worker(processors, observer=spans.observer):
        jobs = [await traced.add("index", number) for number in range(2)]
        assert await jobs[0].result(PATIENCE) == "fine"
        with pytest.raises(JobFailed):
            await jobs[1].result(PATIENCE)
    sent, ran = await spans.ended("add q", 2), await spans.ended("process q", 2)
    (batch,), (bulk,) = await spans.ended("process batch q"), await spans.ended("bulk")
    assert [parent(span) for span in ran] == [ids(span) for span in sent]
    assert [attributes(span)["streamq.job.outcome"] for span in ran] == ["done", "fail"]
    assert [attributes(span)["messaging.message.id"] for span in ran] == [job.id for job in jobs]
    assert [span.status.status_code for span in ran] == [StatusCode.UNSET, StatusCode.ERROR]
    assert (parent(bulk), parent(batch)) == (ids(batch), None)
    assert [(link.context.trace_id, link.context.span_id) for link in batch.links] == [ids(span) for span in sent]
    assert attributes(batch)["messaging.batch.message_count"] == 2
