from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from streamq.errors import InvalidInput
from streamq.processors.ledger import (
    Ledger,
    LedgerVersionMismatch,
    Posting,
    Transaction,
    TransactionDiffers,
    UnbalancedTransaction,
    UnknownAccount,
    WrongCurrency,
    balance,
    balances,
    ensure_bank_account,
    open_ledger,
    post,
    tables,
    verify_books,
)
from streamq.processors.ledger.database import ledger_url as resolve_url

DAY = date(2024, 11, 5)


def deposit(amount: str, number: int = 1, account: str = "A-1", day: date = DAY) -> Transaction:
    return Transaction(
        id=f"t-{number}",
        kind="deposit",
        booked_on=day,
        postings=(Posting(account, Decimal(amount)), Posting("BANK-CASH-EUR", -Decimal(amount))),
    )


@pytest.fixture
async def bank(ledger: Ledger) -> Ledger:
    async with ledger.begin() as conn:
        await ensure_bank_account(conn, "EUR")
        await conn.execute(insert(tables.members).values(id="M-1", name="Ada Lovelace", joined_on=DAY))
        await conn.execute(
            insert(tables.accounts).values(id="A-1", member_id="M-1", kind="savings", currency="EUR", opened_on=DAY)
        )
        await conn.execute(
            insert(tables.accounts).values(id="A-2", member_id="M-1", kind="savings", currency="USD", opened_on=DAY)
        )
    return ledger


async def test_a_booking_moves_money_and_the_books_stay_balanced(bank):
    async with bank.begin() as conn:
        booked = await post(conn, [deposit("100.10"), deposit("0.20", 2)])
    assert booked.new == ("t-1", "t-2")
    async with bank.read() as conn:
        assert await balance(conn, "A-1") == Decimal("100.30")
        assert await balances(conn) == {"A-1": Decimal("100.30"), "BANK-CASH-EUR": Decimal("-100.30")}
        report = await verify_books(conn)
    assert report.ok
    assert (report.transactions, report.postings, report.total) == (2, 4, Decimal(0))


async def test_a_booking_that_is_repeated_moves_money_once(bank):
    for _ in range(2):
        async with bank.begin() as conn:
            booked = await post(conn, [deposit("5.00")])
    assert booked.new == ()
    assert booked.known == ("t-1",)
    async with bank.read() as conn:
        assert await balance(conn, "A-1") == Decimal("5.00")


async def test_an_id_that_is_booked_with_other_contents_is_refused(bank):
    async with bank.begin() as conn:
        await post(conn, [deposit("5.00")])
    with pytest.raises(TransactionDiffers, match="t-1 is booked already with other contents"):
        async with bank.begin() as conn:
            await post(conn, [deposit("1.00", 2), deposit("6.00")])
    async with bank.read() as conn:
        assert await balance(conn, "A-1") == Decimal("5.00")


async def test_an_unbalanced_transaction_books_nothing_of_its_batch(bank):
    crooked = Transaction(
        id="t-9",
        kind="deposit",
        booked_on=DAY,
        postings=(Posting("A-1", Decimal("1.00")), Posting("BANK-CASH-EUR", Decimal("-0.99"))),
    )
    with pytest.raises(UnbalancedTransaction, match=r"t-9: its postings sum to 0\.01"):
        async with bank.begin() as conn:
            await post(conn, [deposit("5.00"), crooked])
    async with bank.read() as conn:
        assert (await verify_books(conn)).transactions == 0


async def test_a_posting_to_an_unknown_account_or_in_another_currency_is_refused(bank):
    with pytest.raises(UnknownAccount, match="account A-404 does not exist"):
        async with bank.begin() as conn:
            await post(conn, [deposit("5.00", account="A-404")])
    with pytest.raises(WrongCurrency, match="t-1 is in EUR, account A-2 in USD"):
        async with bank.begin() as conn:
            await post(conn, [deposit("5.00", account="A-2")])


async def test_a_balance_can_be_asked_for_the_end_of_a_day(bank):
    async with bank.begin() as conn:
        await post(conn, [deposit("1.00", 1, day=date(2024, 11, 4)), deposit("2.00", 2, day=DAY)])
    async with bank.read() as conn:
        assert await balance(conn, "A-1", date(2024, 11, 3)) == Decimal("0.00")
        assert await balance(conn, "A-1", date(2024, 11, 4)) == Decimal("1.00")
        assert await balance(conn, "A-1", DAY) == Decimal("3.00")


async def test_verify_books_names_what_was_tampered_with(bank):
    async with bank.begin() as conn:
        await post(conn, [deposit("1.00", 1), deposit("2.00", 2), deposit("3.00", 3)])
        lines = tables.postings
        await conn.execute(
            update(lines).where(lines.c.transaction_id == "t-1", lines.c.line == 1).values(amount=Decimal("1.01"))
        )
        await conn.execute(delete(lines).where(lines.c.transaction_id == "t-2"))
        await conn.execute(
            update(lines).where(lines.c.transaction_id == "t-3", lines.c.line == 1).values(account_id="A-2")
        )
    async with bank.read() as conn:
        report = await verify_books(conn)
    assert not report.ok
    assert report.unbalanced == ("t-1",)
    assert report.incomplete == ("t-2",)
    assert report.wrong_currency == ("t-3",)
    assert report.total == Decimal("0.01")


async def test_foreign_keys_and_zero_amounts_are_refused_by_the_database_itself(bank):
    row = {"transaction_id": "nowhere", "line": 1, "account_id": "A-1", "amount": Decimal("1.00")}
    with pytest.raises(IntegrityError):
        async with bank.begin() as conn:
            await conn.execute(insert(tables.postings).values(row))
    async with bank.begin() as conn:
        await post(conn, [deposit("1.00")])
    with pytest.raises(IntegrityError):
        async with bank.begin() as conn:
            await conn.execute(update(tables.postings).values(amount=Decimal(0)))


async def test_a_block_that_raises_leaves_nothing_behind(bank):
    async def fail_half_way() -> None:
        async with bank.begin() as conn:
            await post(conn, [deposit("1.00")])
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        await fail_half_way()
    async with bank.read() as conn:
        assert (await verify_books(conn)).transactions == 0


async def test_concurrent_writers_book_everything_once(bank):
    async def write(start: int) -> None:
        for number in range(start, start + 10):
            async with bank.begin() as conn:
                await post(conn, [deposit("1.00", number)])

    await asyncio.gather(*(write(n * 10) for n in range(4)))
    async with bank.read() as conn:
        assert await balance(conn, "A-1") == Decimal("40.00")


async def test_a_reader_sees_one_picture_while_a_writer_commits(bank):
    async with bank.begin() as conn:
        await post(conn, [deposit("1.00", 1)])
    async with bank.read() as reader:
        before = await balance(reader, "A-1")
        async with bank.begin() as writer:
            await post(writer, [deposit("2.00", 2)])
        assert await balance(reader, "A-1") == before == Decimal("1.00")


async def test_a_moment_comes_back_aware_and_in_utc(bank):
    moment = datetime(2024, 11, 5, 12, 0, tzinfo=UTC)
    async with bank.begin() as conn:
        await conn.execute(update(tables.members).values(created_at=moment))
    async with bank.read() as conn:
        assert (await conn.execute(select(tables.members.c.created_at))).scalar_one() == moment


async def test_a_ledger_of_another_version_is_refused_and_left_alone(ledger_url):
    async with open_ledger(ledger_url) as ledger, ledger.begin() as conn:
        await conn.execute(update(tables.schema).values(version=99))
    with pytest.raises(LedgerVersionMismatch, match=r"has schema version 99, this release reads and writes version 1"):
        async with open_ledger(ledger_url):
            pass


async def test_a_database_with_tables_of_somebody_else_is_refused_and_left_alone(ledger_url):
    async with open_ledger(ledger_url) as ledger, ledger.begin() as conn:
        await conn.execute(text("DROP TABLE ledger_schema"))
    with pytest.raises(LedgerVersionMismatch, match="no ledger of streamq"):
        async with open_ledger(ledger_url):
            pass


async def test_workers_that_open_an_empty_database_together_create_it_once(ledger_url):
    ledgers = await asyncio.gather(*(Ledger.open(ledger_url) for _ in range(5)))
    try:
        async with ledgers[0].read() as conn:
            assert (await conn.execute(select(tables.schema.c.version))).scalars().all() == [1]
    finally:
        await asyncio.gather(*(ledger.close() for ledger in ledgers))


async def test_a_ledger_is_opened_while_somebody_writes(ledger, ledger_url):
    async with ledger.begin() as conn:
        await conn.execute(insert(tables.members).values(id="M-9", name="Grace", joined_on=DAY))
        async with open_ledger(ledger_url) as other, other.read() as reader:
            found = select(tables.members.c.id).where(tables.members.c.id == "M-9")
            assert (await reader.execute(found)).first() is None


async def test_a_read_transaction_cannot_write_on_postgresql(ledger):
    if ledger.dialect != "postgresql":
        pytest.skip("SQLite has no read-only transactions")
    with pytest.raises(DBAPIError, match="read-only"):
        async with ledger.read() as conn:
            await conn.execute(insert(tables.members).values(id="M", name="x", joined_on=DAY))


def test_the_url_comes_from_the_environment_and_gets_its_async_driver(monkeypatch):
    monkeypatch.setenv("STREAMQ_LEDGER_URL", "postgresql://bank@db/ledger")
    assert resolve_url().drivername == "postgresql+asyncpg"
    assert resolve_url("sqlite:///x.db").drivername == "sqlite+aiosqlite"
    monkeypatch.delenv("STREAMQ_LEDGER_URL")
    assert resolve_url().database == "streamq-ledger.db"
    with pytest.raises(InvalidInput, match="not on mysql://"):
        resolve_url("mysql://bank@db/ledger")
