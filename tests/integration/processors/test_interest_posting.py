"""`post-interest` on both databases: amounts by hand, once per account and day, gaps filled, errors that stay alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text, update

from streamq import Queue, QueueName, Unrecoverable, Worker
from streamq.processors.calculations import processors
from streamq.processors.interest_posting import InterestRequest, InterestRun
from streamq.processors.ledger import (
    Ledger,
    Posting,
    Transaction,
    UnbalancedTransaction,
    balance,
    balances,
    ensure_bank_account,
    open_ledger,
    post,
    tables,
    verify_books,
)
from streamq.processors.ledger.books import insert_lines

START = date(2025, 1, 28)


async def opened(ledger: Ledger, accounts: Sequence[tuple[str, str, str]], day: date = START) -> None:
    """Open accounts (id, kind, first deposit) on `day`."""
    async with ledger.begin() as conn:
        await ensure_bank_account(conn, "EUR")
        if not (await conn.execute(select(tables.members.c.id))).first():
            await conn.execute(insert(tables.members).values(id="M-1", name="Ada", joined_on=day))
        await conn.execute(
            insert(tables.accounts),
            [
                {"id": name, "member_id": "M-1", "kind": kind, "currency": "EUR", "opened_on": day}
                for name, kind, _ in accounts
            ],
        )
        await post(conn, [paid(name, amount, day) for name, _, amount in accounts if Decimal(amount)])


def paid(account: str, amount: str, day: date) -> Transaction:
    lines = (Posting(account, Decimal(amount)), Posting("BANK-CASH-EUR", -Decimal(amount)))
    return Transaction(id=f"{account}-{day}-{amount}", kind="deposit", booked_on=day, postings=lines)


async def rated(ledger: Ledger, kind: str, rate: int, day_count: str = "actual/365", since: date = START) -> None:
    row = {"account_kind": kind, "currency": "EUR", "valid_from": since, "rate": rate, "rate_scale": 10_000}
    async with ledger.begin() as conn:
        await conn.execute(insert(tables.interest_rates).values(**row, day_count=day_count))


async def posted(ledger: Ledger) -> dict[tuple[str, str], Decimal]:
    async with ledger.read() as conn:
        rows = await conn.execute(select(tables.interest_postings))
        return {(row.account_id, row.day.isoformat()): row.amount for row in rows}


async def books_balance(ledger: Ledger) -> bool:
    async with ledger.read() as conn:
        return (await verify_books(conn)).ok


async def ran(ledger: Ledger, day: date, **more: Any) -> Any:
    run = InterestRun(ledger, InterestRequest(date=day, **more))
    async for _ in run.batches():
        pass
    return run.tally


async def test_a_month_end_by_hand_under_each_convention(ledger, ledger_url, monkeypatch, run_job):
    """Balance x rate x weight / year, compounding daily, cents rounded half-even.

    30/360: 30 January weighs 0, 31 January 1, 28 February 3 (ISDA 2006, 4.16(f)).
    """
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    for kind, day_count in (("a365", "actual/365"), ("a360", "actual/360"), ("t360", "30/360")):
        await rated(ledger, kind, 365, day_count)
    await opened(ledger, [(f"A-{kind}", kind, "100000.00") for kind in ("a365", "a360", "t360")])
    report = await run_job(processors, "post-interest", {"date": "2025-02-01"})
    assert await posted(ledger) == {
        # 10,000,000 x 0.0365 / 365 = 1,000 cents on the first day, then on 100,010.00: 1,000.1, 1,000.2 ...
        **{("A-a365", f"2025-01-{day}"): Decimal("10.00") for day in (28, 29, 30, 31)},
        ("A-a365", "2025-02-01"): Decimal("10.00"),
        # / 360 = 1,013.89; 1,013.99; 1,014.09; 1,014.20; 1,014.30
        **{("A-a360", f"2025-01-{day}"): Decimal("10.14") for day in (28, 29, 30, 31)},
        ("A-a360", "2025-02-01"): Decimal("10.14"),
        # 28, 29: weight 1; 30: 0; 31: 1; 1 February: 1
        ("A-t360", "2025-01-28"): Decimal("10.14"),
        ("A-t360", "2025-01-29"): Decimal("10.14"),
        ("A-t360", "2025-01-30"): Decimal("0.00"),
        ("A-t360", "2025-01-31"): Decimal("10.14"),
        ("A-t360", "2025-02-01"): Decimal("10.14"),
    }
    assert (report.posted, report.zero, report.failed) == (15, 1, 0)
    assert report.totals == {"EUR": Decimal("141.26")}
    assert report.days == [START + timedelta(days=n) for n in range(5)]
    async with ledger.read() as conn:
        assert await balance(conn, "A-a365") == Decimal("100050.00")
        assert await balance(conn, "BANK-INTEREST-EUR") == Decimal("-141.26")
    assert await books_balance(ledger)


async def test_the_last_of_february_weighs_three_days_under_30_360(ledger):
    await rated(ledger, "savings", 500, "30/360", since=date(2025, 2, 28))
    await opened(ledger, [("A-1", "savings", "100000.00")])
    await ran(ledger, date(2025, 2, 28))
    assert await posted(ledger) == {("A-1", "2025-02-28"): Decimal("41.67")}  # 10,000,000 x 0.05 x 3 / 360


async def test_halves_go_to_the_even_cent_and_debts_are_charged(ledger):
    """1,825 cents at 10 % actual/365 are exactly 0.5 cents a day: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, -1.5 -> -2."""
    await rated(ledger, "savings", 1_000)
    await opened(ledger, [(f"A-{n}", "savings", amount) for n, amount in enumerate(["18.25", "54.75", "91.25"])])
    await opened(ledger, [("A-debt", "savings", "-54.75")])
    tally = await ran(ledger, START)
    assert [(await posted(ledger))[name, "2025-01-28"] for name in ("A-0", "A-1", "A-2", "A-debt")] == [
        Decimal("0.00"), Decimal("0.02"), Decimal("0.02"), Decimal("-0.02"),
    ]  # fmt: skip
    assert (tally.posted, tally.zero) == (4, 1)
    assert await books_balance(ledger)


async def test_a_new_rate_counts_from_its_day(ledger):
    await rated(ledger, "savings", 365)
    await rated(ledger, "savings", 730, since=START + timedelta(days=1))
    await opened(ledger, [("A-1", "savings", "100000.00")])
    await ran(ledger, START + timedelta(days=1))
    assert list((await posted(ledger)).values()) == [Decimal("10.00"), Decimal("20.00")]


async def test_running_again_posts_nothing(ledger):
    await rated(ledger, "savings", 365)
    await opened(ledger, [("A-1", "savings", "100000.00"), ("A-2", "savings", "0.00")])
    first = await ran(ledger, START)
    before = await posted(ledger)
    again = await ran(ledger, START)
    assert (first.posted, again.posted, again.days) == (2, 0, [])
    assert await posted(ledger) == before
    assert await books_balance(ledger)


async def test_missed_days_are_caught_up_on_each_days_own_balance(ledger):
    await rated(ledger, "savings", 3_650)
    await opened(ledger, [("A-1", "savings", "1000.00")])
    await ran(ledger, START)
    async with ledger.begin() as conn:
        await post(conn, [paid("A-1", "1000.00", START + timedelta(days=2))])
    tally = await ran(ledger, START + timedelta(days=3))
    assert list((await posted(ledger)).values()) == [
        Decimal("1.00"),  # 1,000.00 x 0.365 / 365
        Decimal("1.00"),  # 1,001.00
        Decimal("2.00"),  # 2,002.00
        Decimal("2.00"),  # 2,004.00
    ]
    assert len(tally.days) == 3


async def test_accounts_opened_while_runs_were_missed_start_on_their_own_day(ledger):
    await rated(ledger, "savings", 365)
    await opened(ledger, [("A-1", "savings", "100000.00")])
    await ran(ledger, START)
    await opened(ledger, [("A-2", "savings", "100000.00")], START + timedelta(days=2))
    await ran(ledger, START + timedelta(days=3))
    days = [(name, int(day[-2:])) for name, day in await posted(ledger)]
    assert sorted(days) == [("A-1", 28), ("A-1", 29), ("A-1", 30), ("A-1", 31), ("A-2", 30), ("A-2", 31)]


async def test_what_earns_nothing_is_left_alone(ledger):
    await rated(ledger, "savings", 365)
    await opened(ledger, [("A-1", "savings", "100.00"), ("A-2", "checking", "100.00"), ("A-3", "savings", "100.00")])
    await opened(ledger, [("A-4", "savings", "100.00")], START + timedelta(days=9))
    async with ledger.begin() as conn:
        await conn.execute(update(tables.accounts).where(tables.accounts.c.id == "A-3").values(status="closed"))
    tally = await ran(ledger, START)
    assert [name for name, _ in await posted(ledger)] == ["A-1"]
    assert tally.failed == 0


async def test_small_batches_give_the_same_as_one(ledger):
    await rated(ledger, "savings", 365)
    await opened(ledger, [(f"A-{n:02}", "savings", f"{n}000.00") for n in range(1, 24)])
    tally = await ran(ledger, START, batch_size=5)
    assert tally.posted == 23
    assert tally.totals == {"EUR": sum(n * 10 for n in range(1, 24))}
    assert (await posted(ledger))["A-23", "2025-01-28"] == Decimal("2.30")
    assert await books_balance(ledger)


async def test_an_account_further_behind_than_allowed_is_reported_and_the_others_go_on(ledger):
    await rated(ledger, "savings", 365)
    await opened(ledger, [("A-1", "savings", "1000.00")])
    await opened(ledger, [("A-2", "savings", "1000.00")], START + timedelta(days=40))
    tally = await ran(ledger, START + timedelta(days=41))
    assert (tally.posted, tally.failed) == (2, 1)
    assert tally.errors[0].account_id == "A-1"
    assert "its next day is 2025-01-28, before this run's first, 2025-02-08" in tally.errors[0].reason
    later = await ran(ledger, START + timedelta(days=41), since=START + timedelta(days=40))
    assert (later.posted, later.failed) == (2, 0)


async def test_a_run_that_begins_late_looks_at_no_day_before(ledger):
    await rated(ledger, "savings", 365)
    await opened(ledger, [("A-1", "savings", "1000.00")])
    tally = await ran(ledger, START + timedelta(days=21), since=START + timedelta(days=20))
    assert tally.days == [START + timedelta(days=20), START + timedelta(days=21)]
    assert (tally.posted, tally.failed) == (2, 0)


REJECT = {
    "sqlite": [
        "CREATE TRIGGER reject BEFORE INSERT ON postings WHEN NEW.account_id = 'A-07' "
        "BEGIN SELECT RAISE(ABORT, 'account A-07 is under dispute'); END"
    ],
    "postgresql": [
        "CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.account_id = 'A-07' THEN RAISE EXCEPTION 'account A-07 is under dispute'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER reject BEFORE INSERT ON postings FOR EACH ROW EXECUTE FUNCTION reject()",
    ],
}


async def test_an_account_that_can_not_be_booked_is_reported_and_the_others_go_on(ledger):
    await rated(ledger, "savings", 365)
    await opened(ledger, [(f"A-{n:02}", "savings", "1000.00") for n in range(12)])
    async with ledger.begin() as conn:
        for statement in REJECT[ledger.dialect]:
            await conn.execute(text(statement))
    tally = await ran(ledger, START + timedelta(days=1), batch_size=5)
    assert (tally.posted, tally.failed) == (22, 1)
    assert (tally.errors[0].account_id, tally.errors[0].day) == ("A-07", START)
    assert "under dispute" in tally.errors[0].reason
    assert await books_balance(ledger)
    async with ledger.begin() as conn:
        await conn.execute(text(f"DROP TRIGGER reject{' ON postings' if ledger.dialect == 'postgresql' else ''}"))
    mended = await ran(ledger, START + timedelta(days=1), batch_size=5)
    assert (mended.posted, mended.failed) == (2, 0)  # both of its days
    assert len(await posted(ledger)) == 24


async def test_runs_side_by_side_post_each_day_once(ledger, ledger_url):
    await rated(ledger, "savings", 365)
    await opened(ledger, [(f"A-{n:03}", "savings", "100000.00") for n in range(120)])

    async def one() -> int:
        async with open_ledger(ledger_url) as own:
            return (await ran(own, START + timedelta(days=2), batch_size=7)).posted

    counts = await asyncio.gather(*(one() for _ in range(4)))
    assert sum(counts) == 360
    async with ledger.read() as conn:
        assert set((await balances(conn)).values()) == {
            Decimal("100030.00"), Decimal("-12000000.00"), Decimal("-3600.00"),
        }  # fmt: skip
    assert await books_balance(ledger)


KILLED_RUN = """
import asyncio, datetime, sys
from streamq.processors.interest_posting import InterestRequest, InterestRun
from streamq.processors.ledger import open_ledger

async def main():
    async with open_ledger(sys.argv[1]) as ledger:
        run = InterestRun(ledger, InterestRequest(date=datetime.date(2025, 1, 30), batch_size=10))
        async for tally in run.batches():
            print(tally.posted, flush=True)

asyncio.run(main())
"""


async def test_a_run_that_is_killed_is_completed_by_the_next_one(ledger, ledger_url):
    await rated(ledger, "savings", 365)
    await opened(ledger, [(f"A-{n:03}", "savings", "100000.00") for n in range(200)])
    for batches in (1, 3, 7):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED_RUN, ledger_url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(batches):
            assert await process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        await process.stdout.read()
        assert await process.wait() == -signal.SIGKILL
        assert await books_balance(ledger)
    before = len(await posted(ledger))
    assert 0 < before < 600
    tally = await ran(ledger, date(2025, 1, 30))
    assert before + tally.posted == 600
    async with ledger.read() as conn:
        assert await balance(conn, "BANK-INTEREST-EUR") == Decimal("-6000.00")
        count = select(func.count()).select_from(tables.postings).where(tables.postings.c.account_id == "A-000")
        assert (await conn.execute(count)).scalar_one() == 4
    assert await books_balance(ledger)


async def test_a_rate_with_an_unknown_day_count_stops_the_run_before_anything_is_posted(ledger):
    await rated(ledger, "savings", 365)
    await rated(ledger, "loan", 365, "lunar")
    await opened(ledger, [("A-1", "savings", "1000.00")])
    with pytest.raises(Unrecoverable, match="day count 'lunar'; there are actual/365"):
        await ran(ledger, START)
    assert await posted(ledger) == {}


@pytest.mark.parametrize("wrong", [{"maxDays": 0}, {"batchSize": 0}])
async def test_a_request_that_makes_no_sense_is_refused(run_job, wrong):
    with pytest.raises(Unrecoverable, match="maxDays must be 1 to"):
        await run_job(processors, "post-interest", {"date": "2025-01-28", **wrong})


@pytest.mark.parametrize("lines", [[], [("A-1", 0)], [("A-1", 5), ("A-2", -4)]])
async def test_lines_that_do_not_balance_are_not_written(sqlite_ledger, lines):
    await opened(sqlite_ledger, [("A-1", "savings", "0"), ("A-2", "savings", "0")])
    head = Transaction(id="t-1", kind="interest", booked_on=START, postings=())
    with pytest.raises(UnbalancedTransaction, match="t-1: its"):
        async with sqlite_ledger.begin() as conn:
            await insert_lines(conn, head, lines)
    async with sqlite_ledger.read() as conn:
        assert (await conn.execute(select(func.count()).select_from(tables.transactions))).scalar_one() == 0


async def test_on_a_worker_that_is_killed_another_one_completes_the_run(ledger, ledger_url, redis_url):
    await rated(ledger, "savings", 365)
    await opened(ledger, [(f"A-{n:03}", "savings", "100000.00") for n in range(400)])
    command = [sys.executable, "-m", "streamq.worker", "--queues", "calculations", "--log-level", "error"]
    command += ["--processors", "streamq.processors.calculations:processors"]
    env = os.environ | {"REDIS_URL": redis_url, "STREAMQ_LEASE": "1", "STREAMQ_LEDGER_URL": ledger_url}
    async with Queue(QueueName.CALCULATIONS, redis_url) as queue:
        job = await queue.add("post-interest", {"date": "2025-01-31", "batchSize": 5})
        first = await asyncio.create_subprocess_exec(*command, env=env)
        async for event in queue.events(after="0-0"):
            if event.kind == "progress":
                break
        first.kill()
        await first.wait()
        before = len(await posted(ledger))
        second = await asyncio.create_subprocess_exec(*command, env=env)
        try:
            report = await job.result(timeout=60)
        finally:
            second.kill()
            await second.wait()
    assert 0 < before < 1_600
    assert report["posted"] + before == 1_600
    async with ledger.read() as conn:
        assert await balance(conn, "BANK-INTEREST-EUR") == Decimal("-16000.00")
    assert await books_balance(ledger)


async def test_a_schedules_job_posts_the_day_before_its_slot(run_job, ledger, ledger_url, monkeypatch):
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    await rated(ledger, "savings", 365)
    await opened(ledger, [("A-1", "savings", "1000.00")])
    slot = int(datetime(2025, 1, 28, 23, 30, tzinfo=UTC).timestamp() * 1000)
    report = await run_job(processors, "post-interest", {"timeZone": "Europe/Berlin"}, job_id=f"nightly@{slot}")
    assert (report.date, report.posted) == (START, 1)
    assert await posted(ledger) == {("A-1", "2025-01-28"): Decimal("0.10")}


async def test_a_schedule_posts_what_is_due_without_being_told_a_day(redis_url, ledger, ledger_url, monkeypatch):
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    opening = datetime.now(UTC).date() - timedelta(days=3)
    await rated(ledger, "savings", 365, since=opening)
    await opened(ledger, [("A-1", "savings", "1000.00")], opening)
    queue_name = QueueName.CALCULATIONS
    async with Queue(queue_name, redis_url) as queue, Worker(queue_name, processors, redis=redis_url):
        events = queue.events(after="0-0")
        await queue.upsert_schedule("nightly", every=0.1, name="post-interest", data={}, limit=1)
        async for event in events:
            if event.kind in ("completed", "failed"):
                break
        await events.aclose()
        report = await queue.result(event.job_id)
    slot = datetime.fromtimestamp(int(event.job_id.rpartition("@")[2]) / 1000, UTC)
    assert report["date"] == (slot.date() - timedelta(days=1)).isoformat()
    assert max(day for _, day in await posted(ledger)) == report["date"]
