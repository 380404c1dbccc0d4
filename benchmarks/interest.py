"""How fast is interest posting, beside plain SQL statements that do the same arithmetic in Python?

    python -m benchmarks.interest [--accounts 100000] [--days-booked 10] [--postgres URL] [--reps 3]

Three ways over the same ledger, each on a fresh copy, in turn:

- the processor itself, `InterestRun`, in batches of 1,000;
- `same rows`: per 1,000 accounts one SELECT of the balances, the arithmetic in Python, and the same rows written by
  plain statements on the bare driver (a transaction, its postings, the interest rows); bar 0.4;
- `interest rows only`: the same without the bookings, one INSERT per 1,000 accounts. Half of the job's work.

Both yardsticks look at every booking's date; the job does so only where bookings later than the day exist (here: none).
Prints JSON: accounts per second, and ratios of neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text

from benchmarks.harness import Verdicts, machine, ratio
from streamq.processors.interest_days import divide_half_even
from streamq.processors.interest_posting import InterestRequest, InterestRun
from streamq.processors.ledger import Ledger, Posting, Transaction, ensure_bank_account, open_ledger, tables
from streamq.processors.ledger.books import insert_unchecked

DAY = date(2025, 3, 3)
BATCH = 1_000
BALANCES = (
    "SELECT a.id, (SELECT sum(p.amount) FROM postings p JOIN transactions t ON t.id = p.transaction_id "
    "WHERE p.account_id = a.id AND t.booked_on <= {day}) FROM accounts a "
    "WHERE a.id > {after} AND a.kind = 'savings' ORDER BY a.id LIMIT 1000"
)


async def fill(ledger: Ledger, accounts: int, bookings: int) -> None:
    """Open savings accounts with `bookings` deposits each, on the days before."""
    names = [f"A-{n:07}" for n in range(accounts)]
    rate = {"account_kind": "savings", "currency": "EUR", "rate": 365, "rate_scale": 10_000, "day_count": "actual/365"}
    async with ledger.begin() as conn:
        await ensure_bank_account(conn, "EUR")
        await ensure_bank_account(conn, "EUR", "interest")
        await conn.execute(insert(tables.interest_rates).values(**rate, valid_from=DAY))
        await conn.execute(insert(tables.members).values(id="M", name="Members", joined_on=DAY))
        row = {"member_id": "M", "kind": "savings", "currency": "EUR", "opened_on": DAY - timedelta(days=bookings)}
        await conn.execute(insert(tables.accounts), [{"id": name, **row} for name in names])
        for number in range(bookings):
            for start in range(0, accounts, BATCH):
                lines = [
                    Posting(name, Decimal(1000 + (start + n) % 977))
                    for n, name in enumerate(names[start : start + BATCH])
                ]
                lines.append(Posting("BANK-CASH-EUR", -sum((line.amount for line in lines), Decimal(0))))
                head = Transaction(
                    id=f"t-{number}-{start}", kind="deposit", booked_on=DAY - timedelta(days=number + 1),
                    postings=tuple(lines),
                )  # fmt: skip
                await insert_unchecked(conn, [head])


async def job(url: str) -> int:
    """Run the processor."""
    async with open_ledger(url) as ledger:
        run = InterestRun(ledger, InterestRequest(date=DAY))
        async for _ in run.batches():
            pass
    return run.tally.posted


def amounts(rows: list[Any]) -> list[tuple[str, int, int]]:
    """Do the job's arithmetic."""
    return [(name, balance, divide_half_even(int(balance) * 365, 10_000 * 365)) for name, balance in rows]


def on_sqlite(full: bool) -> Callable[[str], Awaitable[int]]:
    """Return a plain run on the sqlite3 module."""

    async def run(url: str) -> int:
        db = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        day, now, done, after = DAY.isoformat(), "2025-03-04 00:00:00.000000", 0, ""
        while True:
            db.execute("BEGIN IMMEDIATE")
            found = amounts(db.execute(BALANCES.format(day="?", after="?"), (day, after)).fetchall())
            if not found:
                db.execute("ROLLBACK")
                break
            after, name = found[-1][0], f"interest-{found[0][0]}" if full else None
            if full:
                db.execute("INSERT INTO transactions VALUES (?, 'interest', ?, 'EUR', '', NULL, ?)", (name, day, now))
                lines = [(name, n, one, amount) for n, (one, _, amount) in enumerate(found, 1)]
                lines.append((name, len(lines) + 1, "BANK-INTEREST-EUR", -sum(line[3] for line in lines)))
                db.executemany("INSERT INTO postings VALUES (?, ?, ?, ?)", lines)
            values = ", ".join(["(?, ?, ?, ?, ?, NULL, ?)"] * len(found))
            flat = [value for one, on, amount in found for value in (one, day, on, amount, name, now)]
            db.execute(f"INSERT INTO interest_postings VALUES {values}", flat)  # noqa: S608 - placeholders only
            db.execute("COMMIT")
            done += len(found)
        db.close()
        return done

    return run


def on_postgres(full: bool) -> Callable[[str], Awaitable[int]]:
    """Return a plain run on asyncpg."""

    async def run(url: str) -> int:
        from datetime import datetime

        import asyncpg

        db, done, after, now = await asyncpg.connect(url), 0, "", datetime(2025, 3, 4)
        insert_rows = "INSERT INTO interest_postings SELECT * FROM unnest($1::text[], $2::date[], $3::bigint[], "
        insert_rows += "$4::bigint[], $5::text[], $6::text[], $7::timestamp[])"
        while True:
            async with db.transaction():
                rows = await db.fetch(BALANCES.format(day="$1", after="$2"), DAY, after)
                found = amounts([(row[0], row[1]) for row in rows])
                if not found:
                    break
                after, name, size = found[-1][0], f"interest-{found[0][0]}" if full else None, len(found)
                if full:
                    head = "INSERT INTO transactions VALUES ($1, 'interest', $2, 'EUR', '', NULL, $3)"
                    await db.execute(head, name, DAY, now)
                    lines = [(name, n, one, amount) for n, (one, _, amount) in enumerate(found, 1)]
                    lines.append((name, size + 1, "BANK-INTEREST-EUR", -sum(line[3] for line in lines)))
                    await db.executemany("INSERT INTO postings VALUES ($1, $2, $3, $4)", lines)
                names, held, earned = zip(*found, strict=True)
                rest = [name] * size, [None] * size, [now] * size
                await db.execute(insert_rows, names, [DAY] * size, [int(b) for b in held], earned, *rest)
                done += size
        await db.close()
        return done

    return run


async def timed(fresh: Callable[[], Awaitable[str]], run: Callable[[str], Awaitable[int]], accounts: int) -> float:
    """Return the accounts per second of one run on a fresh ledger."""
    url = await fresh()
    start = time.perf_counter()
    done = await run(url)
    seconds = time.perf_counter() - start
    if done != accounts:
        raise SystemExit(f"{done} accounts were posted, not {accounts}")
    return accounts / seconds


async def measure(args: Any, database: str, fresh: Callable[[], Awaitable[str]], plain: Any, found: Verdicts) -> None:
    """Measure the three ways on one database."""
    runs = {"job": job, "same rows": plain(True), "interest rows only": plain(False)}
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.reps):
        for name, run in runs.items():
            speeds[name].append(await timed(fresh, run, args.accounts))
    for name, least in (("same rows", 0.4), ("interest rows only", None)):
        found.add(
            f"{database}, beside {name}", statistics.median(speeds["job"]), "accounts/s",
            raw=statistics.median(speeds[name]), ratio=ratio(speeds["job"], speeds[name]), least=least,
        )  # fmt: skip


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--days-booked", type=int, default=10, help="deposits that each account has")
    parser.add_argument("--postgres", help="URL of an empty PostgreSQL database to measure on too")
    parser.add_argument("--reps", type=int, default=3)
    args = parser.parse_args()
    found = Verdicts("How fast is interest posting beside plain SQL that does the same arithmetic in Python?")
    with tempfile.TemporaryDirectory(prefix="sq-interest-") as folder:
        master, copies = Path(folder, "master.db"), iter(range(1_000))
        async with open_ledger(f"sqlite:///{master}") as ledger:
            await fill(ledger, args.accounts, args.days_booked)

        async def copy() -> str:
            return f"sqlite:///{shutil.copy(master, Path(folder, f'{next(copies)}.db'))}"

        await measure(args, "SQLite", copy, on_sqlite, found)
    if args.postgres:
        async with open_ledger(args.postgres) as ledger:
            await fill(ledger, args.accounts, args.days_booked)

        async def cleared() -> str:
            async with open_ledger(args.postgres) as ledger, ledger.begin() as conn:
                await conn.execute(text("TRUNCATE interest_postings"))
                await conn.execute(text("DELETE FROM postings p USING transactions t "
                                        "WHERE t.id = p.transaction_id AND t.kind = 'interest'"))  # fmt: skip
                await conn.execute(text("DELETE FROM transactions WHERE kind = 'interest'"))
            async with open_ledger(args.postgres) as ledger, ledger.begin() as conn:
                await conn.execute(text("ANALYZE"))
            return str(args.postgres)

        await measure(args, "PostgreSQL", cleared, on_postgres, found)
    sizes = {"accounts": args.accounts, "postings_per_account": args.days_booked, "reps": args.reps}
    print(json.dumps({"question": found.question, **machine(), **sizes, "figures": found.figures}, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
