"""`sync-data` between ledgers of both kinds: increments, repeats, kills, and differences that are found and named."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from streamq import Queue, QueueName, Unrecoverable, Worker
from streamq.processors.integrations import processors
from streamq.processors.integrations_entities import EntityName
from streamq.processors.ledger import (
    Ledger,
    Posting,
    Transaction,
    ensure_bank_account,
    open_ledger,
    post,
    tables,
    verify_books,
)

DAY = date(2025, 1, 31)
TABLES = {"members": tables.members, "accounts": tables.accounts, "transactions": tables.transactions}


@pytest.fixture
def ledger_url_2(request: pytest.FixtureRequest, ledger_url: str, tmp_path: Path) -> str:
    """The URL of an empty database of the other kind than `ledger_url`."""
    if ledger_url.startswith("postgresql"):
        return f"sqlite:///{tmp_path}/copy.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def copy(ledger_url: str, ledger_url_2: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ledger]:
    """An empty ledger that jobs know as `copy`; `ledger` is the other kind."""
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    monkeypatch.setenv("STREAMQ_SYNC_COPY_URL", ledger_url_2)
    async with open_ledger(ledger_url_2) as opened:
        yield opened


async def grown(ledger: Ledger, members: range, name: str = "Ada Ωmega") -> None:
    """Add members, an account for each, and a deposit on it."""
    async with ledger.begin() as conn:
        await ensure_bank_account(conn, "EUR")
        await conn.execute(
            insert(tables.members),
            [{"id": f"M-{n:04}", "name": name, "email": None, "joined_on": DAY} for n in members],
        )
        row = {"kind": "savings", "currency": "EUR", "opened_on": DAY}
        await conn.execute(
            insert(tables.accounts), [{"id": f"A-{n:04}", "member_id": f"M-{n:04}", **row} for n in members]
        )
        await post(conn, [deposit(n) for n in members])


def deposit(n: int) -> Transaction:
    amount = Decimal(n + 1) / 100
    lines = (Posting(f"A-{n:04}", amount), Posting("BANK-CASH-EUR", -amount))
    return Transaction(id=f"T-{n:04}", kind="deposit", booked_on=DAY, postings=lines, description="première")


async def aged(ledger: Ledger, seconds: int, name: str = "%") -> None:
    """Make rows older: as if they had been written so long ago."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    async with ledger.begin() as conn:
        for table, column in ((tables.members, "updated_at"), (tables.accounts, "updated_at")):
            await conn.execute(update(table).where(table.c.id.like(name)).values({column: moment}))
        table = tables.transactions
        await conn.execute(update(table).where(table.c.id.like(name)).values(created_at=moment))


async def contents(ledger: Ledger) -> dict[str, list[Any]]:
    async with ledger.read() as conn:
        found = {}
        for table in (*TABLES.values(), tables.postings):
            rows = await conn.execute(select(table))
            found[table.name] = sorted((tuple(row) for row in rows), key=repr)
        return found


def by_entity(report: Any, field: str) -> dict[str, Any]:
    return {one.entity.value: getattr(one, field) for one in report.entities}


async def synced(run_job: Any, **more: Any) -> Any:
    return await run_job(processors, "sync-data", {"destination": "copy", **more})


async def test_a_ledger_is_carried_to_one_of_the_other_kind_to_the_last_bit(ledger, copy, run_job):
    await grown(ledger, range(25))
    report = await synced(run_job, batchSize=10)
    assert await contents(copy) == await contents(ledger)
    assert report.ok
    assert by_entity(report, "read") == {"members": 25, "accounts": 26, "transactions": 25}
    assert by_entity(report, "batches") == {"members": 3, "accounts": 3, "transactions": 3}
    assert [one.verified.records for one in report.entities] == [25, 26, 25]
    assert run_job.attempt.reported[-1] == {"entity": "transactions", "carried": 25, "verified": 25}
    async with copy.read() as conn:
        assert (await verify_books(conn)).ok


async def test_the_next_run_reads_only_what_changed(ledger, copy, run_job):
    await grown(ledger, range(20))
    await aged(ledger, 3_600)
    await synced(run_job)
    assert by_entity(await synced(run_job), "read") == {
        "members": 20,
        "accounts": 21,
        "transactions": 20,
    }  # the overlap
    await grown(ledger, range(20, 23))
    async with ledger.begin() as conn:
        changed = update(tables.members).where(tables.members.c.id == "M-0003").values(name="Grace")
        await conn.execute(changed)
    await synced(run_job)
    report = await synced(run_job, overlapSeconds=60)
    assert by_entity(report, "read") == {"members": 4, "accounts": 3, "transactions": 3}
    assert by_entity(report, "written") == {"members": 4, "accounts": 3, "transactions": 0}
    assert await contents(copy) == await contents(ledger)


async def test_a_transaction_that_committed_late_is_found_by_the_overlap(ledger, copy, run_job):
    await grown(ledger, range(3))
    await synced(run_job)
    await grown(ledger, range(3, 4))
    await aged(ledger, 120, "%-0003")  # written before what the last run saw, and visible only now
    report = await synced(run_job)
    assert by_entity(report, "written")["transactions"] == 1
    assert await contents(copy) == await contents(ledger)


async def test_a_full_run_carries_everything_again_to_the_same_effect(ledger, copy, run_job):
    await grown(ledger, range(12))
    await aged(ledger, 3_600)
    await synced(run_job)
    before = await contents(copy)
    report = await synced(run_job, full=True, verify="all", overlapSeconds=0)
    assert by_entity(report, "read") == {"members": 12, "accounts": 13, "transactions": 12}
    assert await contents(copy) == before


async def test_one_entity_alone_can_be_carried(ledger, copy, run_job):
    await grown(ledger, range(4))
    report = await synced(run_job, entities=["members"])
    assert by_entity(report, "read") == {"members": 4}
    assert (await contents(copy))["accounts"] == []


@pytest.fixture
async def spoiled(ledger: Ledger, copy: Ledger, run_job: Any) -> None:
    """A copy in which a member was changed, one was added, and a booking lost, and another one altered."""
    await grown(ledger, range(30))
    await synced(run_job)
    async with copy.begin() as conn:
        await conn.execute(update(tables.members).where(tables.members.c.id == "M-0007").values(name="Mallory"))
        await conn.execute(insert(tables.members).values(id="M-0099", name="Nobody", joined_on=DAY))
        lost = tables.postings.c.transaction_id == "T-0011"
        await conn.execute(delete(tables.postings).where(lost))
        await conn.execute(delete(tables.transactions).where(tables.transactions.c.id == "T-0011"))
        altered = (tables.postings.c.transaction_id == "T-0021") & (tables.postings.c.line == 1)
        await conn.execute(update(tables.postings).where(altered).values(amount=Decimal("666.00")))


@pytest.mark.usefixtures("spoiled")
async def test_verification_of_everything_names_each_difference(copy, run_job):
    report = await synced(run_job, verify="all", batchSize=10, overlapSeconds=0)
    assert not report.ok
    found = {
        one.entity.value: [(d.id, d.kind.value, d.fields) for d in one.verified.differences] for one in report.entities
    }
    assert found == {
        "members": [("M-0007", "different", ["name", "updated_at"]), ("M-0099", "extra", [])],
        "accounts": [],
        "transactions": [("T-0011", "missing", []), ("T-0021", "different", ["postings"])],
    }
    members, accounts, transactions = (one.verified for one in report.entities)
    assert (members.ranges, members.mismatched_ranges) == (4, 2)  # 30 members in tens, and what lies beyond
    assert (accounts.ranges, accounts.mismatched_ranges) == (4, 0)
    assert [(m.first, m.last, m.source_count, m.destination_count) for m in transactions.mismatches] == [
        ("T-0010", "T-0019", 10, 9),
        ("T-0020", "T-0029", 10, 10),
    ]
    assert all(m.source_checksum != m.destination_checksum for m in transactions.mismatches)
    assert "transactions T-0011: missing" in run_job.attempt.lines
    assert "members M-0007: different name, updated_at" in run_job.attempt.lines


@pytest.mark.usefixtures("spoiled")
async def test_a_full_run_mends_members_and_lost_bookings_but_leaves_an_altered_booking_to_a_person(copy, run_job):
    report = await synced(run_job, full=True, verify="all")
    differences = [(d.id, d.kind.value) for one in report.entities for d in one.verified.differences]
    assert differences == [("M-0099", "extra"), ("T-0021", "different")]
    async with copy.read() as conn:
        line = select(tables.postings.c.amount).where(tables.postings.c.transaction_id == "T-0021")
        assert Decimal("666.00") in (await conn.execute(line)).scalars().all()


@pytest.mark.usefixtures("spoiled")
async def test_verification_of_what_was_carried_sees_an_altered_booking(run_job):
    report = await synced(run_job, full=True)
    found = [(d.id, d.kind.value) for one in report.entities for d in one.verified.differences]
    assert found == [("T-0021", "different")]


KILLED_SYNC = """
import asyncio, sys
from streamq.processors.integrations_entities import ENTITIES
from streamq.processors.integrations_sync import EntitySync, Route, SyncRequest
from streamq.processors.ledger import open_ledger

async def main():
    request = SyncRequest(destination="copy", batch_size=7)
    async with open_ledger(sys.argv[1]) as source, open_ledger(sys.argv[2]) as destination:
        for entity in ENTITIES.values():
            async for carried in EntitySync(Route(request, source, destination), entity).batches():
                print(carried.read, flush=True)

asyncio.run(main())
"""


async def test_a_run_that_is_killed_goes_on_where_it_was(ledger, copy, run_job, ledger_url, ledger_url_2):
    await grown(ledger, range(150))
    for batches in (2, 10):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED_SYNC, ledger_url, ledger_url_2, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(batches):
            assert await process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        await process.stdout.read()
        assert await process.wait() == -signal.SIGKILL
    async with copy.read() as conn:
        assert (await verify_books(conn)).ok
        assert (await conn.execute(select(func.count()).select_from(tables.postings))).scalar_one() < 300
    report = await synced(run_job, verify="all")
    assert report.ok
    assert await contents(copy) == await contents(ledger)


async def test_two_runs_at_once_give_one_copy(ledger, copy, run_job):
    await grown(ledger, range(40))
    await asyncio.gather(*(type(run_job)()(processors, "sync-data", {"destination": "copy", "batchSize": 9})
                           for _ in range(2)))  # fmt: skip
    assert (await synced(run_job, verify="all")).ok
    assert await contents(copy) == await contents(ledger)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"destination": "nowhere"}, "STREAMQ_SYNC_NOWHERE_URL must say where 'nowhere' is"),
        ({"destination": "ledger"}, "are the same ledger"),
        ({"destination": "Copy"}, "not a place's name"),
        ({"destination": "hook", "verify": "all"}, "can't be read back"),
        ({"destination": "ledger", "source": "hook"}, "data can't be read from there"),
        ({"destination": "bare"}, "STREAMQ_SYNC_BARE_SECRET must hold"),
        ({"destination": "odd"}, "the ledger works on"),
        ({"destination": "hook", "batchSize": 0}, "batchSize must be"),
    ],
)
async def test_a_route_that_makes_no_sense_is_refused(run_job, monkeypatch, data, text):
    monkeypatch.setenv("STREAMQ_SYNC_HOOK_URL", "https://hook.example/x")
    monkeypatch.setenv("STREAMQ_SYNC_HOOK_SECRET", "s")
    monkeypatch.setenv("STREAMQ_SYNC_BARE_URL", "https://bare.example/x")
    monkeypatch.setenv("STREAMQ_SYNC_ODD_URL", "mysql://db.example/x")
    with pytest.raises(Unrecoverable, match=text):
        await run_job(processors, "sync-data", data)


def test_entities_come_in_the_order_of_their_dependence():
    assert [name.value for name in EntityName] == ["members", "accounts", "transactions"]


async def test_on_a_worker_a_job_carries_a_ledger_and_reports(ledger, copy, redis_url):
    await grown(ledger, range(8))
    name = QueueName.INTEGRATIONS
    async with Queue(name, redis_url) as queue, Worker(name, processors, redis=redis_url):
        job = await queue.add("sync-data", {"destination": "copy", "verify": "all"})
        report = await job.result(timeout=30)
    assert report["ok"]
    assert [(one["entity"], one["read"], one["verified"]["records"]) for one in report["entities"]] == [
        ("members", 8, 8), ("accounts", 9, 9), ("transactions", 8, 8),
    ]  # fmt: skip
    assert await contents(copy) == await contents(ledger)
