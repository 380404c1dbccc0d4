"""The reports there are: what each one asks the ledger and how its columns read.

A report is a function from a period and filters to rows, registered under its type and a category; job names are
bound to categories in `reports`. Rows come back whole, so a report has a limit of rows: for more there is the export.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.errors import Unrecoverable
from streamq.processors.ledger.tables import accounts, members, postings, transactions
from streamq.processors.reports_request import Period, ReportFilters
from streamq.processors.writers import Column, Kind, Row

MAX_ROWS = 200_000
ZERO = Decimal("0.00")


class Category(enum.StrEnum):
    """The families of reports."""

    FINANCIAL = "financial"
    ANALYTICS = "analytics"
    EXPORT = "export"
    CUSTOM = "custom"


class Found(msgspec.Struct, frozen=True):
    """A report's rows and the line below them."""

    rows: Sequence[Row]
    totals: Row | None = None


Compile = Callable[[AsyncConnection, Period, ReportFilters], Awaitable[Found]]


class Report(msgspec.Struct, frozen=True):
    """One type of report."""

    type: str
    category: Category
    title: str
    columns: tuple[Column, ...]
    compile: Compile


CATALOGUE: dict[str, Report] = {}
"""Every report by its type; filled below, read-only after."""


def report(kind: str, category: Category, title: str, *columns: Column) -> Callable[[Compile], Compile]:
    """Put the decorated function into the catalogue."""

    def remember(compile_: Compile) -> Compile:
        CATALOGUE[kind] = Report(kind, category, title, columns, compile_)
        return compile_

    return remember


async def fetch(conn: AsyncConnection, query: Select[Any]) -> list[Row]:
    """Return all rows of `query`.

    Raises:
        Unrecoverable: There are more than `MAX_ROWS`.
    """
    rows: list[Row] = [tuple(row) for row in await conn.execute(query.limit(MAX_ROWS + 1))]
    if len(rows) > MAX_ROWS:
        raise Unrecoverable(f"the report has over {MAX_ROWS:,} rows: narrow its filters, or use an export job")
    return rows


def limited(query: Select[Any], period: Period, filters: ReportFilters) -> Select[Any]:
    """Limit a query over transactions, postings and accounts to members' accounts, the period and the filters."""
    query = query.where(accounts.c.member_id.is_not(None), transactions.c.booked_on <= period.end)
    if period.start is not None:
        query = query.where(transactions.c.booked_on >= period.start)
    return _of_owner(query, filters)


def _of_owner(query: Select[Any], filters: ReportFilters) -> Select[Any]:
    if filters.user is not None:
        query = query.where(accounts.c.member_id == filters.user)
    if filters.currency is not None:
        query = query.where(accounts.c.currency == filters.currency)
    return query


def sum_of(condition: ColumnElement[bool] | None = None) -> ColumnElement[Any]:
    """Return the sum of the postings, or of those that meet the condition; zero for none."""
    total = func.sum(postings.c.amount)
    return func.coalesce(total if condition is None else total.filter(condition), Decimal(0))


def booked(*columns: ColumnElement[Any]) -> Select[Any]:
    """Select from postings with their transactions and accounts."""
    joined = postings.join(transactions, transactions.c.id == postings.c.transaction_id)
    return select(*columns).select_from(joined.join(accounts, accounts.c.id == postings.c.account_id))


def total(rows: Sequence[Row], *cells: Any) -> Row | None:
    """Return a totals row: text and None stay, `sum` stands for the column's sum. None if there are no rows."""
    if not rows:
        return None
    return [sum(row[at] for row in rows) if cell is sum else cell for at, cell in enumerate(cells)]


IN, OUT = postings.c.amount > Decimal(0), postings.c.amount < Decimal(0)


@report(
    "monthly-summary", Category.FINANCIAL, "Transaction summary",
    Column("kind", "Kind"), Column("currency", "Currency"), Column("transactions", "Transactions", Kind.INTEGER),
    Column("moneyIn", "Money in", Kind.MONEY), Column("moneyOut", "Money out", Kind.MONEY),
    Column("net", "Net", Kind.MONEY),
)  # fmt: skip
async def monthly_summary(conn: AsyncConnection, period: Period, filters: ReportFilters) -> Found:
    """Members' money by kind of transaction. A transfer between members is both money in and money out."""
    kind, currency = transactions.c.kind, transactions.c.currency
    query = booked(
        kind, currency, func.count(func.distinct(transactions.c.id)), sum_of(IN), sum_of(OUT), sum_of()
    ).group_by(kind, currency)
    rows = await fetch(conn, limited(query, period, filters).order_by(kind, currency))
    one_currency = len({row[1] for row in rows}) == 1
    return Found(rows, total(rows, "Total", rows[0][1], sum, sum, sum, sum) if one_currency else None)


@report(
    "member-balances", Category.FINANCIAL, "Member balances",
    Column("memberId", "Member"), Column("name", "Name"), Column("currency", "Currency"),
    Column("accounts", "Accounts", Kind.INTEGER), Column("balance", "Balance", Kind.MONEY),
)  # fmt: skip
async def member_balances(conn: AsyncConnection, period: Period, filters: ReportFilters) -> Found:
    """Each member's balance at the end of the period; members whose accounts were never used have zero."""
    until = (
        select(postings.c.account_id, func.sum(postings.c.amount).label("balance"))
        .join(transactions, transactions.c.id == postings.c.transaction_id)
        .where(transactions.c.booked_on <= period.end)
        .group_by(postings.c.account_id)
        .subquery()
    )
    held = accounts.join(members, members.c.id == accounts.c.member_id)
    query = (
        select(
            members.c.id, members.c.name, accounts.c.currency, func.count(),
            func.coalesce(func.sum(until.c.balance), Decimal(0)),
        )
        .select_from(held.outerjoin(until, until.c.account_id == accounts.c.id))
        .where(accounts.c.opened_on <= period.end)
        .group_by(members.c.id, members.c.name, accounts.c.currency)
        .order_by(members.c.id, accounts.c.currency)
    )  # fmt: skip
    rows = await fetch(conn, _of_owner(query, filters))
    one_currency = len({row[2] for row in rows}) == 1
    return Found(rows, total(rows, "Total", None, rows[0][2], sum, sum) if one_currency else None)


@report(
    "trial-balance", Category.FINANCIAL, "Trial balance",
    Column("account", "Account"), Column("currency", "Currency"), Column("debit", "Debit", Kind.MONEY),
    Column("credit", "Credit", Kind.MONEY), Column("balance", "Balance", Kind.MONEY),
)  # fmt: skip
async def trial_balance(conn: AsyncConnection, period: Period, filters: ReportFilters) -> Found:
    """The whole books by kind of account, the bank's own accounts by name: the last column sums to zero.

    Raises:
        Unrecoverable: A user is given; one member's books don't balance by themselves.
    """
    if filters.user is not None:
        raise Unrecoverable("a trial balance is of the whole bank: leave filters.user out")
    name = func.coalesce(func.nullif(accounts.c.kind, "bank"), accounts.c.id)
    query = booked(name, accounts.c.currency, sum_of(OUT), sum_of(IN), sum_of())
    query = query.where(transactions.c.booked_on <= period.end).group_by(name, accounts.c.currency)
    rows = await fetch(conn, _of_owner(query, filters).order_by(accounts.c.currency, name))
    return Found(rows, total(rows, "Total", None, sum, sum, sum))


@report(
    "daily-activity", Category.ANALYTICS, "Daily activity",
    Column("day", "Day", Kind.DATE), Column("transactions", "Transactions", Kind.INTEGER),
    Column("activeAccounts", "Active accounts", Kind.INTEGER), Column("moneyIn", "Money in", Kind.MONEY),
    Column("moneyOut", "Money out", Kind.MONEY),
)  # fmt: skip
async def daily_activity(conn: AsyncConnection, period: Period, filters: ReportFilters) -> Found:
    """Transactions, accounts in use and money moved, day by day; days without any are left out."""
    day = transactions.c.booked_on
    query = booked(
        day, func.count(func.distinct(transactions.c.id)), func.count(func.distinct(accounts.c.id)), sum_of(IN),
        sum_of(OUT),
    ).group_by(day)  # fmt: skip
    rows = await fetch(conn, limited(query, period, filters).order_by(day))
    return Found(rows, total(rows, None, sum, None, sum, sum))


@report(
    "top-members", Category.ANALYTICS, "Most active members",
    Column("memberId", "Member"), Column("name", "Name"), Column("transactions", "Transactions", Kind.INTEGER),
    Column("moneyIn", "Money in", Kind.MONEY), Column("moneyOut", "Money out", Kind.MONEY),
)  # fmt: skip
async def top_members(conn: AsyncConnection, period: Period, filters: ReportFilters) -> Found:
    """The 100 members with the most transactions."""
    count = func.count(func.distinct(transactions.c.id))
    query = booked(members.c.id, members.c.name, count, sum_of(IN), sum_of(OUT))
    query = query.join(members, members.c.id == accounts.c.member_id).group_by(members.c.id, members.c.name)
    query = limited(query, period, filters).order_by(count.desc(), members.c.id)
    rows: list[Row] = [tuple(row) for row in await conn.execute(query.limit(100))]
    return Found(rows)


@report(
    "account-statement", Category.EXPORT, "Account statement",
    Column("day", "Day", Kind.DATE), Column("accountId", "Account"), Column("transactionId", "Transaction"),
    Column("kind", "Kind"), Column("description", "Description"), Column("amount", "Amount", Kind.MONEY),
    Column("balance", "Balance", Kind.MONEY),
)  # fmt: skip
async def account_statement(conn: AsyncConnection, period: Period, filters: ReportFilters) -> Found:
    """Every line of one member's accounts, with the balance after each.

    Raises:
        Unrecoverable: No user is given.
    """
    if filters.user is None:
        raise Unrecoverable("an account statement is of one member: give filters.user")
    everything = Period(None, period.end, "")
    query = booked(
        transactions.c.booked_on, accounts.c.id, transactions.c.id, transactions.c.kind, transactions.c.description,
        postings.c.amount,
    ).order_by(accounts.c.id, transactions.c.booked_on, transactions.c.id, postings.c.line)  # fmt: skip
    rows: list[Row] = []
    account, balance = None, ZERO
    for row in await fetch(conn, limited(query, everything, filters)):
        balance = row[5] if row[1] != account else balance + row[5]
        account = row[1]
        if period.start is None or row[0] >= period.start:
            rows.append((*row, balance))
    return Found(rows)
