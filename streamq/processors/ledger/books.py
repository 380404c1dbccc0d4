"""Move money, and prove that none was lost: the only module that writes transactions and postings.

Each function works on a connection that the caller opened (`Ledger.begin`), so that a booking commits together
with whatever else it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import chain, count, islice, repeat
from typing import Any

import msgspec
from sqlalchemy import Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.processors.ledger.errors import TransactionDiffers, UnbalancedTransaction, UnknownAccount, WrongCurrency
from streamq.processors.ledger.money import check_currency, from_minor, now, to_minor
from streamq.processors.ledger.tables import accounts, postings, transactions

CHUNK = 5_000
"""Ids per query: well under the limits of both databases on parameters (some 32,000)."""

_HEAD = ("id", "kind", "booked_on", "currency", "description", "job_id")
_LINE = ("transaction_id", "line", "account_id", "amount")

VALUES = 2_000
"""Values per INSERT of many rows: short enough to be parsed fast and to leave memory flat over millions of rows."""


class Posting(msgspec.Struct, frozen=True, array_like=True):
    """One line of a transaction."""

    account_id: str
    amount: Decimal


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """Postings that belong together and sum to zero. The id is the caller's and makes the booking idempotent."""

    id: str
    kind: str
    booked_on: date
    postings: tuple[Posting, ...]
    currency: str = "EUR"
    description: str = ""
    job_id: str | None = None


class Booked(msgspec.Struct, frozen=True):
    """What `post` did: the ids it booked now, and those that were booked before."""

    new: tuple[str, ...]
    known: tuple[str, ...]


class BooksReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `verify_books` found. The examples are capped at 100 ids each."""

    transactions: int
    postings: int
    total: Decimal
    unbalanced: tuple[str, ...]
    incomplete: tuple[str, ...]
    wrong_currency: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the books balance: every transaction, every currency, and the whole."""
        return not (self.total or self.unbalanced or self.incomplete or self.wrong_currency)


def check_transaction(transaction: Transaction) -> None:
    """Raise UnbalancedTransaction if there are fewer than two postings, one of them is zero, or their sum is not."""
    if len(transaction.postings) < 2:
        raise UnbalancedTransaction(transaction.id, "a transaction needs at least two postings")
    try:
        amounts = [to_minor(p.amount) for p in transaction.postings]
    except ValueError as error:
        raise UnbalancedTransaction(transaction.id, str(error)) from None
    if 0 in amounts:
        raise UnbalancedTransaction(transaction.id, "a posting must not be zero")
    if sum(amounts):
        raise UnbalancedTransaction(transaction.id, f"its postings sum to {from_minor(sum(amounts))}, not to zero")


async def post(conn: AsyncConnection, batch: Sequence[Transaction]) -> Booked:
    """Book the transactions of `batch` whose ids are not booked yet: all of them or, when it raises, none.

    Repeating a call is harmless: a transaction that is booked already and equal is left alone.

    Raises:
        UnbalancedTransaction, UnknownAccount, WrongCurrency: One of them is not fit to be booked.
        TransactionDiffers: An id is booked with another kind, day, currency or postings, or comes twice in the batch.
        sqlalchemy.exc.IntegrityError: Another writer booked one of the ids meanwhile (PostgreSQL only): do it again.
    """
    by_id: dict[str, Transaction] = {}
    for transaction in batch:
        check_transaction(transaction)
        if by_id.setdefault(transaction.id, transaction) != transaction:
            raise TransactionDiffers(transaction.id)
    await _check_accounts(conn, by_id.values())
    known = await _booked(conn, by_id)
    for transaction_id, found in known.items():
        if found != _fingerprint(by_id[transaction_id]):
            raise TransactionDiffers(transaction_id)
    new = [t for t in by_id.values() if t.id not in known]
    await insert_unchecked(conn, new)
    return Booked(tuple(t.id for t in new), tuple(known))


async def insert_unchecked(conn: AsyncConnection, batch: Sequence[Transaction]) -> None:
    """Insert transactions that the caller has checked: balanced, accounts known and of their currency, ids unused."""
    if not batch:
        return
    await _insert_heads(conn, batch)
    lines = [(t.id, line, p.account_id, to_minor(p.amount)) for t in batch for line, p in enumerate(t.postings, 1)]
    await insert_many(conn, postings, _LINE, lines)


async def _insert_heads(conn: AsyncConnection, batch: Sequence[Transaction]) -> None:
    as_text = conn.dialect.name == "sqlite"  # which has no dates; PostgreSQL's driver takes nothing but dates
    rows = [
        (t.id, t.kind, t.booked_on.isoformat() if as_text else t.booked_on, t.currency, t.description, t.job_id)
        for t in batch
    ]
    await insert_many(conn, transactions, _HEAD, rows, same={"created_at": now()})


async def insert_lines(conn: AsyncConnection, head: Transaction, lines: Sequence[tuple[str, int]]) -> None:
    """Insert one transaction of many lines: `head` without postings, and (account id, minor units) for each line.

    For batches: amounts are not turned into Decimals, and the caller has checked the accounts, their currency and
    that the id is not booked.

    Raises:
        UnbalancedTransaction: There are fewer than two lines, or they don't sum to zero. Nothing was written.
    """
    total = sum(amount for _, amount in lines)
    if len(lines) < 2 or total:
        raise UnbalancedTransaction(head.id, f"its {len(lines)} lines sum to {from_minor(total)}")
    await _insert_heads(conn, [head])
    await insert_many(conn, postings, _LINE, [(head.id, n, *line) for n, line in enumerate(lines, 1)])


async def insert_many(
    conn: AsyncConnection, table: Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *,
    same: Mapping[str, date | datetime] | None = None,
) -> None:  # fmt: skip
    """Insert `rows` of plain values (text, whole numbers, None: amounts in minor units) with few statements.

    `same` holds the columns whose date or moment (in UTC) all rows share. For batches: SQLAlchemy's own way from a row
    to the driver costs more than the database's part.
    """
    shared = {name: f"'{value:%Y-%m-%d %H:%M:%S.%f}'" if isinstance(value, datetime) else f"'{value:%Y-%m-%d}'"
              for name, value in (same or {}).items()}  # fmt: skip
    head = f"INSERT INTO {table.name} ({', '.join([*columns, *shared])}) VALUES "  # noqa: S608 - names of our own
    width = len(columns)
    for start in range(0, len(rows), VALUES // width):
        part = rows[start : start + VALUES // width]
        line = f"({', '.join([*['{}'] * width, *shared.values()])})"
        marks = (f"${n}" for n in count(1)) if conn.dialect.name == "postgresql" else repeat("?")
        lines = ", ".join([line] * len(part)).format(*islice(marks, len(part) * width))
        await conn.exec_driver_sql(head + lines, tuple(chain.from_iterable(part)))


async def currencies(conn: AsyncConnection, account_ids: Iterable[str]) -> dict[str, str]:
    """Return the currency of each of `account_ids` that exists."""
    wanted, found = sorted(set(account_ids)), {}
    for start in range(0, len(wanted), CHUNK):
        rows = await conn.execute(
            select(accounts.c.id, accounts.c.currency).where(accounts.c.id.in_(wanted[start : start + CHUNK]))
        )
        found.update({row.id: row.currency for row in rows})
    return found


async def balance(conn: AsyncConnection, account_id: str, on: date | None = None) -> Decimal:
    """Return the account's balance at the end of `on`, or of all that is booked. An unknown account has zero."""
    return (await balances(conn, [account_id], on)).get(account_id, Decimal("0.00"))


async def balances(
    conn: AsyncConnection, account_ids: Iterable[str] | None = None, on: date | None = None
) -> dict[str, Decimal]:
    """Return the balances, at the end of `on` or of all that is booked, of every account that has postings."""
    query = select(postings.c.account_id, func.sum(postings.c.amount)).group_by(postings.c.account_id)
    if on is not None:
        query = query.join(transactions, transactions.c.id == postings.c.transaction_id)
        query = query.where(transactions.c.booked_on <= on)
    if account_ids is None:
        return {row[0]: row[1] for row in await conn.execute(query)}
    wanted, found = sorted(set(account_ids)), {}
    for start in range(0, len(wanted), CHUNK):
        part = query.where(postings.c.account_id.in_(wanted[start : start + CHUNK]))
        found.update({row[0]: row[1] for row in await conn.execute(part)})
    return found


def bank_account(currency: str, purpose: str = "cash") -> str:
    """Return the id of the bank's own account for `purpose` (cash, interest, fees …) in `currency`."""
    return f"BANK-{purpose.upper()}-{check_currency(currency)}"


async def ensure_bank_account(conn: AsyncConnection, currency: str, purpose: str = "cash") -> str:
    """Return the id of the bank's own account, opening it if it is not there. Safe to repeat."""
    account_id = bank_account(currency, purpose)
    row = {"id": account_id, "kind": "bank", "currency": currency, "opened_on": now().date()}
    upsert = postgresql.insert(accounts) if conn.dialect.name == "postgresql" else sqlite.insert(accounts)
    await conn.execute(upsert.values(row).on_conflict_do_nothing())
    return account_id


async def verify_books(conn: AsyncConnection) -> BooksReport:
    """Check the whole ledger: every transaction sums to zero, has two postings or more, in its accounts' currency."""
    total = func.sum(postings.c.amount)
    joined = transactions.outerjoin(postings, postings.c.transaction_id == transactions.c.id)
    grouped = select(transactions.c.id).select_from(joined).group_by(transactions.c.id).limit(100)
    foreign = (
        select(transactions.c.id)
        .distinct()
        .join(postings, postings.c.transaction_id == transactions.c.id)
        .join(accounts, accounts.c.id == postings.c.account_id)
        .where(accounts.c.currency != transactions.c.currency)
        .limit(100)
    )
    lines, whole = (await conn.execute(select(func.count(), total).select_from(postings))).one()
    return BooksReport(
        transactions=(await conn.execute(select(func.count()).select_from(transactions))).scalar_one(),
        postings=lines,
        total=whole if whole is not None else Decimal("0.00"),
        unbalanced=tuple((await conn.execute(grouped.having(total != Decimal(0)))).scalars()),
        incomplete=tuple((await conn.execute(grouped.having(func.count(postings.c.line) < 2))).scalars()),
        wrong_currency=tuple((await conn.execute(foreign)).scalars()),
    )


async def _check_accounts(conn: AsyncConnection, batch: Iterable[Transaction]) -> None:
    lines = [(t, p.account_id) for t in batch for p in t.postings]
    found = await currencies(conn, (account_id for _, account_id in lines))
    for transaction, account_id in lines:
        if account_id not in found:
            raise UnknownAccount(account_id)
        if found[account_id] != transaction.currency:
            raise WrongCurrency(transaction.id, account_id, found[account_id], transaction.currency)


_Fingerprint = tuple[str, date, str, tuple[tuple[str, int], ...]]


def _fingerprint(transaction: Transaction) -> _Fingerprint:
    lines = tuple((p.account_id, to_minor(p.amount)) for p in transaction.postings)
    return transaction.kind, transaction.booked_on, transaction.currency, lines


async def _booked(conn: AsyncConnection, ids: Iterable[str]) -> dict[str, _Fingerprint]:
    """Return what is booked under `ids`."""
    wanted, found = sorted(ids), {}
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        heads = await conn.execute(
            select(transactions.c.id, transactions.c.kind, transactions.c.booked_on, transactions.c.currency).where(
                transactions.c.id.in_(chunk)
            )
        )
        known = {row.id: (row.kind, row.booked_on, row.currency) for row in heads}
        if not known:
            continue
        lines: dict[str, list[tuple[str, int]]] = {transaction_id: [] for transaction_id in known}
        for row in await conn.execute(
            select(postings.c.transaction_id, postings.c.account_id, postings.c.amount)
            .where(postings.c.transaction_id.in_(list(known)))
            .order_by(postings.c.transaction_id, postings.c.line)
        ):
            lines[row.transaction_id].append((row.account_id, to_minor(row.amount)))
        found.update({key: (*head, tuple(lines[key])) for key, head in known.items()})
    return found
