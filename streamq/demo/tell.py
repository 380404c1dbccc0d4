"""Say what came of the jobs, from their results."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeVar

import msgspec

from streamq.demo.errors import DemoFailed
from streamq.demo.plan import INTEREST, Size
from streamq.demo.processors import PaymentSent
from streamq.demo.show import Show
from streamq.job import JobSnapshot, JobState
from streamq.processors.calculations import InterestReport
from streamq.processors.exports_request import ExportResult
from streamq.processors.imports_request import ImportResult
from streamq.processors.integrations import SyncReport
from streamq.processors.reports_request import ReportResult

T = TypeVar("T")
Results = dict[str, JobSnapshot]


def tell_night(results: Results, size: Size, show: Show) -> None:
    """Say what the night's jobs did.

    Raises:
        DemoFailed: One ended as it should not.
    """
    members, payments = (result_of(results, key, ImportResult) for key in ("members", "payments"))
    if (members.imported, members.failed) != (size.members, size.bad_members):
        raise DemoFailed(
            f"the import took {members.imported:,} rows and refused {members.failed}: not what the file holds"
        )
    show.import_result(members)
    if payments.resumed_after:
        show.step(f"the import of card payments went on behind row {payments.resumed_after:,} of {payments.total:,}")
    summary, balances = (result_of(results, key, ReportResult) for key in ("summary", "balances"))
    net, together = Decimal(summary.totals["net"]), Decimal(balances.totals["balance"])
    show.step(f"{summary.title}: {summary.totals['transactions']:,} transactions, net {net:,} EUR")
    show.step(f"{balances.title}: {balances.rows:,} members, together {together:,} EUR")
    interest = result_of(results, INTEREST, InterestReport)
    if interest.failed:
        raise DemoFailed(f"{interest.failed} accounts got no interest, such as {interest.errors[0]}")
    show.step(f"payment INV-1 went through at attempt {result_of(results, 'flaky', PaymentSent).attempt}")
    dead = results["dead"]
    if dead.state is not JobState.FAILED:
        raise DemoFailed(f"the payment that can't go through ended as {dead.state}")
    show.step(f"payment INV-2 is dead: {dead.error}")


def tell_morning(results: Results, show: Show) -> None:
    """Say what the morning's jobs did.

    Raises:
        DemoFailed: One ended as it should not.
    """
    export, sync = result_of(results, "export", ExportResult), result_of(results, "sync", SyncReport)
    if not sync.ok:
        raise DemoFailed(f"the second ledger differs from the first: {sync.entities}")
    carried = ", ".join(f"{one.written:,} {one.entity}" for one in sync.entities)
    show.step(f"export: {export.rows:,} lines; second ledger: {carried}")


def result_of(results: Results, key: str, kind: type[T]) -> T:
    """Return a job's result as what it is.

    Raises:
        DemoFailed: The job did not complete.
    """
    job = results[key]
    if job.state is not JobState.COMPLETED:
        raise DemoFailed(f"job {job.id} ({job.name}) ended as {job.state}: {job.error}")
    return msgspec.convert(job.result, kind, strict=False)
