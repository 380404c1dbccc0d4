"""A sample bank: 1,000 members, 2,000 accounts, 50,000 balanced transactions of 2024, the same on every machine.

    python -m streamq.processors.sample sqlite:///bank.db

Everything but `created_at` and `updated_at` follows from the seed. Money moves in date order; no account is overdrawn.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import func, insert, select

from streamq.processors.ledger import Ledger, LedgerError, Posting, Transaction, from_minor, open_ledger, tables
from streamq.processors.ledger.books import bank_account, ensure_bank_account, insert_unchecked

CURRENCY = "EUR"
FIRST_DAY, DAYS = date(2024, 1, 1), 366
_CHUNK = 5_000
_FIRST_NAMES = (
    "Ada Alan Amara Anna Arjun Barbara Bao Carlos Chidi Clara Daniel Edsger Elif Emma Farah Fatima Grace Hana Hedy "
    "Ivan Ines Jonas Jun Kofi Lea Liam Lina Luca Maya Margaret Mei Mikael Nadia Niels Noor Olga Omar Paulo Priya "
    "Radia Rosa Samir Sofia Tariq Tomas Uma Vera Wanjiru Yara Zoe"
)
_LAST_NAMES = (
    "Adeyemi Andersson Bakker Bianchi Chen Costa Dahl Diallo Dubois Eriksen Fischer Garcia Gomez Haddad Hansen Hopper "
    "Ito Jansen Jensen Kaya Khan Kim Kowalski Lopez Lovelace Maes Martin Mensah Moreau Müller Nakamura Novak O'Brien "
    "Okafor Oliveira Patel Peeters Petrov Rossi Santos Schmidt Silva Singh Smith Svensson Tanaka Turing Weber Zhou"
)


class SampleSize(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything, and the seed it is made from."""

    members: int = 1_000
    accounts: int = 2_000
    transactions: int = 50_000
    seed: int = 2024


async def create_sample_bank(ledger: Ledger, size: SampleSize | None = None) -> SampleSize:
    """Fill an empty ledger with the sample bank, in one transaction, and return its size.

    Raises:
        LedgerError: The ledger has members already. Nothing was changed.
    """
    size = size or SampleSize()
    rng = random.Random(size.seed)  # noqa: S311 - data for show
    people = list(_members(rng, size))
    held = list(_accounts(rng, size, people))
    async with ledger.begin() as conn:
        if (await conn.execute(select(func.count()).select_from(tables.members))).scalar_one():
            raise LedgerError("the sample bank needs an empty ledger, and this one has members")
        for purpose in ("cash", "fees", "interest"):
            await ensure_bank_account(conn, CURRENCY, purpose)
        await conn.execute(insert(tables.members), people)
        await conn.execute(insert(tables.accounts), held)
        await conn.execute(insert(tables.interest_rates), list(_rates()))
        batch: list[Transaction] = []
        for transaction in _transactions(rng, size, held):
            batch.append(transaction)
            if len(batch) == _CHUNK:
                await insert_unchecked(conn, batch)
                batch = []
        await insert_unchecked(conn, batch)
        await conn.execute(insert(tables.recurring_transactions), list(_recurring(rng, held)))
    return size


def _members(rng: random.Random, size: SampleSize) -> Iterator[dict[str, Any]]:
    firsts, lasts = _FIRST_NAMES.split(), _LAST_NAMES.split()
    for number in range(1, size.members + 1):
        first, last = rng.choice(firsts), rng.choice(lasts)
        mailbox = f"{first}.{last}.{number}".lower().replace("'", "").replace("ü", "ue")
        yield {
            "id": f"M-{number:06}",
            "name": f"{first} {last}",
            "email": f"{mailbox}@example.org",
            "phone": f"+32 470 {rng.randrange(100):02} {rng.randrange(100):02} {rng.randrange(100):02}",
            "status": "active" if rng.random() < 0.97 else "inactive",
            "joined_on": date(2019, 1, 1) + timedelta(days=rng.randrange(1_800)),
        }


def _accounts(rng: random.Random, size: SampleSize, people: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number in range(1, size.accounts + 1):
        member = people[number - 1] if number <= len(people) else rng.choice(people)
        yield {
            "id": f"A-{number:06}",
            "member_id": member["id"],
            "kind": rng.choices(("savings", "current", "term"), (5, 4, 1))[0],
            "currency": CURRENCY,
            "status": "open",
            "opened_on": member["joined_on"],
        }


def _transactions(rng: random.Random, size: SampleSize, held: list[dict[str, Any]]) -> Iterator[Transaction]:
    """Yield an opening deposit for each account, then deposits, withdrawals, transfers and fees in date order."""
    cash, fees = bank_account(CURRENCY), bank_account(CURRENCY, "fees")
    ids = [account["id"] for account in held][: size.transactions]
    minor = dict.fromkeys(ids, 0)

    def book(number: int, kind: str, text: str, day: date, amount: int, source: str, target: str) -> Transaction:
        for account, change in ((source, -amount), (target, amount)):
            if account in minor:
                minor[account] += change
        lines = (Posting(source, from_minor(-amount)), Posting(target, from_minor(amount)))
        return Transaction(
            id=f"T-{number:07}", kind=kind, booked_on=day, postings=lines, currency=CURRENCY, description=text
        )

    for number, account in enumerate(ids, 1):
        yield book(number, "deposit", "Opening deposit", FIRST_DAY, rng.randrange(5_000, 500_000), cash, account)
    rest = size.transactions - len(ids)
    for n in range(rest):
        number, day = len(ids) + n + 1, FIRST_DAY + timedelta(days=n * DAYS // rest)
        account, other = rng.choice(ids), rng.choice(ids)
        amount, dice = rng.randrange(100, 25_000), rng.random()
        if minor[account] < amount or dice < 0.45:
            yield book(number, "deposit", "Counter deposit", day, amount, cash, account)
        elif dice < 0.70:
            yield book(number, "withdrawal", "Cash withdrawal", day, amount, account, cash)
        elif dice < 0.95 and other != account:
            yield book(number, "transfer", f"Transfer to {other}", day, amount, account, other)
        else:
            yield book(number, "fee", "Account keeping", day, min(amount, 250), account, fees)


def _rates() -> Iterator[dict[str, Any]]:
    for kind, rate in (("savings", 200), ("current", 10), ("term", 325)):
        yield {
            "account_kind": kind, "currency": CURRENCY, "valid_from": date(2019, 1, 1), "rate": rate,
            "rate_scale": 10_000, "day_count": "actual/365",
        }  # fmt: skip


def _recurring(rng: random.Random, held: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    if len(held) < 2:
        return
    for number in range(1, min(50, len(held)) + 1):
        source, target = rng.sample(held, 2)
        start = date(2025, 1, 1) + timedelta(days=rng.randrange(31))
        yield {
            "id": f"R-{number:05}",
            "from_account_id": source["id"],
            "to_account_id": target["id"],
            "amount": Decimal(rng.randrange(1_000, 20_000)).scaleb(-2),
            "description": "Standing order",
            "frequency": rng.choice(("weekly", "monthly", "monthly")),
            "start": start,
            "next_due_on": start,
        }


async def _main(url: str | None) -> None:
    async with open_ledger(url) as ledger:
        size = await create_sample_bank(ledger)
    print(f"{size.members:,} members, {size.accounts:,} accounts, {size.transactions:,} transactions")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1] if len(sys.argv) > 1 else None))
