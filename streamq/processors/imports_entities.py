"""Put a batch of checked records into the ledger: what only the ledger can tell is wrong with them is found here.

Everything runs in the transaction of the batch; nothing here commits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from sqlalchemy import Table, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.processors.imports_records import AccountRecord, MemberRecord, Record, TransactionRecord
from streamq.processors.imports_request import Entity, ImportRequest, OnDuplicate, RowError
from streamq.processors.ledger import Posting, Transaction, tables
from streamq.processors.ledger.books import CHUNK, ensure_bank_account, insert_unchecked
from streamq.processors.ledger.money import now

R = TypeVar("R", MemberRecord, AccountRecord, TransactionRecord)
_CACHE = 100_000


class Stored(msgspec.Struct):
    """What became of a batch."""

    imported: int = 0
    skipped: int = 0
    errors: list[RowError] = []


class EntityImport(Protocol):
    """Stores batches of one entity, in order."""

    async def store(self, conn: AsyncConnection, batch: Sequence[tuple[int, Any]]) -> Stored:
        """Insert the records of `batch` (row number, record) that the ledger can take."""


def entity_import(request: ImportRequest, job_id: str, today: date) -> EntityImport:
    """Return what stores the request's entity; `today` stands for a day that a record leaves out."""
    entity, on_duplicate = request.entity, request.on_duplicate
    if request.update:
        fixed = () if entity == Entity.MEMBERS else ("member_id", "currency")
        return EntityUpdate(tables.members if entity == Entity.MEMBERS else tables.accounts, fixed)
    if entity == Entity.MEMBERS:
        return MemberImport(tables.members, on_duplicate, today)
    if entity == Entity.ACCOUNTS:
        return AccountImport(tables.accounts, on_duplicate, today)
    return TransactionImport(tables.transactions, on_duplicate, job_id)


class _ByID(Generic[R]):
    """What all three share: an id that the ledger or the batch has already is a duplicate."""

    def __init__(self, table: Table, on_duplicate: OnDuplicate) -> None:
        self._table, self._skip = table, on_duplicate == OnDuplicate.SKIP

    async def _fresh(self, conn: AsyncConnection, batch: Sequence[tuple[int, R]], into: Stored) -> list[tuple[int, R]]:
        known = await existing(conn, self._table, (record.id for _, record in batch))
        fresh = []
        for row, record in batch:
            if record.id not in known:
                known.add(record.id)
                fresh.append((row, record))
            elif self._skip:
                into.skipped += 1
            else:
                into.errors.append(RowError(row, "id", f"{record.id} exists already"))
        return fresh


class MemberImport(_ByID[MemberRecord]):
    """Members stand alone."""

    def __init__(self, table: Table, on_duplicate: OnDuplicate, today: date) -> None:
        super().__init__(table, on_duplicate)
        self._today = today

    async def store(self, conn: AsyncConnection, batch: Sequence[tuple[int, MemberRecord]]) -> Stored:
        done = Stored()
        rows = [_columns(record, joined_on=self._today) for _, record in await self._fresh(conn, batch, done)]
        if rows:
            await conn.execute(insert(self._table), rows)
        done.imported = len(rows)
        return done


class AccountImport(_ByID[AccountRecord]):
    """An account needs its member."""

    def __init__(self, table: Table, on_duplicate: OnDuplicate, today: date) -> None:
        super().__init__(table, on_duplicate)
        self._today = today

    async def store(self, conn: AsyncConnection, batch: Sequence[tuple[int, AccountRecord]]) -> Stored:
        done = Stored()
        fresh = await self._fresh(conn, batch, done)
        members = await existing(conn, tables.members, (record.member_id for _, record in fresh))
        rows = []
        for row, record in fresh:
            if record.member_id in members:
                rows.append(_columns(record, opened_on=self._today))
            else:
                done.errors.append(RowError(row, "member_id", f"member {record.member_id} does not exist"))
        if rows:
            await conn.execute(insert(self._table), rows)
        done.imported = len(rows)
        return done


class EntityUpdate:
    """Changes rows that are there, in the order in which they come: what a patch leaves unset stays as it is."""

    def __init__(self, table: Table, fixed: tuple[str, ...]) -> None:
        self._table, self._fixed = table, fixed

    async def store(self, conn: AsyncConnection, batch: Sequence[tuple[int, msgspec.Struct]]) -> Stored:
        done = Stored()
        rows = [(row, _given(patch)) for row, patch in batch]
        present = await self._present(conn, (given["id"] for _, given in rows))
        sound = []
        for row, given in rows:
            wrong = self._wrong(given, present)
            if wrong is None:
                sound.append(given)
            else:
                done.errors.append(RowError(row, *wrong))
        for _, alike in itertools.groupby(sound, key=lambda given: given.keys()):
            changes = [{"of": given["id"]} | {k: v for k, v in given.items() if k != "id"} for given in alike]
            if len(changes[0]) > 1:
                await conn.execute(update(self._table).where(self._table.c.id == bindparam("of")), changes)
        done.imported = len(sound)
        return done

    async def _present(self, conn: AsyncConnection, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        columns = [self._table.c[name] for name in ("id", *self._fixed)]
        found: dict[str, dict[str, Any]] = {}
        for chunk in _chunks(set(ids)):
            rows = await conn.execute(select(*columns).where(self._table.c.id.in_(chunk)))
            found.update({row.id: dict(row._mapping) for row in rows})
        return found

    def _wrong(self, given: dict[str, Any], present: dict[str, dict[str, Any]]) -> tuple[str, str] | None:
        now_ = present.get(given["id"])
        if now_ is None:
            return "id", f"{given['id']} does not exist"
        for field in self._fixed:
            if given.get(field, now_[field]) != now_[field]:
                return field, f"can't be changed: it is {now_[field]}"
        return None


class TransactionImport(_ByID[TransactionRecord]):
    """A transaction becomes two postings on accounts of one currency, so the books stay balanced row by row."""

    def __init__(self, table: Table, on_duplicate: OnDuplicate, job_id: str) -> None:
        super().__init__(table, on_duplicate)
        self._job_id = job_id
        self._accounts: dict[str, tuple[str, str]] = {}
        self._cash: dict[str, str] = {}

    async def store(self, conn: AsyncConnection, batch: Sequence[tuple[int, TransactionRecord]]) -> Stored:
        done = Stored()
        fresh = await self._fresh(conn, batch, done)
        await self._learn(conn, fresh)
        booked = []
        for row, record in fresh:
            wrong = self._wrong(record)
            if wrong is not None:
                done.errors.append(RowError(row, *wrong))
                continue
            currency = self._accounts[record.account_id][0]
            counter = record.counter_account_id or self._cash.get(currency)
            if counter is None:
                counter = self._cash[currency] = await ensure_bank_account(conn, currency)
            booked.append(self._transaction(record, currency, counter))
        await insert_unchecked(conn, booked)
        done.imported = len(booked)
        return done

    async def _learn(self, conn: AsyncConnection, batch: Sequence[tuple[int, TransactionRecord]]) -> None:
        """Look up the accounts of a batch that are not known yet."""
        if len(self._accounts) > _CACHE:
            self._accounts.clear()
        wanted = {record.account_id for _, record in batch}
        wanted.update(record.counter_account_id for _, record in batch if record.counter_account_id)
        columns = tables.accounts.c
        for ids in _chunks(wanted - self._accounts.keys()):
            query = select(columns.id, columns.currency, columns.status).where(columns.id.in_(ids))
            self._accounts.update({row[0]: (row[1], row[2]) for row in await conn.execute(query)})

    def _wrong(self, record: TransactionRecord) -> tuple[str, str] | None:
        for field, account in (("account_id", record.account_id), ("counter_account_id", record.counter_account_id)):
            if account is None:
                continue
            if account not in self._accounts:
                return field, f"account {account} does not exist"
            currency, status = self._accounts[account]
            if status != "open":
                return field, f"account {account} is {status}"
            if currency != (record.currency or self._accounts[record.account_id][0]):
                return field, f"account {account} is kept in {currency}"
        return None

    def _transaction(self, record: TransactionRecord, currency: str, counter: str) -> Transaction:
        kind = record.kind
        if kind is None:
            kind = "transfer" if record.counter_account_id else "deposit" if record.amount > 0 else "withdrawal"
        return Transaction(
            id=record.id,
            kind=kind,
            booked_on=record.booked_on,
            postings=(Posting(record.account_id, record.amount), Posting(counter, -record.amount)),
            currency=currency,
            description=record.description,
            job_id=self._job_id,
        )


async def existing(conn: AsyncConnection, table: Table, ids: Iterable[str]) -> set[str]:
    """Return which of `ids` the table has."""
    found: set[str] = set()
    for chunk in _chunks(set(ids)):
        found.update((await conn.execute(select(table.c.id).where(table.c.id.in_(chunk)))).scalars())
    return found


def _chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    wanted = sorted(ids)
    return (wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK))


def _given(patch: msgspec.Struct) -> dict[str, Any]:
    return {key: value for key, value in msgspec.structs.asdict(patch).items() if value is not msgspec.UNSET}


def _columns(record: Record, **defaults: Any) -> dict[str, Any]:
    given = msgspec.structs.asdict(record)
    return given | {key: value for key, value in defaults.items() if given[key] is None} | {"created_at": now()}
