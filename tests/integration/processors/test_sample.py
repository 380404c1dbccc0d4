from __future__ import annotations

import hashlib
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from streamq.processors.ledger import LedgerError, balances, open_ledger, tables, verify_books
from streamq.processors.sample import SampleSize, create_sample_bank


async def count(conn, table):
    return (await conn.execute(select(func.count()).select_from(table))).scalar_one()


async def digest(conn):
    """Fingerprint all that the seed decides."""
    sums = hashlib.sha256()
    for table in (tables.members, tables.accounts, tables.transactions, tables.postings, tables.recurring_transactions):
        clocks = {"created_at", "updated_at"} | ({"opened_on"} if table is tables.accounts else set())
        columns = [c for c in table.c if c.name not in clocks]
        for row in await conn.execute(select(*columns).order_by(*table.primary_key.columns)):
            sums.update(repr(tuple(row)).encode())
    return sums.hexdigest()


async def test_the_sample_bank_has_its_size_and_balances(ledger):
    await create_sample_bank(ledger)
    async with ledger.read() as conn:
        assert await count(conn, tables.members) == 1_000
        assert await count(conn, tables.accounts) == 2_000 + 3  # and the bank's own
        report = await verify_books(conn)
        assert report.ok
        assert (report.transactions, report.postings) == (50_000, 100_000)
        held = {key: value for key, value in (await balances(conn)).items() if key.startswith("A-")}
    assert len(held) == 2_000
    assert min(held.values()) >= Decimal(0)


async def test_the_same_seed_gives_the_same_bank_and_another_seed_another(tmp_path):
    found = []
    for number, seed in enumerate((1, 1, 2)):
        async with open_ledger(f"sqlite:///{tmp_path}/{number}.db") as ledger:
            await create_sample_bank(ledger, SampleSize(members=20, accounts=40, transactions=500, seed=seed))
            async with ledger.read() as conn:
                found.append(await digest(conn))
    assert found[0] == found[1] != found[2]


async def test_a_ledger_with_members_is_refused_and_left_alone(sqlite_ledger):
    size = SampleSize(members=5, accounts=10, transactions=50)
    await create_sample_bank(sqlite_ledger, size)
    with pytest.raises(LedgerError, match="needs an empty ledger"):
        await create_sample_bank(sqlite_ledger, size)
    async with sqlite_ledger.read() as conn:
        assert await count(conn, tables.transactions) == 50
