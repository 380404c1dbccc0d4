"""Traces with OpenTelemetry (extra `otel`): an observer that carries their context from producer to worker in headers.

    queue = Queue("reports", observer=Tracing())
    worker = Worker("reports", processors, observer=together(Metrics(), Tracing()))

An `add` is a span `add <queue>` of kind PRODUCER; an attempt is a span `process <queue>` of kind CONSUMER below it, and
is current while the handler runs, so that what the handler calls comes below that. For jobs of a batch the current one
is that of the call, `process batch <queue>`, which is linked to each job's `add`. Attributes are those of the semantic
conventions for messaging, and never data. Only OpenTelemetry's API is used: which SDK and exporter, if any, is the
application's choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streamq.errors import InvalidInput
from streamq.observer import Observer, Running, Sending
from streamq.processor import ActiveJob

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode
except ImportError as error:  # pragma: no cover - the package tests try it
    raise InvalidInput('tracing needs OpenTelemetry: pip install "streamq[otel]"') from error

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

SYSTEM = "streamq"
SCHEMA = "https://opentelemetry.io/schemas/1.30.0"


class Tracing(Observer):
    """Makes the spans, with the application's tracer provider or the one given."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("streamq", tracer_provider=provider, schema_url=SCHEMA)

    def sending(self, queue: str, name: str, jobs: int) -> Sending:
        """Begin the span of an add."""
        attributes: dict[str, Any] = _about(queue, "add", "send")
        if name:
            attributes["streamq.job.name"] = name
        else:
            attributes["messaging.batch.message_count"] = jobs
        span = self._tracer.start_span(f"add {queue}", kind=SpanKind.PRODUCER, attributes=attributes)
        return _SendingSpan(span)

    def running(self, job: ActiveJob[Any], processor: str) -> Running:
        """Begin the span of an attempt and make it the current one of this task."""
        origin = propagate.extract(job.headers, context.Context())
        attributes = {
            **_about(job.queue, "process", "process"),
            "messaging.message.id": job.id,
            "streamq.job.name": job.name,
            "streamq.job.attempt": job.attempt,
            "streamq.processor": processor,
        }
        sent = trace.get_current_span(origin).get_span_context()
        span = self._tracer.start_span(
            f"process {job.queue}", origin, SpanKind.CONSUMER, attributes, [Link(sent)] if sent.is_valid else None
        )
        return _RunningSpan(span, context.attach(trace.set_span_in_context(span, origin)))

    def running_batch(self, jobs: Sequence[ActiveJob[Any]], processor: str) -> Running:
        """Begin the span of one call with several jobs and make it the current one of this task."""
        origins = (trace.get_current_span(propagate.extract(job.headers, context.Context())) for job in jobs)
        links = [Link(sent) for origin in origins if (sent := origin.get_span_context()).is_valid]
        attributes = {
            **_about(jobs[0].queue, "process", "process"),
            "messaging.batch.message_count": len(jobs),
            "streamq.processor": processor,
        }
        nothing = context.Context()
        span = self._tracer.start_span(f"process batch {jobs[0].queue}", nothing, SpanKind.CONSUMER, attributes, links)
        return _RunningSpan(span, context.attach(trace.set_span_in_context(span, nothing)))


class _SendingSpan(Sending):
    def __init__(self, span: Span) -> None:
        self._span = span
        self.headers: Mapping[str, str] = {}
        carried: dict[str, str] = {}
        propagate.inject(carried, trace.set_span_in_context(span))
        self.headers = carried

    def sent(self, ids: Sequence[str]) -> None:
        if len(ids) == 1:
            self._span.set_attribute("messaging.message.id", ids[0])
        self._span.end()

    def failed(self, error: BaseException) -> None:
        _mark(self._span, type(error).__name__)
        self._span.end()


class _RunningSpan(Running):
    def __init__(self, span: Span, token: Any) -> None:
        self._span, self._token = span, token

    def ended(self, outcome: str, error: str) -> None:
        context.detach(self._token)  # the next attempt may be started from here, and is no part of this one
        self._span.set_attribute("streamq.job.outcome", outcome)
        if error:
            _mark(self._span, error)
        self._span.end()


def _about(queue: str, operation: str, kind: str) -> dict[str, Any]:
    return {
        "messaging.system": SYSTEM,
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }


def _mark(span: Span, error: str) -> None:
    """Note the type of an error; its text may hold anything, so it stays with the job."""
    span.set_attribute("error.type", error)
    span.set_status(Status(StatusCode.ERROR, error))
