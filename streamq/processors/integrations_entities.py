"""What can be synchronised: how an entity's records are read, compared and written.

A record is a row as plain values; a transaction's record holds its postings. Records of equal checksum are equal,
whatever database they come from.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Table, collate, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.processors.integrations_upsert import upsert_rows
from streamq.processors.ledger.money import UtcTime
from streamq.processors.ledger.tables import accounts, members, postings, transactions

_CHUNK = 500


class EntityName(enum.StrEnum):
    """The entities, in the order in which they depend on each other."""

    MEMBERS = "members"
    ACCOUNTS = "accounts"
    TRANSACTIONS = "transactions"


class Cursor(msgspec.Struct, frozen=True, order=True):
    """How far a synchronisation is: the last record's moment of change, and its id."""

    at: datetime
    id: str = ""


class Record(NamedTuple):
    """One record: its id, its moment of change, and its values."""

    id: str
    changed_at: datetime
    values: dict[str, Any]

    @property
    def checksum(self) -> str:
        """A hash of the values."""
        return checksum([self])


def checksum(records: Iterable[Record]) -> str:
    """Return one hash over `records`, which depends on their order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(msgspec.json.encode(list(record.values.values())) + b"\n")
    return digest.hexdigest()


class Entity(NamedTuple):
    """An entity: its table, and the column that tells when a row was changed last."""

    name: EntityName
    table: Table
    changed: str

    async def changed_after(
        self, conn: AsyncConnection, after: Cursor | None, until: datetime, limit: int
    ) -> list[Record]:
        """Return up to `limit` records that changed after `after` and not after `until`, in that order."""
        changed, key = self.table.c[self.changed], self.table.c.id
        query = select(self.table).where(changed <= until).order_by(changed, key).limit(limit)
        if after is not None:
            query = query.where(tuple_(changed, key) > tuple_(literal(after.at, UtcTime), literal(after.id)))
        return await self._records(conn, query)

    async def by_ids(self, conn: AsyncConnection, ids: Sequence[str]) -> dict[str, Record]:
        """Return those of `ids` that there are."""
        found = []
        for start in range(0, len(ids), _CHUNK):
            query = select(self.table).where(self.table.c.id.in_(ids[start : start + _CHUNK]))
            found += await self._records(conn, query)
        return {record.id: record for record in found}

    async def in_range(self, conn: AsyncConnection, after: str, until: str | None, limit: int | None) -> list[Record]:
        """Return records with `after` < id <= `until`, ordered by the bytes of their ids on every database."""
        key = self._byte_order(conn)
        query = select(self.table).where(key > after).order_by(key).limit(limit)
        return await self._records(conn, query if until is None else query.where(key <= until))

    async def write(self, conn: AsyncConnection, records: Sequence[Record]) -> int:
        """Write `records` and return how many were new or (except bookings) may have changed.

        Members and accounts are replaced. Transactions that are there are left as they are: bookings don't change, and
        one that differs is for a person to look at.
        """
        if self.name is not EntityName.TRANSACTIONS:
            await upsert_rows(conn, self.table, [record.values for record in records])
            return len(records)
        known = set[str]()
        for start in range(0, len(records), _CHUNK):
            ids = [record.id for record in records[start : start + _CHUNK]]
            known.update((await conn.execute(select(self.table.c.id).where(self.table.c.id.in_(ids)))).scalars())
        new = [record for record in records if record.id not in known]
        heads = [{name: value for name, value in record.values.items() if name != "postings"} for record in new]
        lines = [{"transaction_id": record.id, **line} for record in new for line in record.values["postings"]]
        await upsert_rows(conn, transactions, heads, changing=[])
        await upsert_rows(conn, postings, lines, changing=[])
        return len(new)

    def _byte_order(self, conn: AsyncConnection) -> ColumnElement[str]:
        return collate(self.table.c.id, "C" if conn.dialect.name == "postgresql" else "BINARY")

    async def _records(self, conn: AsyncConnection, query: Any) -> list[Record]:
        found = (await conn.execute(query)).mappings()
        rows = [{str(name): value for name, value in row.items()} for row in found]
        if self.name is EntityName.TRANSACTIONS:
            lines = await _lines(conn, [row["id"] for row in rows])
            for row in rows:
                row["postings"] = lines.get(row["id"], [])
        return [Record(row["id"], row[self.changed], row) for row in rows]


async def _lines(conn: AsyncConnection, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for start in range(0, len(ids), _CHUNK):
        query = (
            select(postings)
            .where(postings.c.transaction_id.in_(ids[start : start + _CHUNK]))
            .order_by(postings.c.transaction_id, postings.c.line)
        )
        for row in (await conn.execute(query)).mappings():
            line = {"line": row["line"], "account_id": row["account_id"], "amount": row["amount"]}
            found.setdefault(row["transaction_id"], []).append(line)
    return found


ENTITIES = {
    EntityName.MEMBERS: Entity(EntityName.MEMBERS, members, "updated_at"),
    EntityName.ACCOUNTS: Entity(EntityName.ACCOUNTS, accounts, "updated_at"),
    EntityName.TRANSACTIONS: Entity(EntityName.TRANSACTIONS, transactions, "created_at"),
}
