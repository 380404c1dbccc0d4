"""Prove that a night went right, from what is there: both ledgers, the mailbox, the files, and the jobs' endings.

Each check counts anew and by another way than the processors do. None of them changes anything.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
from collections import Counter
from contextlib import AsyncExitStack
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.demo.facts import Facts
from streamq.demo.folder import DemoFolder
from streamq.demo.mail import delivered
from streamq.demo.plan import FIRST_DAY
from streamq.processors.ledger import open_ledger, tables, verify_books
from streamq.processors.recurring_schedule import Frequency, MonthEnd, Rule


class Check(NamedTuple):
    """One thing that must hold: what it is, what was found, and what is wrong with it ("" if nothing is)."""

    title: str
    found: str
    wrong: str = ""


async def reconcile(folder: DemoFolder, facts: Facts) -> list[Check]:
    """Return every check of the night, passed or not."""
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(folder.ledger_url))
        second = await stack.enter_async_context(open_ledger(folder.second_url))
        conn = await stack.enter_async_context(ledger.read())
        other = await stack.enter_async_context(second.read())
        return [
            await books(conn),
            await files_of_rows(conn, facts),
            await interest(conn, facts),
            await standing_orders(conn, facts),
            await letters(conn, facts, folder.mailbox),
            await second_ledger(conn, other),
            await generated_files(conn, folder.files),
            await export(conn, folder.files),
            jobs(facts),
        ]


async def books(conn: AsyncConnection) -> Check:
    """Check that every transaction and the whole sum to zero."""
    report = await verify_books(conn)
    found = f"{report.transactions:,} transactions, {report.postings:,} postings, sum {report.total}"
    bad = [*report.unbalanced, *report.incomplete, *report.wrong_currency]
    wrong = "" if report.ok else f"the sum is {report.total}, and {', '.join(bad[:3]) or 'no transaction'} is wrong"
    return Check("the books balance", found, wrong)


async def files_of_rows(conn: AsyncConnection, facts: Facts) -> Check:
    """Check that each sound row of both files is in the ledger once, and each bad one in the list of errors."""
    m, t, p, size = tables.members, tables.transactions, tables.postings, facts.size
    members = (await conn.execute(select(func.count()).where(m.c.id.like("N-%")))).scalar_one()
    query = select(func.count(), func.sum(p.c.amount)).join(t, t.c.id == p.c.transaction_id)
    query = query.join(tables.accounts, tables.accounts.c.id == p.c.account_id)
    payments, total = (
        await conn.execute(query.where(t.c.id.like("P-%"), tables.accounts.c.member_id.is_not(None)))
    ).one()
    refused = (await conn.execute(select(func.count()).select_from(tables.import_errors))).scalar_one()
    found = f"{members:,} members and {payments:,} payments of together {total:,} EUR; {refused} rows refused"
    wanted = (size.members, size.payments, facts.payments_total, size.bad_members)
    wrong = ""
    if (members, payments, total, refused) != wanted:
        wrong = (
            f"the files hold {size.members:,} members, {size.payments:,} payments of together {facts.payments_total:,} "
            f"EUR and {size.bad_members} bad rows; found were {found}"
        )
    return Check("each row of both files came in once", found, wrong)


async def interest(conn: AsyncConnection, facts: Facts) -> Check:
    """Check that each account has one posting per day, and that what is booked is what was posted."""
    i, a, t, p = tables.interest_postings, tables.accounts, tables.transactions, tables.postings
    rows = (await conn.execute(select(i.c.account_id, i.c.day, i.c.amount))).all()
    posted = {(row.account_id, row.day): row.amount for row in rows}
    earning = list((await conn.execute(select(a.c.id).where(a.c.member_id.is_not(None)))).scalars())
    wanted = {(account, day) for account in earning for day in facts.size.days}
    lines = select(p.c.account_id, t.c.booked_on, p.c.amount).join(t, t.c.id == p.c.transaction_id)
    lines = lines.join(a, a.c.id == p.c.account_id).where(t.c.kind == "interest", a.c.member_id.is_not(None))
    booked: Counter[tuple[str, date]] = Counter()
    money: dict[tuple[str, date], Decimal] = {}
    for account, day, amount in await conn.execute(lines):
        booked[account, day] += 1
        money[account, day] = money.get((account, day), Decimal(0)) + amount
    wrong = ""
    if len(rows) != len(posted) or max(booked.values(), default=0) > 1:
        twice = next((f"{account} of {day}" for (account, day), n in booked.items() if n > 1), "an account day")
        wrong = f"{twice} was posted more than once"
    elif missing := wanted - posted.keys():
        wrong = f"{len(missing)} account days were not posted, such as {min(missing)[0]} of {min(missing)[1]}"
    elif extra := posted.keys() - wanted:
        wrong = f"{len(extra)} account days were posted that were not due"
    elif money != {key: amount for key, amount in posted.items() if amount}:
        wrong = f"booked were {sum(money.values())} EUR, posted {sum(posted.values())} EUR"
    found = f"{len(earning):,} accounts x {len(facts.size.days)} days, {sum(posted.values()):,} EUR"
    return Check("interest once per account and day", found, wrong)


async def standing_orders(conn: AsyncConnection, facts: Facts) -> Check:
    """Check that every due date has one instance, and every executed one its booking."""
    r, i, t = tables.recurring_transactions, tables.recurring_instances, tables.transactions
    wanted = set[tuple[str, date]]()
    for row in await conn.execute(select(r)):
        rule = Rule(frequency=Frequency(row.frequency), start=row.start, month_end=MonthEnd(row.month_end))
        wanted |= {(row.id, due) for due in rule.due(FIRST_DAY, facts.size.morning)}
    instances = (await conn.execute(select(i.c.recurring_id, i.c.due_on, i.c.status, i.c.transaction_id))).all()
    executed = [one.transaction_id for one in instances if one.status == "executed"]
    booked = list((await conn.execute(select(t.c.id).where(t.c.kind == "recurring"))).scalars())
    wrong = ""
    if sorted((one.recurring_id, one.due_on) for one in instances) != sorted(wanted):
        wrong = f"{len(wanted)} instances were due, {len(instances)} are recorded"
    elif sorted(executed) != sorted(booked):
        wrong = f"{len(executed)} instances were executed, {len(booked)} transactions are booked"
    found = f"{len(wanted)} due dates, {len(executed)} executed, {len(instances) - len(executed)} not covered"
    return Check("standing orders once per due date", found, wrong)


async def letters(conn: AsyncConnection, facts: Facts, mailbox: Path) -> Check:
    """Check that each recipient's e-mail lies in the mailbox once, and is recorded as accepted once."""
    d = tables.deliveries
    query = select(d.c.recipient, d.c.message_id).where(d.c.channel == "email", d.c.status == "accepted")
    recorded = sorted((row.recipient, row.message_id) for row in await conn.execute(query))
    boxes = await asyncio.to_thread(delivered, mailbox)
    wanted = sorted(facts.recipients)
    wrong = ""
    if more := [recipient for recipient, ids in boxes.items() if len(ids) > 1]:
        wrong = f"{more[0]} has more than one e-mail"
    elif sorted(boxes) != wanted:
        wrong = f"{len(wanted)} e-mails were to be sent, {len(boxes)} lie in the mailbox"
    elif recorded != sorted((recipient, one) for recipient, ids in boxes.items() for one in ids):
        wrong = f"{len(boxes)} e-mails lie in the mailbox, {len(recorded)} are recorded as accepted"
    return Check("each e-mail sent once", f"{len(boxes)} e-mails to {len(boxes)} recipients", wrong)


async def second_ledger(conn: AsyncConnection, other: AsyncConnection) -> Check:
    """Check that the second ledger holds the same members, accounts and bookings, and balances too."""
    wrong, count = "", 0
    for table in (tables.members, tables.accounts, tables.transactions, tables.postings):
        here, there = await _digest(conn, table), await _digest(other, table)
        count += here[0]
        if here != there:
            wrong = wrong or f"its {table.name} differ: {there[0]:,} rows there, {here[0]:,} here"
    if not wrong and not (await verify_books(other)).ok:
        wrong = "its books don't balance"
    return Check("the second ledger is the same", f"{count:,} rows compared", wrong)


async def generated_files(conn: AsyncConnection, folder: Path) -> Check:
    """Check that each file that a job recorded is there, whole."""
    rows = (await conn.execute(select(tables.generated_files))).all()
    wrong = ""
    for row in rows:
        path = folder / row.name
        if not path.exists():
            wrong = wrong or f"{row.name} is missing"
        elif hashlib.sha256(await asyncio.to_thread(path.read_bytes)).hexdigest() != row.sha256:
            wrong = wrong or f"{row.name} is not what its job wrote"
    return Check("each file is whole", f"{len(rows)} files, by their SHA-256", wrong)


async def export(conn: AsyncConnection, folder: Path) -> Check:
    """Check that the exported file holds each line that was booked since the first night, and sums to zero."""
    t, p = tables.transactions, tables.postings
    query = select(func.count()).select_from(p).join(t, t.c.id == p.c.transaction_id).where(t.c.booked_on >= FIRST_DAY)
    wanted = (await conn.execute(query)).scalar_one()
    lines, total = await asyncio.to_thread(_sum_export, folder)
    wrong = "" if lines == wanted and not total else f"it holds {lines:,} of {wanted:,} lines and sums to {total}"
    return Check("the export holds each line", f"{lines:,} lines, sum {total}", wrong)


def jobs(facts: Facts) -> Check:
    """Check that every job that was accepted ended, once, as it should."""
    wrong = ""
    for job in facts.jobs:
        if job.endings != [job.expected.value]:
            wrong = wrong or f"job {job.job} was to end as {job.expected}, and ended as {job.endings or 'nothing'}"
    for queue, left in facts.unfinished.items():
        if left:
            wrong = wrong or f"{left} jobs of {queue} have not ended"
    ends = Counter(job.expected for job in facts.jobs)
    found = f"{len(facts.jobs)} accepted: " + ", ".join(f"{count} {word}" for word, count in sorted(ends.items()))
    return Check("every job ended once", found, wrong)


async def _digest(conn: AsyncConnection, table: Any) -> tuple[int, str]:
    """Return how many rows the table has and a hash of what they say, the moments of writing left out."""
    columns = [column for column in table.c if column.name not in ("created_at", "updated_at", "job_id")]
    digest, count = hashlib.sha256(), 0
    result = await conn.execute(select(*columns).order_by(*table.primary_key.columns))
    for chunk in result.partitions(5_000):
        digest.update(repr([tuple(row) for row in chunk]).encode())
        count += len(chunk)
    return count, digest.hexdigest()


def _sum_export(folder: Path) -> tuple[int, Decimal]:
    lines, total = 0, Decimal("0.00")
    for path in folder.glob("exports/transactions-*.csv"):
        with open(path, newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                lines, total = lines + 1, total + Decimal(row["amount"])
    return lines, total
