"""A plugin that sets up OpenTelemetry as an application does, its spans written to a file."""

from __future__ import annotations

import os
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from streamq import ActiveJob, Processors

processors = Processors()
out = open(os.environ["SPANS"], "w")  # noqa: SIM115 - for as long as the process lives
exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)


@processors.register("pid", queue="m")
async def pid(job: ActiveJob[Any]) -> int:
    return os.getpid()
