"""Financial calculations: the plugin of the queue `calculations`. `post-interest` and `run-recurring-transactions`.

Both may run as often as one likes, be killed at any point and run beside themselves: what they book is keyed by
account and day, or by recurring transaction and due date, and booked in one database transaction with that key.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import msgspec

from streamq.errors import Unrecoverable
from streamq.job import QueueName
from streamq.processor import ActiveJob, Processors
from streamq.processors.calculations_day import slot_day
from streamq.processors.interest_posting import AccountError, InterestRequest, InterestRun
from streamq.processors.ledger import from_minor, open_ledger
from streamq.processors.recurring_run import InstanceReport, RecurringRequest, RecurringRun

processors = Processors()

_MAX_DAYS = 3_660


class InterestReport(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a run posted.

    Attributes:
        days: The days it went through.
        posted: Account days posted, those whose interest was zero included.
        zero: How many of them came to zero.
        totals: Interest by currency.
        failed: Accounts that could not be posted; they stay due.
        errors: The first 100 of them, and why.
    """

    date: dt.date
    days: list[dt.date]
    posted: int
    zero: int
    totals: dict[str, Decimal]
    failed: int
    errors: list[AccountError]


@processors.register("post-interest", queue=QueueName.CALCULATIONS, data=InterestRequest)
async def post_interest(job: ActiveJob[InterestRequest]) -> InterestReport:
    """Post each account's interest up to a day, once per account and day.

    Raises:
        Unrecoverable: The request or a rate makes no sense. Nothing was posted.
    """
    request = job.data
    if not 1 <= request.max_days <= _MAX_DAYS or not 1 <= request.batch_size <= 10_000:
        raise Unrecoverable(f"maxDays must be 1 to {_MAX_DAYS:,} and batchSize 1 to 10,000")
    day = request.date or slot_day(job, request.time_zone) - dt.timedelta(days=1)
    async with open_ledger() as ledger:
        run = InterestRun(ledger, msgspec.structs.replace(request, date=day), job_id=job.id)
        async for tally in run.batches():
            await job.progress({"posted": tally.posted, "failed": tally.failed, "days": len(tally.days)})
    for error in run.tally.errors:
        await job.log(f"{error.account_id} {error.day}: {error.reason}")
    return InterestReport(
        date=day,
        days=run.tally.days,
        posted=run.tally.posted,
        zero=run.tally.zero,
        totals={currency: from_minor(total) for currency, total in sorted(run.tally.totals.items())},
        failed=run.tally.failed,
        errors=run.tally.errors,
    )


class RecurringReport(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What a run did.

    Attributes:
        executed, skipped, deferred, failed: Instances by what became of them; `failed` also counts recurring
            transactions that could not be read.
        totals: Money moved by currency.
        others: The first 100 instances that were not executed, and why.
    """

    date: dt.date
    executed: int
    skipped: int
    deferred: int
    failed: int
    totals: dict[str, Decimal]
    others: list[InstanceReport]


@processors.register("run-recurring-transactions", queue=QueueName.CALCULATIONS, data=RecurringRequest)
async def run_recurring_transactions(job: ActiveJob[RecurringRequest]) -> RecurringReport:
    """Execute each recurring transaction's due instances, once per due date.

    Raises:
        Unrecoverable: The request makes no sense. Nothing was executed.
    """
    if not 0 <= job.data.retry_days <= 366:
        raise Unrecoverable("retryDays must be 0 to 366")
    day = job.data.date or slot_day(job, job.data.time_zone)
    async with open_ledger() as ledger:
        run = RecurringRun(ledger, msgspec.structs.replace(job.data, date=day), job_id=job.id)
        async for tally in run.pages():
            await job.progress({"executed": tally.executed, "failed": tally.failed})
    tally = run.tally
    for other in tally.others:
        await job.log(f"{other.recurring_id} {other.due_on}: {other.status}: {other.reason}")
    return RecurringReport(
        date=day,
        executed=tally.executed,
        skipped=tally.skipped,
        deferred=tally.deferred,
        failed=tally.failed,
        totals=dict(sorted(tally.totals.items())),
        others=tally.others,
    )
