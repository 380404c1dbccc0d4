"""The demo's processors: the bank's own imports and reports, and two payments that go wrong.

They serve queues of their own names, so that a demo on a Redis that others use takes none of their jobs.
"""

from __future__ import annotations

import msgspec

from streamq.policy import Backoff
from streamq.processor import ActiveJob, Processors
from streamq.processors.imports import import_records
from streamq.processors.imports_request import ImportRequest
from streamq.processors.reports import generate
from streamq.processors.reports_request import ReportRequest

IMPORTS, REPORTS, PAYMENTS = "demo-imports", "demo-reports", "demo-payments"
QUEUES = (IMPORTS, REPORTS, PAYMENTS)

processors = Processors()
processors.register("import-members", queue=IMPORTS, data=ImportRequest)(import_records)
processors.register("generate-monthly-report", queue=REPORTS, data=ReportRequest)(generate)
processors.register("generate-financial-report", queue=REPORTS, data=ReportRequest)(generate)


class Payment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payment to send: how often the gateway refuses the connection first."""

    reference: str
    refusals: int


class PaymentSent(msgspec.Struct, frozen=True):
    """A payment that went through, at which attempt."""

    reference: str
    attempt: int


@processors.register("send-payment", queue=PAYMENTS, data=Payment, attempts=3, backoff=Backoff.fixed(0.4))
async def send_payment(job: ActiveJob[Payment]) -> PaymentSent:
    """Send a payment through a gateway that refuses the first connections.

    Raises:
        ConnectionError: It refused; the attempt is retried.
    """
    await job.progress(int(100 * job.attempt / (job.data.refusals + 1)))
    if job.attempt <= job.data.refusals:
        raise ConnectionError(f"the gateway refused connection {job.attempt}")
    return PaymentSent(job.data.reference, job.attempt)
