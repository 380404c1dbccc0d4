"""The demo's processors: the bank's own ones, two schedules' jobs that go by the bank's fast clock, and payments that
go wrong.

They serve queues of their own names, so that a demo on a Redis that others use takes none of their jobs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from streamq.demo.plan import FIRST_DAY, NightJob
from streamq.policy import Backoff
from streamq.processor import ActiveJob, Processors
from streamq.processors import calculations
from streamq.processors.emails import send_email
from streamq.processors.emails_message import EmailRequest
from streamq.processors.exports import export_records
from streamq.processors.exports_request import ExportRequest
from streamq.processors.imports import import_records
from streamq.processors.imports_request import ImportRequest
from streamq.processors.integrations import sync_data
from streamq.processors.integrations_sync import SyncRequest
from streamq.processors.interest_posting import InterestRequest
from streamq.processors.recurring_run import RecurringRequest
from streamq.processors.reports import generate
from streamq.processors.reports_request import ReportRequest

IMPORTS, REPORTS, EMAILS, PAYMENTS = "demo-imports", "demo-reports", "demo-emails", "demo-payments"
CALCULATIONS, EXPORTS, INTEGRATIONS = "demo-calculations", "demo-exports", "demo-integrations"
QUEUES = (IMPORTS, REPORTS, EMAILS, PAYMENTS, CALCULATIONS, EXPORTS, INTEGRATIONS)

SOON = Backoff.fixed(0.4)

processors = Processors()
processors.register("import-members", queue=IMPORTS, data=ImportRequest)(import_records)
processors.register("import-transactions", queue=IMPORTS, data=ImportRequest)(import_records)
processors.register("generate-monthly-report", queue=REPORTS, data=ReportRequest)(generate)
processors.register("generate-financial-report", queue=REPORTS, data=ReportRequest)(generate)
processors.register("send-email", queue=EMAILS, data=EmailRequest, attempts=5, backoff=SOON)(send_email)
processors.register("export-transactions", queue=EXPORTS, data=ExportRequest)(export_records)
processors.register("sync-data", queue=INTEGRATIONS, data=SyncRequest)(sync_data)


@processors.register("post-interest", queue=CALCULATIONS, data=NightJob)
async def post_interest(job: ActiveJob[NightJob]) -> calculations.InterestReport:
    """Post the interest of the day that ended with the job's night."""
    day = FIRST_DAY + timedelta(days=job.data.clock.night(job.id))
    return await calculations.post_interest(_with(job, InterestRequest(date=day, since=FIRST_DAY)))


@processors.register("run-recurring-transactions", queue=CALCULATIONS, data=NightJob)
async def run_standing_orders(job: ActiveJob[NightJob]) -> calculations.RecurringReport:
    """Execute the standing orders of the day that begins with the job's night."""
    day = FIRST_DAY + timedelta(days=job.data.clock.night(job.id) + 1)
    return await calculations.run_recurring_transactions(_with(job, RecurringRequest(date=day)))


class Payment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A payment to send: how often the gateway refuses the connection first."""

    reference: str
    refusals: int


class PaymentSent(msgspec.Struct, frozen=True):
    """A payment that went through, at which attempt."""

    reference: str
    attempt: int


@processors.register("send-payment", queue=PAYMENTS, data=Payment, attempts=3, backoff=SOON)
async def send_payment(job: ActiveJob[Payment]) -> PaymentSent:
    """Send a payment through a gateway that refuses the first connections.

    Raises:
        ConnectionError: It refused; the attempt is retried.
    """
    await job.progress(int(100 * job.attempt / (job.data.refusals + 1)))
    if job.attempt <= job.data.refusals:
        raise ConnectionError(f"the gateway refused connection {job.attempt}")
    return PaymentSent(job.data.reference, job.attempt)


def _with(job: ActiveJob[NightJob], data: Any) -> ActiveJob[Any]:
    return ActiveJob(
        job, job.id, job.name, job.queue, data, attempt=job.attempt, attempts=job.attempts, stalls=job.stalls
    )
