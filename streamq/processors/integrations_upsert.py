"""Write many rows that may be there already, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def upsert(dialect: str, table: Table) -> Any:
    """Return an INSERT into `table` that can take an ON CONFLICT clause in `dialect`."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


async def upsert_rows(
    conn: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]], *, changing: Sequence[str] | None = None
) -> None:
    """Insert `rows`, all of the same columns; where the primary key is taken, set the columns `changing` instead.

    None changes every column but the key; an empty list leaves rows that are there as they are.
    """
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    names = [name for name in rows[0] if name not in keys] if changing is None else list(changing)
    statement = upsert(conn.dialect.name, table)
    if names:
        given = {name: statement.excluded[name] for name in names}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=given)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    await conn.execute(statement, list(rows))
