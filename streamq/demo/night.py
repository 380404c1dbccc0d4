"""The work of a night and of the morning after: the jobs and schedules, as they are handed to the queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select

from streamq.demo.errors import DemoFailed
from streamq.demo.folder import MEMBERS, PAYMENTS
from streamq.demo.plan import FIRST_DAY, INTEREST, KEEP, NOVEMBER, STANDING_ORDERS, BankClock, Ending, NightJob, Size
from streamq.demo.processors import CALCULATIONS, EMAILS, EXPORTS, IMPORTS, INTEGRATIONS, QUEUES, REPORTS
from streamq.demo.processors import PAYMENTS as GATEWAY
from streamq.demo.watch import Key
from streamq.job import JobOptions
from streamq.policy import Priority
from streamq.processors.ledger import Ledger, balances, tables
from streamq.queue import Queue

BOARD = "board@bank.example"

Queues = Mapping[str, Queue]


class Line(NamedTuple):
    """A line of the display: a title, the job or jobs behind it, and how they are meant to end."""

    title: str
    keys: list[Key]
    ending: Ending = Ending.COMPLETED


async def clear(queues: Queues) -> None:
    """Remove what an earlier run left in the demo's queues.

    Raises:
        DemoFailed: Another demo is running on this server.
    """
    for queue in queues.values():
        if any(worker.alive for worker in await queue.workers()):
            raise DemoFailed(f"another demo's workers serve {queue.name} on this server: try again when it has ended")
        await queue.obliterate(force=True)


async def letters(ledger: Ledger, size: Size) -> dict[str, dict[str, Any]]:
    """Return the e-mails to members about their balance, by recipient."""
    m, a = tables.members, tables.accounts
    query = select(m.c.name, m.c.email, a.c.id).join(a, a.c.member_id == m.c.id).order_by(m.c.id, a.c.id)
    async with ledger.read() as conn:
        held = await balances(conn)
        first = {row.email: row for row in reversed((await conn.execute(query)).all())}
    chosen = list(reversed(first.values()))[: size.letters]
    return {
        row.email: {
            "template": "account-alert",
            "to": row.email,
            "context": {
                "member_name": row.name,
                "account_number": row.id,
                "alert_title": "Your balance at the end of the year",
                "alert_message": f"On 31 December your account held {held[row.id]:,} EUR.",
            },
        }
        for row in chosen
    }


async def begin_night(queues: Queues, size: Size, post: Mapping[str, dict[str, Any]]) -> dict[str, Line]:
    """Hand the night's jobs and schedules over, and return the lines that show them."""
    plans = {
        "payments": (
            f"import of {size.payments:,} card payments", IMPORTS, "import-transactions",
            {"entity": "transactions", "file": PAYMENTS, "batchSize": size.batch},
        ),
        "members": (
            f"import of {size.members:,} new members", IMPORTS, "import-members",
            {"entity": "members", "file": MEMBERS, "batchSize": size.batch},
        ),
        "summary": (
            "transaction summary, November", REPORTS, "generate-monthly-report",
            {"reportType": "monthly-summary", "userId": "user-123", "filters": NOVEMBER,
             "formats": ["csv", "xlsx", "pdf"]},
        ),
        "balances": (
            "member balances, November", REPORTS, "generate-financial-report",
            {"reportType": "member-balances", "filters": NOVEMBER, "formats": ["csv", "xlsx"]},
        ),
        "flaky": ("payment that fails twice", GATEWAY, "send-payment", {"reference": "INV-1", "refusals": 2}),
        "dead": ("payment that never goes through", GATEWAY, "send-payment", {"reference": "INV-2", "refusals": 99}),
    }  # fmt: skip
    lines = {}
    for key, (title, queue, name, data) in plans.items():
        priority = Priority.HIGH if key == "summary" else Priority.NORMAL
        job = await queues[queue].add(name, data, priority=priority, keep_completed=KEEP)
        ending = Ending.FAILED if key == "dead" else Ending.COMPLETED
        lines[key] = Line(title, [(queue, job.id)], ending)
    batch = await queues[EMAILS].add_many(
        ("send-email", letter, JobOptions(keep_completed=KEEP)) for letter in post.values()
    )
    lines["letters"] = Line(f"e-mails to {len(batch)} members", [(EMAILS, job.id) for job in batch])
    return lines | await schedule(queues[CALCULATIONS], size)


async def schedule(queue: Queue, size: Size) -> dict[str, Line]:
    """Upsert the two schedules, one by distance and one by cron, of the same slots; return their lines."""
    clock = BankClock.starting_after((await queue.tally(over=0.1)).until, size.night_seconds)
    data, options = NightJob(clock=clock), JobOptions(keep_completed=KEEP)
    await queue.upsert_schedule(
        INTEREST, every=size.night_seconds, name="post-interest", data=data, options=options,
        start=clock.first, limit=size.nights, missed="all",
    )  # fmt: skip
    await queue.upsert_schedule(
        STANDING_ORDERS, cron=f"*/{size.night_seconds} * * * * *", name="run-recurring-transactions", data=data,
        options=options, start=clock.first, limit=size.nights, missed="all",
    )  # fmt: skip
    titles = {INTEREST: f"interest of {size.nights} nights", STANDING_ORDERS: f"standing orders of {size.nights} days"}
    return {
        one: Line(title, [(queue.name, job_id) for job_id in clock.job_ids(one, size.nights)])
        for one, title in titles.items()
    }


async def begin_morning(queues: Queues, report: str) -> dict[str, Line]:
    """Hand the morning's jobs over: they tell of the night, so all of it must have ended. Return their lines."""
    export = {"entity": "transactions", "format": "csv", "filters": {"from": FIRST_DAY.isoformat()}}
    letter = {
        "template": "system-notification",
        "to": BOARD,
        "context": {"title": "The night's report", "message": "Attached is the summary of November."},
        "attachments": [{"filename": "summary.pdf", "storageKey": report}],
    }
    plans = {
        "export": ("export of what the night booked", EXPORTS, "export-transactions", export),
        "sync": ("sync to the second ledger", INTEGRATIONS, "sync-data", {"destination": "second", "verify": "all"}),
        "board": ("e-mail to the board, report attached", EMAILS, "send-email", letter),
    }
    lines = {}
    for key, (title, queue, name, data) in plans.items():
        job = await queues[queue].add(name, data, keep_completed=KEEP)
        lines[key] = Line(title, [(queue, job.id)])
    return lines


async def unfinished(queues: Queues) -> dict[str, int]:
    """Return how many jobs of each queue have not ended."""
    stats = {name: await queues[name].stats() for name in QUEUES}
    return {name: counts.waiting + counts.active + counts.delayed for name, counts in stats.items()}
