"""Which accounts earn interest for a day, on what balance, at what rate. Reads only.

An account's days are posted in order and without gaps: the next one is the day after its last posted one, or for an
account without any, the day that it was opened or the bank's first rate for it, whichever is later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from sqlalchemy import BigInteger, and_, case, cast, exists, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from streamq.errors import Unrecoverable
from streamq.processors.interest_days import DayCount
from streamq.processors.ledger.tables import accounts, interest_postings, interest_rates, postings, transactions

ONE_DAY = timedelta(days=1)
_EARNING = ("open", "frozen")


class Rate(NamedTuple):
    """A yearly rate, rate / scale, from a day on."""

    valid_from: date
    rate: int
    scale: int
    day_count: DayCount


class Rates:
    """All rates of the ledger, by account kind and currency."""

    def __init__(self, by_kind: Mapping[tuple[str, str], Sequence[Rate]]) -> None:
        self._by_kind = by_kind

    @classmethod
    async def load(cls, conn: AsyncConnection) -> Rates:
        """Read the rates.

        Raises:
            Unrecoverable: A row names a day count that there is not.
        """
        found: dict[tuple[str, str], list[Rate]] = {}
        for row in await conn.execute(select(interest_rates).order_by(interest_rates.c.valid_from)):
            try:
                day_count = DayCount(row.day_count)
            except ValueError:
                known = ", ".join(DayCount)
                raise Unrecoverable(
                    f"the rate of {row.account_kind} {row.currency} from {row.valid_from} has the day count "
                    f"{row.day_count!r}; there are {known}"
                ) from None
            rate = Rate(row.valid_from, row.rate, row.rate_scale, day_count)
            found.setdefault((row.account_kind, row.currency), []).append(rate)
        return cls(found)

    @property
    def kinds(self) -> list[str]:
        """The account kinds that earn interest."""
        return sorted({kind for kind, _ in self._by_kind})

    @property
    def currencies(self) -> list[str]:
        """The currencies that some kind earns interest in."""
        return sorted({currency for _, currency in self._by_kind})

    def first(self, kind: str, currency: str) -> date | None:
        """Return the first day on which such accounts earn, None if never."""
        rates = self._by_kind.get((kind, currency))
        return rates[0].valid_from if rates else None

    def terms(self, kind: str, currency: str, day: date) -> Terms | None:
        """Return how such accounts earn on `day`; None without a rate."""
        rates = self._by_kind.get((kind, currency), ())
        number = bisect_right(rates, day, key=lambda rate: rate.valid_from)
        if not number:
            return None
        rate = rates[number - 1]
        factor, divisor = rate.rate * rate.day_count.days_of(day), rate.scale * rate.day_count.year
        return Terms(rates[0].valid_from, factor, divisor)


class Terms(NamedTuple):
    """What turns a balance into a day's interest (x factor / divisor), and the first day that such accounts earned."""

    first: date
    factor: int
    divisor: int


class Candidate(NamedTuple):
    """An account that has no interest for a day yet, and its balance at the end of that day in minor units."""

    id: str
    kind: str
    currency: str
    opened_on: date
    last: date | None
    balance: int


async def candidates(
    conn: AsyncConnection, kinds: Sequence[str], day: date, *, after: str = "", limit: int = 1, only: str | None = None
) -> list[Candidate]:
    """Return up to `limit` accounts of `kinds`, by id from `after` on, that were open and lack interest for `day`.

    With `only`, that account or nothing.
    """
    later = exists().where(and_(interest_postings.c.account_id == accounts.c.id, interest_postings.c.day >= day))
    last = select(func.max(interest_postings.c.day)).where(interest_postings.c.account_id == accounts.c.id)
    whole = select(type_coerce(func.sum(postings.c.amount), BigInteger)).where(postings.c.account_id == accounts.c.id)
    then = whole.join(transactions, transactions.c.id == postings.c.transaction_id)
    then = then.where(transactions.c.booked_on <= day)
    # Most runs are for the last day that has bookings: then the sum needs no look at each booking's date. In one
    # statement, as a booking that commits between two of them would count for a day before its own.
    later_bookings = exists().where(transactions.c.booked_on > day)
    balance = case((later_bookings, then.scalar_subquery()), else_=whole.scalar_subquery())
    query = (
        select(
            accounts.c.id,
            accounts.c.kind,
            accounts.c.currency,
            accounts.c.opened_on,
            last.scalar_subquery(),
            cast(func.coalesce(balance, 0), BigInteger),  # PostgreSQL sums integers to numeric
        )
        .where(
            accounts.c.id > after,
            accounts.c.kind.in_(kinds),
            accounts.c.status.in_(_EARNING),
            accounts.c.opened_on <= day,
            ~later,
        )
        .order_by(accounts.c.id)
        .limit(limit)
    )
    if only is not None:
        query = query.where(accounts.c.id == only)
    return [Candidate._make(row) for row in await conn.execute(query)]


async def first_open_day(
    conn: AsyncConnection, kinds: Sequence[str], rates: Rates, until: date, since: date | None = None
) -> date | None:
    """Return the earliest day up to `until` that some account may still lack; None if no account lacks any.

    Accounts without any interest begin on `since`, if it is later than their opening and their first rate.
    """
    posted = (
        select(interest_postings.c.account_id, func.max(interest_postings.c.day).label("last"))
        .group_by(interest_postings.c.account_id)
        .subquery()
    )
    query = (
        select(accounts.c.kind, accounts.c.currency, func.min(accounts.c.opened_on), func.min(posted.c.last))
        .outerjoin(posted, posted.c.account_id == accounts.c.id)
        .where(accounts.c.kind.in_(kinds), accounts.c.status.in_(_EARNING), accounts.c.opened_on <= until)
        .where((posted.c.last.is_(None)) | (posted.c.last < until))
        .group_by(accounts.c.kind, accounts.c.currency, posted.c.last.is_(None))
    )
    days = []
    for kind, currency, opened_on, last in await conn.execute(query):
        first = rates.first(kind, currency)
        if first is not None:
            days.append(max(opened_on, first, since or first) if last is None else last + ONE_DAY)
    return min((day for day in days if day <= until), default=None)
