"""Custom reports: queries with a name and typed parameters. A job never brings SQL of its own.

Register more from a plugin's module: `@named_query("my-query", "Title", MyParameters, Column(...), ...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import Select, func, select

from streamq.errors import Unrecoverable
from streamq.processors.ledger import to_minor
from streamq.processors.ledger.tables import accounts, members, postings, transactions
from streamq.processors.reports_catalogue import booked, limited
from streamq.processors.reports_request import Period, ReportFilters
from streamq.processors.writers import Column, Kind

Build = Callable[[Any, Period, ReportFilters], Select[Any]]


class NamedQuery(msgspec.Struct, frozen=True):
    """One query: its parameters' type and the function that builds it."""

    name: str
    title: str
    parameters: type[msgspec.Struct]
    columns: tuple[Column, ...]
    build: Build

    def read(self, given: Mapping[str, Any]) -> msgspec.Struct:
        """Return the parameters, typed.

        Raises:
            Unrecoverable: One is missing, unknown or of the wrong type.
        """
        try:
            return msgspec.convert(dict(given), self.parameters, strict=False)
        except msgspec.ValidationError as error:
            raise Unrecoverable(f"parameters of the query {self.name}: {error}") from error


QUERIES: dict[str, NamedQuery] = {}
"""Every query by its name; filled by `named_query` as modules are imported."""


def named_query(name: str, title: str, parameters: type[msgspec.Struct], *columns: Column) -> Callable[[Build], Build]:
    """Register the decorated function, which returns a SQLAlchemy select of `columns`, as the query `name`."""

    def remember(build: Build) -> Build:
        QUERIES[name] = NamedQuery(name, title, parameters, columns, build)
        return build

    return remember


class LargeTransactions(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Parameters: the smallest amount to list."""

    minimum: Decimal

    def __post_init__(self) -> None:
        if to_minor(self.minimum) <= 0:
            raise ValueError("minimum must be positive")


class DormantAccounts(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Parameters: the day since which nothing was booked."""

    since: date


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query that takes none."""


@named_query(
    "large-transactions", "Large transactions", LargeTransactions,
    Column("day", "Day", Kind.DATE), Column("transactionId", "Transaction"), Column("kind", "Kind"),
    Column("accountId", "Account"), Column("amount", "Amount", Kind.MONEY),
)  # fmt: skip
def large_transactions(parameters: LargeTransactions, period: Period, filters: ReportFilters) -> Select[Any]:
    """Lines on members' accounts of at least `minimum`, in or out."""
    amount = postings.c.amount
    query = booked(transactions.c.booked_on, transactions.c.id, transactions.c.kind, accounts.c.id, amount)
    query = query.where((amount >= parameters.minimum) | (amount <= -parameters.minimum))
    return limited(query, period, filters).order_by(transactions.c.booked_on, transactions.c.id, postings.c.line)


@named_query(
    "dormant-accounts", "Dormant accounts", DormantAccounts,
    Column("accountId", "Account"), Column("memberId", "Member"), Column("name", "Name"),
    Column("lastUsed", "Last used", Kind.DATE),
)  # fmt: skip
def dormant_accounts(parameters: DormantAccounts, period: Period, filters: ReportFilters) -> Select[Any]:
    """Members' accounts with nothing booked since a day, those never used included."""
    last = func.max(transactions.c.booked_on)
    joined = (
        accounts.join(members, members.c.id == accounts.c.member_id)
        .outerjoin(postings, postings.c.account_id == accounts.c.id)
        .outerjoin(transactions, transactions.c.id == postings.c.transaction_id)
    )
    query = (
        select(accounts.c.id, members.c.id, members.c.name, last)
        .select_from(joined)
        .group_by(accounts.c.id, members.c.id, members.c.name)
        .having((last < parameters.since) | last.is_(None))
        .order_by(accounts.c.id)
    )
    return query if filters.user is None else query.where(members.c.id == filters.user)


@named_query(
    "accounts-by-kind", "Accounts by kind", NoParameters,
    Column("kind", "Kind"), Column("currency", "Currency"), Column("status", "Status"),
    Column("accounts", "Accounts", Kind.INTEGER),
)  # fmt: skip
def accounts_by_kind(parameters: NoParameters, period: Period, filters: ReportFilters) -> Select[Any]:
    """How many accounts of each kind, currency and status members hold."""
    kind, currency, status = accounts.c.kind, accounts.c.currency, accounts.c.status
    query = select(kind, currency, status, func.count()).where(accounts.c.member_id.is_not(None))
    query = query.where(accounts.c.opened_on <= period.end)
    if filters.user is not None:
        query = query.where(accounts.c.member_id == filters.user)
    return query.group_by(kind, currency, status).order_by(kind, currency, status)
