"""Execute recurring transactions: each instance once, whatever runs, dies or runs beside.

One database transaction per recurring transaction: it locks the row, books what is due, records each instance under
its primary key (recurring transaction, due date) and moves `next_due_on` on, all or nothing. Money moves on the day of
the run: an instance that is made up for is not dated back.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Row, and_, exists, insert, or_, select, update
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.errors import InvalidInput
from streamq.processors.ledger import Ledger, LedgerError, Posting, Transaction, balance, post
from streamq.processors.ledger.tables import accounts, recurring_instances, recurring_transactions
from streamq.processors.recurring_plan import InsufficientFunds, Missed, plan
from streamq.processors.recurring_schedule import Frequency, MonthEnd, Rule

_ACTIVE, _ENDED, _STOPPED = "active", "ended", "stopped"
_PAGE = 500


class InstanceStatus(enum.StrEnum):
    """What became of an instance."""

    EXECUTED = "executed"
    SKIPPED = "skipped"
    DEFERRED = "deferred"
    FAILED = "failed"


class RecurringRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The data of a `run-recurring-transactions` job.

    Attributes:
        date: The day to run; instances due on it or before are executed, by each one's policies. None, in a schedule's
            job: the day of its slot.
        time_zone: Where that day is counted.
        retry_days: On how many following days an instance without funds is tried again.
    """

    date: dt.date | None = None
    time_zone: str = "UTC"
    retry_days: int = 3


class InstanceReport(msgspec.Struct, frozen=True, rename="camel"):
    """An instance that was not executed, or a recurring transaction that could not be read (then without a date)."""

    recurring_id: str
    due_on: dt.date | None
    status: str
    reason: str


class RecurringTally(msgspec.Struct, kw_only=True):
    """What a run did so far. `others` keeps the first 100 instances that were not executed."""

    executed: int = 0
    skipped: int = 0
    deferred: int = 0
    failed: int = 0
    totals: dict[str, Decimal] = {}
    others: list[InstanceReport] = []

    def add(self, outcome: Outcome) -> None:
        """Count an instance that is committed."""
        status = outcome.status.value
        setattr(self, status, getattr(self, status) + 1)
        if outcome.status is InstanceStatus.EXECUTED:
            self.totals[outcome.currency] = self.totals.get(outcome.currency, Decimal("0.00")) + outcome.amount
        else:
            self.report(InstanceReport(outcome.recurring_id, outcome.due_on, status, outcome.reason))

    def report(self, other: InstanceReport) -> None:
        """Keep `other` if there is room."""
        if len(self.others) < 100:
            self.others.append(other)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded of one instance."""

    recurring_id: str
    due_on: dt.date
    status: InstanceStatus
    reason: str = ""
    transaction_id: str | None = None
    currency: str = ""
    amount: Decimal = Decimal("0.00")
    tries: int = 1
    retry_on: dt.date | None = None


class RecurringRun:
    """One run for a day: `async for tally in run.pages()` executes, and tells now and then."""

    def __init__(self, ledger: Ledger, request: RecurringRequest, *, job_id: str | None = None) -> None:
        if request.date is None:
            raise InvalidInput("a run needs a date")
        self._ledger, self._day, self._retry_days, self._job_id = ledger, request.date, request.retry_days, job_id
        self.tally = RecurringTally()

    async def pages(self) -> AsyncIterator[RecurringTally]:
        """Execute everything that is due.

        Raises:
            sqlalchemy.exc.OperationalError: The database is gone; what was executed stays, another run goes on there.
        """
        after: str | None = ""
        while after is not None:
            ids = await self._due_ids(after)
            for recurring_id in ids:
                await self._one(recurring_id)
            after = ids[-1] if len(ids) == _PAGE else None
            yield self.tally

    async def _due_ids(self, after: str) -> list[str]:
        series, instances = recurring_transactions.c, recurring_instances.c
        again = exists().where(
            instances.recurring_id == series.id,
            instances.status == InstanceStatus.DEFERRED.value,
            instances.retry_on <= self._day,
        )
        query = (
            select(series.id)
            .where(series.id > after)
            .where(
                or_(
                    and_(series.status == _ACTIVE, series.next_due_on <= self._day),
                    and_(series.status.in_((_ACTIVE, _ENDED)), again),
                )
            )
            .order_by(series.id)
            .limit(_PAGE)
        )
        async with self._ledger.read() as conn:
            return list((await conn.execute(query)).scalars())

    async def _one(self, recurring_id: str) -> None:
        try:
            async with self._ledger.begin() as conn:
                outcomes = await self._run_series(conn, recurring_id)
        except DBAPIError as error:
            if error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError)):
                raise
            self._could_not(recurring_id, str(error.orig))
        except ValueError as error:  # the row's rule or policy makes no sense
            self._could_not(recurring_id, str(error))
        else:
            for outcome in outcomes:
                self.tally.add(outcome)

    def _could_not(self, recurring_id: str, reason: str) -> None:
        self.tally.failed += 1
        self.tally.report(InstanceReport(recurring_id, None, "error", reason[:300]))

    async def _run_series(self, conn: AsyncConnection, recurring_id: str) -> list[Outcome]:
        # Locked: of two runs side by side the second one waits here and finds nothing due.
        query = select(recurring_transactions).where(recurring_transactions.c.id == recurring_id).with_for_update()
        series = (await conn.execute(query)).one()
        policy = InsufficientFunds(series.insufficient_funds)
        outcomes = []
        for instance in await self._deferred(conn, series):
            outcome = await self._execute(conn, series, instance.due_on, policy, tries=instance.tries + 1)
            await self._record(conn, outcome, known=True)
            outcomes.append(outcome)
        if series.status == _ACTIVE and series.next_due_on is not None and series.next_due_on <= self._day:
            outcomes += await self._run_due(conn, series, policy)
        return outcomes

    async def _run_due(self, conn: AsyncConnection, series: Row[Any], policy: InsufficientFunds) -> list[Outcome]:
        todo = plan(_rule(series), series.next_due_on, self._day, Missed(series.missed))
        reason = f"missed, and its policy is {series.missed}"
        outcomes = [
            Outcome(recurring_id=series.id, due_on=day, status=InstanceStatus.SKIPPED, reason=reason)
            for day in todo.skip
        ]
        next_due, status = todo.next_due, _ACTIVE if todo.next_due else _ENDED
        for day in todo.execute:
            outcomes.append(await self._execute(conn, series, day, policy))
            if outcomes[-1].status is InstanceStatus.FAILED and policy is InsufficientFunds.FAIL:
                status = _STOPPED  # the instances after this one stay due until somebody starts the series again
                next_due = _rule(series).next_after(day)
                break
        for outcome in outcomes:
            await self._record(conn, outcome)
        changed = update(recurring_transactions).where(recurring_transactions.c.id == series.id)
        await conn.execute(changed.values(next_due_on=next_due, status=status))
        return outcomes

    async def _deferred(self, conn: AsyncConnection, series: Row[Any]) -> Sequence[Row[Any]]:
        if series.status not in (_ACTIVE, _ENDED):
            return []
        query = (
            select(recurring_instances)
            .where(
                recurring_instances.c.recurring_id == series.id,
                recurring_instances.c.status == InstanceStatus.DEFERRED.value,
                recurring_instances.c.retry_on <= self._day,
            )
            .order_by(recurring_instances.c.due_on)
        )
        return (await conn.execute(query)).all()

    async def _execute(
        self, conn: AsyncConnection, series: Row[Any], due_on: dt.date, policy: InsufficientFunds, tries: int = 1
    ) -> Outcome:
        """Book one instance, or say why not."""
        outcome = Outcome(recurring_id=series.id, due_on=due_on, status=InstanceStatus.EXECUTED, tries=tries)
        held = {row.id: row for row in await self._lock_accounts(conn, series)}
        source, target = held[series.from_account_id], held[series.to_account_id]
        if source.id == target.id:
            return _changed(outcome, InstanceStatus.FAILED, f"it moves money from {source.id} to itself")
        for account in (source, target):
            if account.status != "open":
                return _changed(outcome, InstanceStatus.FAILED, f"account {account.id} is {account.status}")
        if source.member_id is not None and (left := await balance(conn, source.id)) < series.amount:
            return self._not_covered(outcome, policy, f"{left} {source.currency} do not cover {series.amount}")
        transaction = Transaction(
            id=transaction_id(series.id, due_on),
            kind="recurring",
            booked_on=self._day,
            currency=source.currency,
            postings=(Posting(source.id, -series.amount), Posting(target.id, series.amount)),
            description=series.description or f"Recurring transaction {series.id}, due {due_on}"[:500],
            job_id=self._job_id,
        )
        try:
            await post(conn, [transaction])
        except LedgerError as error:
            return _changed(outcome, InstanceStatus.FAILED, str(error))
        return msgspec.structs.replace(
            outcome, transaction_id=transaction.id, currency=source.currency, amount=series.amount
        )

    def _not_covered(self, outcome: Outcome, policy: InsufficientFunds, reason: str) -> Outcome:
        if policy is InsufficientFunds.SKIP:
            return _changed(outcome, InstanceStatus.SKIPPED, reason)
        if policy is InsufficientFunds.FAIL or outcome.tries > self._retry_days:
            return _changed(outcome, InstanceStatus.FAILED, reason)
        deferred = _changed(outcome, InstanceStatus.DEFERRED, reason)
        return msgspec.structs.replace(deferred, retry_on=self._day + dt.timedelta(days=1))

    async def _lock_accounts(self, conn: AsyncConnection, series: Row[Any]) -> Sequence[Row[Any]]:
        """Lock both accounts, in the same order everywhere, so that two series can't spend the same balance."""
        both = (series.from_account_id, series.to_account_id)
        query = select(accounts).where(accounts.c.id.in_(both)).order_by(accounts.c.id).with_for_update()
        return (await conn.execute(query)).all()

    async def _record(self, conn: AsyncConnection, outcome: Outcome, *, known: bool = False) -> None:
        values = {
            "status": outcome.status.value,
            "reason": outcome.reason[:500],
            "transaction_id": outcome.transaction_id,
            "tries": outcome.tries,
            "retry_on": outcome.retry_on,
            "job_id": self._job_id,
        }
        table = recurring_instances
        if known:
            row = (table.c.recurring_id == outcome.recurring_id) & (table.c.due_on == outcome.due_on)
            await conn.execute(update(table).where(row).values(**values))
        else:
            key = {"recurring_id": outcome.recurring_id, "due_on": outcome.due_on}
            await conn.execute(insert(table).values(**key, **values))


def transaction_id(recurring_id: str, due_on: dt.date) -> str:
    """Return the id that an instance is booked under: always the same, so that it can't be booked twice."""
    return f"recurring-{due_on}-{hashlib.sha256(recurring_id.encode()).hexdigest()[:32]}"


def _rule(series: Row[Any]) -> Rule:
    return Rule(
        frequency=Frequency(series.frequency),
        start=series.start,
        interval=series.interval,
        end_date=series.end_date,
        count=series._mapping["count"],  # a row has a method of this name
        month_end=MonthEnd(series.month_end),
    )


def _changed(outcome: Outcome, status: InstanceStatus, reason: str) -> Outcome:
    return msgspec.structs.replace(outcome, status=status, reason=reason)
