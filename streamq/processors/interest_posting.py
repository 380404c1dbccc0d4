"""Post daily interest: once per account and day, in batches, going on where an account can't be posted.

Each batch is one database transaction that holds the bookings and, per account, the row of `interest_postings` whose
primary key (account, day) makes the posting exactly-once: a run that is killed leaves whole batches, a run beside it
makes this one's batch fail and be read again. Days are posted in order, since a day's interest earns interest on the
next. A booking that is dated back to a day already posted does not change that day's interest.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.errors import InvalidInput
from streamq.processors.interest_accounts import ONE_DAY, Candidate, Rates, candidates, first_open_day
from streamq.processors.interest_days import divide_half_even
from streamq.processors.ledger import Ledger, Transaction, bank_account, ensure_bank_account, from_minor
from streamq.processors.ledger.books import insert_lines, insert_many
from streamq.processors.ledger.money import MAX_MINOR, now
from streamq.processors.ledger.tables import interest_postings


class InterestRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """The data of a `post-interest` job.

    Attributes:
        date: The day to post. Days that were missed before it are posted first. None, in a schedule's job: the day
            before its slot.
        time_zone: Where that day is counted.
        since: Where accounts without any interest begin, if later than their opening and their first rate.
        max_days: How many days back the run may go; an account further behind is reported, not posted.
        batch_size: Accounts per database transaction.
    """

    date: dt.date | None = None
    time_zone: str = "UTC"
    since: dt.date | None = None
    max_days: int = 31
    batch_size: int = 1_000


class Due(NamedTuple):
    """An account's interest for a day, in minor units: what is to be posted."""

    account_id: str
    currency: str
    balance: int
    amount: int


class AccountError(msgspec.Struct, frozen=True, rename="camel"):
    """An account whose interest for a day could not be posted, and why. It stays due."""

    account_id: str
    day: dt.date
    reason: str


class Tally(msgspec.Struct, kw_only=True):
    """What a run did so far. `errors` keeps the first 100; `failed` counts all."""

    posted: int = 0
    zero: int = 0
    failed: int = 0
    totals: dict[str, int] = {}
    errors: list[AccountError] = []
    days: list[dt.date] = []

    def add(self, batch: Sequence[Due]) -> None:
        """Count a batch that is committed."""
        for due in batch:
            self.totals[due.currency] = self.totals.get(due.currency, 0) + due.amount
            self.zero += not due.amount
        self.posted += len(batch)

    def fail(self, account_id: str, day: dt.date, reason: str) -> None:
        """Count an account that was left out."""
        self.failed += 1
        if len(self.errors) < 100:
            self.errors.append(AccountError(account_id, day, reason[:300]))


class InterestRun:
    """One run up to a day: `async for tally in run.batches()` posts, and tells after each batch."""

    def __init__(self, ledger: Ledger, request: InterestRequest, *, job_id: str | None = None) -> None:
        if request.date is None:
            raise InvalidInput("a run needs a date")
        self._ledger, self._job_id = ledger, job_id
        self._until, self._since, self._batch = request.date, request.since, request.batch_size
        self._oldest = request.date - dt.timedelta(days=request.max_days - 1)
        self._held: set[str] = set()  # accounts that failed on a day: their later days wait
        self.tally = Tally()

    async def batches(self) -> AsyncIterator[Tally]:
        """Post everything that is due, day by day.

        Raises:
            Unrecoverable: A rate makes no sense. Nothing was posted.
            sqlalchemy.exc.OperationalError: The database is gone; what was posted stays, another run goes on there.
        """
        async with self._ledger.read() as conn:
            rates = await Rates.load(conn)
            day = await first_open_day(conn, rates.kinds, rates, self._until, self._since)
        if day is None:
            return
        async with self._ledger.begin() as conn:
            for currency in rates.currencies:
                await ensure_bank_account(conn, currency, "interest")
        day = max(day, self._oldest)
        while day <= self._until:
            async for tally in self._day(rates, day):
                yield tally
            self.tally.days.append(day)
            day += ONE_DAY

    async def _day(self, rates: Rates, day: dt.date) -> AsyncIterator[Tally]:
        after: str | None = ""
        failed: list[Candidate] = []
        while after is not None:
            found: list[Candidate] = []
            try:
                async with self._ledger.begin() as conn:
                    found = await candidates(conn, rates.kinds, day, after=after, limit=self._batch)
                    due = self._due(found, rates, day)
                    await self._book(conn, day, due)
                self.tally.add(due)
            except DBAPIError as error:
                # Another run was faster, and the next read shows what it left, or an account can't be booked.
                if _is_gone(error) or not found:
                    raise
                if found != failed:
                    failed = found
                    continue
                await self._one_by_one(found, rates, day)
            after = found[-1].id if len(found) == self._batch else None
            yield self.tally

    async def _one_by_one(self, found: Sequence[Candidate], rates: Rates, day: dt.date) -> None:
        """Book a batch that failed twice an account at a time."""
        for account in found:
            try:
                async with self._ledger.begin() as conn:
                    due = self._due(await candidates(conn, rates.kinds, day, only=account.id), rates, day)
                    await self._book(conn, day, due)
                self.tally.add(due)
            except DBAPIError as error:
                if _is_gone(error):
                    raise
                self._fail(account.id, day, str(error.orig))

    def _due(self, found: Sequence[Candidate], rates: Rates, day: dt.date) -> list[Due]:
        due, yesterday = [], day - ONE_DAY
        terms = {key: rates.terms(*key, day) for key in {(one.kind, one.currency) for one in found}}
        for account_id, kind, currency, opened_on, last, balance in found:
            on = terms[kind, currency]
            if on is None or account_id in self._held:
                continue
            if last != yesterday:
                next_day = last + ONE_DAY if last else max(opened_on, on.first, self._since or opened_on)
                if next_day < day:
                    reason = f"its next day is {next_day}, before this run's first, {self._oldest}"
                    self._fail(account_id, next_day, reason)
                if next_day != day:
                    continue
            amount = divide_half_even(balance * on.factor, on.divisor)
            if not -MAX_MINOR <= amount <= MAX_MINOR or not -MAX_MINOR <= balance <= MAX_MINOR:
                self._fail(
                    account_id, day, f"interest of {from_minor(amount)} on {from_minor(balance)} is out of range"
                )
                continue
            due.append(Due(account_id, currency, balance, amount))
        return due

    def _fail(self, account_id: str, day: dt.date, reason: str) -> None:
        if account_id not in self._held:
            self._held.add(account_id)
            self.tally.fail(account_id, day, reason)

    async def _book(self, conn: AsyncConnection, day: dt.date, due: Sequence[Due]) -> None:
        if not due:
            return
        booked = {}
        for currency in sorted({one.currency for one in due if one.amount}):
            lines = [(one.account_id, one.amount) for one in due if one.currency == currency and one.amount]
            if total := sum(amount for _, amount in lines):
                lines.append((bank_account(currency, "interest"), -total))
            booked[currency] = f"interest-{day}-{currency}-{uuid.uuid4().hex}"
            await insert_lines(conn, self._head(booked[currency], day, currency), lines)
        columns = ("account_id", "balance", "amount", "transaction_id", "job_id")
        rows = [
            (one.account_id, one.balance, one.amount, booked[one.currency] if one.amount else None, self._job_id)
            for one in due
        ]
        await insert_many(conn, interest_postings, columns, rows, same={"day": day, "created_at": now()})

    def _head(self, transaction_id: str, day: dt.date, currency: str) -> Transaction:
        return Transaction(
            id=transaction_id,
            kind="interest",
            booked_on=day,
            currency=currency,
            postings=(),
            description=f"Interest for {day}",
            job_id=self._job_id,
        )


def _is_gone(error: DBAPIError) -> bool:
    """Whether the database itself is the trouble, and not what was written."""
    return error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))
