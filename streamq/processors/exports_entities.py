"""What the export of each entity asks the ledger: its columns, the filters it knows, and the query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, select

from streamq.errors import Unrecoverable
from streamq.processors.exports_request import ExportFilters
from streamq.processors.imports_request import Entity
from streamq.processors.ledger.tables import accounts, members, postings, transactions
from streamq.processors.writers import Column, Kind

Rows = Select[*tuple[Any, ...]]

_PERIOD = frozenset({"from_", "to", "month", "year"})


class EntityExport(msgspec.Struct, frozen=True):
    """How one entity is exported. The columns are those that its import reads, where it has one for each."""

    columns: tuple[Column, ...]
    filters: frozenset[str]
    query: Callable[[ExportFilters], Rows]


def _members(filters: ExportFilters) -> Rows:
    c = members.c
    query = select(c.id, c.name, c.email, c.phone, c.status, c.joined_on)
    query = _equal(query, (c.status, filters.status), (c.id, filters.user))
    return _between(query, c.joined_on, filters).order_by(c.id)


def _accounts(filters: ExportFilters) -> Rows:
    c = accounts.c
    query = select(c.id, c.member_id, c.kind, c.currency, c.status, c.opened_on).where(c.member_id.is_not(None))
    query = _equal(
        query, (c.status, filters.status), (c.kind, filters.kind), (c.currency, filters.currency),
        (c.member_id, filters.user),
    )  # fmt: skip
    return _between(query, c.opened_on, filters).order_by(c.id)


def _transactions(filters: ExportFilters) -> Rows:
    t, p, a = transactions.c, postings.c, accounts.c
    joined = postings.join(transactions, t.id == p.transaction_id).join(accounts, a.id == p.account_id)
    query = select(
        t.id, p.line, t.booked_on, t.kind, t.currency, p.account_id, a.member_id, p.amount, t.description
    ).select_from(joined)
    query = _equal(
        query, (t.kind, filters.kind), (t.currency, filters.currency), (p.account_id, filters.account),
        (a.member_id, filters.user),
    )  # fmt: skip
    if filters.min_amount is not None:
        query = query.where((p.amount >= filters.min_amount) | (p.amount <= -filters.min_amount))
    return _between(query, t.booked_on, filters).order_by(t.booked_on, t.id, p.line)


def _equal(query: Rows, *wanted: tuple[ColumnElement[Any], str | None]) -> Rows:
    for column, value in wanted:
        if value is not None:
            query = query.where(column == value)
    return query


def _between(query: Rows, column: ColumnElement[Any], filters: ExportFilters) -> Rows:
    first, last = filters.days()
    if first is not None:
        query = query.where(column >= first)
    return query if last is None else query.where(column <= last)


EXPORTS: dict[Entity, EntityExport] = {
    Entity.MEMBERS: EntityExport(
        (
            Column("id", "Member"), Column("name", "Name"), Column("email", "E-mail"), Column("phone", "Phone"),
            Column("status", "Status"), Column("joined_on", "Joined on", Kind.DATE),
        ),
        frozenset({"status", "user"}) | _PERIOD,
        _members,
    ),
    Entity.ACCOUNTS: EntityExport(
        (
            Column("id", "Account"), Column("member_id", "Member"), Column("kind", "Kind"),
            Column("currency", "Currency"), Column("status", "Status"), Column("opened_on", "Opened on", Kind.DATE),
        ),
        frozenset({"status", "kind", "currency", "user"}) | _PERIOD,
        _accounts,
    ),
    Entity.TRANSACTIONS: EntityExport(
        (
            Column("id", "Transaction"), Column("line", "Line", Kind.INTEGER),
            Column("booked_on", "Booked on", Kind.DATE), Column("kind", "Kind"), Column("currency", "Currency"),
            Column("account_id", "Account"), Column("member_id", "Member"), Column("amount", "Amount", Kind.MONEY),
            Column("description", "Description"),
        ),
        frozenset({"kind", "currency", "account", "user", "min_amount"}) | _PERIOD,
        _transactions,
    ),
}  # fmt: skip


def export_of(entity: Entity, filters: ExportFilters) -> EntityExport:
    """Return how `entity` is exported.

    Raises:
        Unrecoverable: A filter is given that the entity does not have: leaving it out in silence would export too much.
    """
    found = EXPORTS[entity]
    if unknown := filters.given() - found.filters:
        raise Unrecoverable(
            f"{entity} have no filter {', '.join(sorted(unknown))}; they have {', '.join(sorted(found.filters))}"
        )
    return found
