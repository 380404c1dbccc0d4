"""`run-recurring-transactions` on both databases: once per due date, policies, kills, runs side by side."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from streamq.errors import Unrecoverable
from streamq.processors.calculations import processors
from streamq.processors.ledger import (
    Ledger,
    Posting,
    Transaction,
    balance,
    ensure_bank_account,
    open_ledger,
    post,
    tables,
    verify_books,
)
from streamq.processors.recurring_run import RecurringRequest, RecurringRun

DAY = date(2025, 1, 31)


@pytest.fixture
async def bank(ledger: Ledger) -> Ledger:
    """Two members' accounts, A with 100.00 and B with nothing."""
    async with ledger.begin() as conn:
        await ensure_bank_account(conn, "EUR")
        await conn.execute(insert(tables.members).values(id="M-1", name="Ada", joined_on=DAY))
        await conn.execute(
            insert(tables.accounts),
            [
                {"id": name, "member_id": "M-1", "kind": "checking", "currency": currency, "opened_on": DAY}
                for name, currency in (("A", "EUR"), ("B", "EUR"), ("USD", "USD"))
            ],
        )
    await deposit(ledger, "100.00", "first")
    return ledger


async def deposit(ledger: Ledger, amount: str, name: str) -> None:
    lines = (Posting("A", Decimal(amount)), Posting("BANK-CASH-EUR", -Decimal(amount)))
    async with ledger.begin() as conn:
        await post(conn, [Transaction(id=f"deposit-{name}", kind="deposit", booked_on=DAY, postings=lines)])


async def series(ledger: Ledger, name: str = "rent", amount: str = "30.00", **more: Any) -> None:
    row = {"id": name, "from_account_id": "A", "to_account_id": "B", "frequency": "monthly", "start": DAY, **more}
    async with ledger.begin() as conn:
        start = row.get("next_due_on", row["start"])
        await conn.execute(
            insert(tables.recurring_transactions).values(**{**row, "amount": Decimal(amount), "next_due_on": start})
        )


async def ran(ledger: Ledger, day: date, **more: Any) -> Any:
    run = RecurringRun(ledger, RecurringRequest(date=day, **more))
    async for _ in run.pages():
        pass
    return run.tally


async def instances(ledger: Ledger, name: str = "rent") -> dict[str, str]:
    table = tables.recurring_instances
    async with ledger.read() as conn:
        rows = await conn.execute(select(table).where(table.c.recurring_id == name).order_by(table.c.due_on))
        return {row.due_on.isoformat(): row.status for row in rows}


async def state(ledger: Ledger, name: str = "rent") -> tuple[str, str | None]:
    table = tables.recurring_transactions
    async with ledger.read() as conn:
        row = (await conn.execute(select(table).where(table.c.id == name))).one()
        return row.status, row.next_due_on and row.next_due_on.isoformat()


async def held(ledger: Ledger, account: str) -> str:
    async with ledger.read() as conn:
        assert (await verify_books(conn)).ok
        return str(await balance(conn, account))


async def test_a_due_instance_is_booked_recorded_and_the_next_one_set(bank, ledger_url, monkeypatch, run_job):
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    await series(bank)
    report = await run_job(processors, "run-recurring-transactions", {"date": "2025-01-31"}, job_id="job-9")
    assert (report.executed, report.failed, report.totals) == (1, 0, {"EUR": Decimal("30.00")})
    assert await instances(bank) == {"2025-01-31": "executed"}
    assert await state(bank) == ("active", "2025-02-28")
    assert (await held(bank, "A"), await held(bank, "B")) == ("70.00", "30.00")
    async with bank.read() as conn:
        row = (await conn.execute(select(tables.transactions).where(tables.transactions.c.kind == "recurring"))).one()
        link = (await conn.execute(select(tables.recurring_instances.c.transaction_id))).scalar_one()
    assert (row.id, row.booked_on, row.job_id) == (link, DAY, "job-9")
    assert row.description == "Recurring transaction rent, due 2025-01-31"


async def test_a_schedules_job_runs_the_day_of_its_slot(bank, ledger_url, monkeypatch, run_job):
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    await series(bank)
    slot = int(datetime(2025, 1, 30, 23, 30, tzinfo=UTC).timestamp() * 1000)
    for zone, executed in (("UTC", 0), ("Europe/Berlin", 1)):
        data = {"timeZone": zone}
        report = await run_job(processors, "run-recurring-transactions", data, job_id=f"nightly@{slot}")
        assert report.executed == executed
    assert await instances(bank) == {"2025-01-31": "executed"}


async def test_running_again_books_nothing(bank):
    await series(bank)
    assert (await ran(bank, DAY)).executed == 1
    assert (await ran(bank, DAY)).executed == 0
    assert await held(bank, "B") == "30.00"


async def test_nothing_is_due_before_its_day_or_when_it_is_paused(bank):
    await series(bank)
    await series(bank, "paused", status="paused")
    assert (await ran(bank, DAY - timedelta(days=1))).executed == 0
    assert (await ran(bank, DAY)).executed == 1
    assert await state(bank, "paused") == ("paused", "2025-01-31")


async def test_a_series_ends_after_its_last_instance(bank):
    await series(bank, count=2, amount="10.00")
    await ran(bank, DAY)
    await ran(bank, date(2025, 2, 28))
    assert await state(bank) == ("ended", None)
    assert (await ran(bank, date(2025, 3, 31))).executed == 0
    assert await held(bank, "B") == "20.00"


@pytest.mark.parametrize(
    ("missed", "expected", "moved"),
    [
        ("all", {"2025-01-31": "executed", "2025-02-28": "executed", "2025-03-31": "executed"}, "30.00"),
        ("once", {"2025-01-31": "skipped", "2025-02-28": "skipped", "2025-03-31": "executed"}, "10.00"),
        ("skip", {"2025-01-31": "skipped", "2025-02-28": "skipped", "2025-03-31": "skipped"}, "0.00"),
    ],
)
async def test_missed_instances_go_by_the_policy_and_are_booked_on_the_runs_day(bank, missed, expected, moved):
    await series(bank, amount="10.00", missed=missed)
    tally = await ran(bank, date(2025, 4, 2))
    assert await instances(bank) == expected
    assert await held(bank, "B") == moved
    assert tally.executed + tally.skipped == 3
    assert await state(bank) == ("active", "2025-04-30")
    async with bank.read() as conn:
        days = await conn.execute(
            select(tables.transactions.c.booked_on).where(tables.transactions.c.kind != "deposit")
        )
        assert set(days.scalars()) <= {date(2025, 4, 2)}


async def test_without_funds_skip_leaves_the_instance_out_and_goes_on(bank):
    await series(bank, amount="100.01", insufficient_funds="skip")
    tally = await ran(bank, DAY)
    assert (tally.executed, tally.skipped) == (0, 1)
    assert tally.others[0].reason == "100.00 EUR do not cover 100.01"
    assert await instances(bank) == {"2025-01-31": "skipped"}
    assert await state(bank) == ("active", "2025-02-28")
    assert await held(bank, "A") == "100.00"


async def test_an_amount_that_is_just_covered_is_booked(bank):
    await series(bank, amount="100.00")
    assert (await ran(bank, DAY)).executed == 1
    assert await held(bank, "A") == "0.00"


async def test_without_funds_fail_stops_the_series_until_somebody_starts_it_again(bank):
    await series(bank, amount="150.00", insufficient_funds="fail", frequency="weekly")
    tally = await ran(bank, DAY + timedelta(days=8))
    assert (tally.executed, tally.failed) == (0, 1)
    assert await instances(bank) == {"2025-01-31": "failed"}
    assert await state(bank) == ("stopped", "2025-02-07")
    await deposit(bank, "500.00", "more")
    assert (await ran(bank, DAY + timedelta(days=8))).executed == 0
    async with bank.begin() as conn:
        await conn.execute(update(tables.recurring_transactions).values(status="active"))
    assert (await ran(bank, DAY + timedelta(days=8))).executed == 1
    assert await instances(bank) == {"2025-01-31": "failed", "2025-02-07": "executed"}


async def test_without_funds_retry_tries_on_the_following_days_and_books_once(bank):
    await series(bank, amount="150.00")
    assert (await ran(bank, DAY)).deferred == 1
    assert await state(bank) == ("active", "2025-02-28")
    again = await ran(bank, DAY)
    assert (again.deferred, again.executed) == (0, 0)  # not twice on one day
    await deposit(bank, "60.00", "more")
    assert (await ran(bank, DAY + timedelta(days=1))).executed == 1
    assert (await ran(bank, DAY + timedelta(days=2))).executed == 0
    assert await instances(bank) == {"2025-01-31": "executed"}
    assert await held(bank, "A") == "10.00"


async def test_retries_end_and_the_instance_fails(bank):
    await series(bank, amount="150.00", count=1)
    statuses = []
    for number in range(5):
        tally = await ran(bank, DAY + timedelta(days=number), retry_days=2)
        statuses.append((tally.deferred, tally.failed))
    assert statuses == [(1, 0), (1, 0), (0, 1), (0, 0), (0, 0)]
    assert await instances(bank) == {"2025-01-31": "failed"}
    async with bank.read() as conn:
        row = (await conn.execute(select(tables.recurring_instances))).one()
    assert (row.tries, row.retry_on, row.transaction_id) == (3, None, None)
    assert await state(bank) == ("ended", None)


async def test_the_banks_own_account_needs_no_cover(bank):
    await series(bank, from_account_id="BANK-CASH-EUR", amount="900.00")
    assert (await ran(bank, DAY)).executed == 1
    assert await held(bank, "B") == "900.00"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"to_account_id": "USD"}, "is in EUR, account USD in USD"),
        ({"to_account_id": "A"}, "moves money from A to itself"),
        ({"frequency": "hourly"}, "'hourly' is not a valid Frequency"),
        ({"interval": 0}, "interval must be 1 to 1000, not 0"),
        ({"missed": "maybe"}, "'maybe' is not a valid Missed"),
    ],
)
async def test_a_series_that_can_not_be_executed_is_reported_and_the_others_go_on(bank, more, reason):
    await series(bank, "broken", **more)
    await series(bank, "rent")
    tally = await ran(bank, DAY)
    assert (tally.executed, tally.failed) == (1, 1)
    assert tally.others[0].recurring_id == "broken"
    assert reason in tally.others[0].reason
    assert await held(bank, "B") == "30.00"


async def test_a_closed_account_fails_the_instance(bank):
    await series(bank)
    async with bank.begin() as conn:
        await conn.execute(update(tables.accounts).where(tables.accounts.c.id == "B").values(status="closed"))
    tally = await ran(bank, DAY)
    assert tally.others[0].reason == "account B is closed"
    assert await instances(bank) == {"2025-01-31": "failed"}


async def test_runs_side_by_side_execute_each_instance_once_and_overdraw_nothing(bank, ledger_url):
    for number in range(12):
        await series(bank, f"s-{number:02}", amount="9.00", insufficient_funds="skip")

    async def one() -> tuple[int, int]:
        async with open_ledger(ledger_url) as own:
            tally = await ran(own, DAY)
            return tally.executed, tally.skipped

    counts = await asyncio.gather(*(one() for _ in range(4)))
    assert (sum(done for done, _ in counts), sum(left for _, left in counts)) == (11, 1)
    assert (await held(bank, "A"), await held(bank, "B")) == ("1.00", "99.00")


KILLED_RUN = """
import asyncio, datetime, sys
from streamq.processors import recurring_run
from streamq.processors.ledger import open_ledger

class Told(recurring_run.RecurringTally):
    def add(self, outcome):
        super().add(outcome)
        print(self.executed, flush=True)

async def main():
    async with open_ledger(sys.argv[1]) as ledger:
        run = recurring_run.RecurringRun(ledger, recurring_run.RecurringRequest(date=datetime.date(2025, 1, 31)))
        run.tally = Told()
        async for _ in run.pages():
            pass

asyncio.run(main())
"""


async def test_a_run_that_is_killed_is_completed_by_the_next_one(bank, ledger_url):
    for number in range(300):
        await series(bank, f"s-{number:03}", amount="0.10")
    for instances_seen in (1, 5, 12):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED_RUN, ledger_url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(instances_seen):
            assert await process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        await process.stdout.read()
        assert await process.wait() == -signal.SIGKILL
    before = Decimal(await held(bank, "B"))
    assert Decimal("1.80") <= before < 30
    tally = await ran(bank, DAY)
    assert tally.executed == 300 - before * 10
    assert (await held(bank, "A"), await held(bank, "B")) == ("70.00", "30.00")


async def test_a_request_that_makes_no_sense_is_refused(run_job):
    with pytest.raises(Unrecoverable, match="retryDays must be 0 to 366"):
        await run_job(processors, "run-recurring-transactions", {"date": "2025-01-31", "retryDays": -1})
