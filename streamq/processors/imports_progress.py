"""How far an import is, in the ledger: committed with each batch, so that a killed import goes on where it was.

The key is made of the job and of the file's contents: a new job that happens to have an old job's id, or a file that
was changed between two attempts, starts from its first row.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.errors import StreamqError
from streamq.processors.imports_request import MAX_LISTED, Entity, RowError
from streamq.processors.ledger import Ledger, tables
from streamq.processors.ledger.money import now

_table, _errors = tables.import_progress, tables.import_errors


class ImportTakenOver(StreamqError):
    """Another worker has gone on with this import; this attempt's batch was rolled back."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"import {self.key}: another attempt has gone on with it"


class Standing(msgspec.Struct, frozen=True):
    """Where an import is: the last row whose outcome is committed, and the sums up to it."""

    row: int
    imported: int
    skipped: int
    failed: int
    started_at: datetime
    finished_at: datetime | None = None


async def standing(ledger: Ledger, key: str, entity: Entity, source: str, size: int) -> Standing:
    """Return where the import `key` is, beginning it if it is new."""
    query = select(
        _table.c.row, _table.c.imported, _table.c.skipped, _table.c.failed, _table.c.started_at, _table.c.finished_at
    ).where(_table.c.job_id == key)
    async with ledger.begin() as conn:
        found = (await conn.execute(query)).one_or_none()
        if found is not None:
            return Standing(*found)
        begun = Standing(0, 0, 0, 0, now())
        values = {
            "job_id": key,
            "entity": str(entity),
            "source": source,
            "source_size": size,
            "started_at": begun.started_at,
        }
        await conn.execute(insert(_table).values(**values, row=0, imported=0, skipped=0, failed=0))
        return begun


async def advance(conn: AsyncConnection, key: str, before: Standing, after: Standing) -> None:
    """Move the import from `before` to `after`, in the transaction of the batch.

    Raises:
        ImportTakenOver: It is not where this attempt left it.
    """
    moved = await conn.execute(
        update(_table)
        .where(_table.c.job_id == key, _table.c.row == before.row, _table.c.finished_at.is_(None))
        .values(
            row=after.row,
            imported=after.imported,
            skipped=after.skipped,
            failed=after.failed,
            finished_at=after.finished_at,
        )
    )
    if moved.rowcount != 1:
        raise ImportTakenOver(key)


async def keep_errors(conn: AsyncConnection, key: str, errors: Sequence[RowError]) -> None:
    """Record errors, in the transaction of the batch."""
    if errors:
        rows = [{"job_id": key, "row": e.row, "field": e.field, "reason": e.reason[:500]} for e in errors]
        await conn.execute(insert(_errors), rows)


async def count_errors(conn: AsyncConnection, key: str) -> int:
    """Return how many errors are recorded."""
    return (await conn.execute(select(func.count()).where(_errors.c.job_id == key))).scalar_one()


async def errors_after(
    conn: AsyncConnection, key: str, last: tuple[int, str] = (0, ""), limit: int = MAX_LISTED
) -> list[RowError]:
    """Return up to `limit` errors in the order of rows and fields, those after `last` (row, field)."""
    row, field = last
    later = (_errors.c.row > row) | ((_errors.c.row == row) & (_errors.c.field > field))
    query = select(_errors.c.row, _errors.c.field, _errors.c.reason).where(_errors.c.job_id == key, later)
    found = await conn.execute(query.order_by(_errors.c.row, _errors.c.field).limit(limit))
    return [RowError(*line) for line in found]
