"""Open the ledger: engine, schema version, and the two kinds of transaction.

SQLite runs in WAL mode with foreign keys on and every commit synced; a writer takes the lock at its start
(`BEGIN IMMEDIATE`), since a reader that becomes a writer half-way fails at once whatever the busy timeout is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from streamq.errors import InvalidInput
from streamq.processors.ledger.errors import LedgerVersionMismatch
from streamq.processors.ledger.tables import SCHEMA_VERSION, metadata, schema

DEFAULT_URL = "sqlite:///streamq-ledger.db"
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_BUSY_MS = 30_000
_PRAGMAS = (
    f"busy_timeout = {_BUSY_MS}",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "wal_autocheckpoint = 8000",  # pages, 32 MB: a bulk import writes each page back once, not with every few batches
)
_CREATION_LOCK = 0x5EDC_E400  # any number that nothing else of the database uses
_WRITES = "streamq_writes"


def ledger_url(url: str | None = None) -> URL:
    """Return `url`, else STREAMQ_LEDGER_URL, else a SQLite file in the working folder, with the async driver.

    Raises:
        InvalidInput: It names neither SQLite nor PostgreSQL.
    """
    parsed = make_url(url or os.environ.get("STREAMQ_LEDGER_URL") or DEFAULT_URL)
    name = parsed.drivername
    if name not in _DRIVERS and name not in _DRIVERS.values():
        raise InvalidInput(f"the ledger works on sqlite:///file and postgresql://, not on {name}://")
    return parsed.set(drivername=_DRIVERS.get(name, name))


class Ledger:
    """One open ledger, for one event loop. Make it with `open_ledger` or `Ledger.open`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{_WRITES: True})

    def __repr__(self) -> str:
        return f"<Ledger {self._engine.url!r}>"

    @classmethod
    async def open(cls, url: str | None = None) -> Ledger:
        """Open the ledger at `url` (see `ledger_url`), creating its tables in an empty database.

        Raises:
            LedgerVersionMismatch: It was written by another release, or the tables are no ledger. Nothing was changed.
            InvalidInput: The URL is of no database that the ledger works on.
        """
        ledger = cls(_engine(ledger_url(url)))
        try:
            async with ledger.read() as conn:  # each job opens the ledger: that must not stand in line with writers
                known = await conn.run_sync(_is_ours)
            if not known:
                async with ledger.begin() as conn:
                    await conn.run_sync(_create_or_check)
        except BaseException:
            await ledger.close()
            raise
        return ledger

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that may write: committed when the block ends, rolled back when it raises."""
        async with self._writer.begin() as conn:
            yield conn

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads: one consistent picture of the ledger, which blocks no writer."""
        async with self._engine.connect() as conn:
            if self.dialect == "postgresql":
                await conn.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield conn

    async def close(self) -> None:
        """Close every connection. Safe to call twice."""
        await self._engine.dispose()


@asynccontextmanager
async def open_ledger(url: str | None = None) -> AsyncIterator[Ledger]:
    """Open a ledger for a block, as `Ledger.open` does, and close it after."""
    ledger = await Ledger.open(url)
    try:
        yield ledger
    finally:
        await ledger.close()


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url, pool_pre_ping=True)
    # isolation_level=None: the driver's own BEGIN comes too late (at the first write), so `_begin_sqlite` says it.
    engine = create_async_engine(url, connect_args={"isolation_level": None, "timeout": _BUSY_MS / 1000})
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(dbapi: Any, record: object) -> None:
    cursor = dbapi.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE" if conn.get_execution_options().get(_WRITES) else "BEGIN")


def _is_ours(conn: Connection) -> bool:
    """Return whether the tables are there, in this release's version; raise if they are of another one."""
    if not inspect(conn).has_table(schema.name):
        return False
    found = conn.execute(select(schema.c.version)).scalar_one_or_none()
    if found != SCHEMA_VERSION:
        raise LedgerVersionMismatch(found, SCHEMA_VERSION)
    return True


def _create_or_check(conn: Connection) -> None:
    if conn.dialect.name == "postgresql":  # SQLite's writers are alone already
        conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CREATION_LOCK})
    if _is_ours(conn):  # somebody else has created it meanwhile
        return
    if set(inspect(conn).get_table_names()) & set(metadata.tables):
        raise LedgerVersionMismatch(None, SCHEMA_VERSION)
    metadata.create_all(conn, checkfirst=False)
    conn.execute(insert(schema).values(version=SCHEMA_VERSION))
