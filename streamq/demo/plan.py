"""What a night of the demo's bank consists of: how much of everything, which jobs, and when its schedules fire.

The bank's clock runs fast: a slot of the schedules is a night, and `BankClock` says which one.
"""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, timedelta

import msgspec

from streamq.policy import Retention

FIRST_DAY = date(2025, 1, 1)
"""The first day that interest is posted for; the sample bank's bookings end the day before."""
NOVEMBER = {"month": 11, "year": 2024}
KEEP = Retention(count=10_000)
"""Of all the demo's jobs, since the reconciliation asks for each of them."""
INTEREST, STANDING_ORDERS = "nightly-interest", "standing-orders"
"""The ids of the two schedules."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much happens: rows of the two files, e-mails, nights, and the seconds from one night to the next."""

    members: int = 10_000
    bad_members: int = 12
    payments: int = 20_000
    batch: int = 500
    letters: int = 200
    nights: int = 7
    night_seconds: int = 2

    @property
    def days(self) -> list[date]:
        """The days that interest is posted for."""
        return [FIRST_DAY + timedelta(days=n) for n in range(self.nights)]

    @property
    def morning(self) -> date:
        """The day after the last night: standing orders have run up to it."""
        return FIRST_DAY + timedelta(days=self.nights)


SHORT = Size(members=1_000, payments=6_000, batch=200, letters=40, nights=3, night_seconds=1)


class BankClock(msgspec.Struct, frozen=True, rename="camel"):
    """Which night a slot is: the first one's moment, and the seconds from one to the next."""

    first: datetime
    seconds: int

    @classmethod
    def starting_after(cls, now: datetime, seconds: int) -> BankClock:
        """Return the clock whose first slot comes a second after `now` at the earliest, at a whole multiple."""
        at = (int(now.timestamp()) + 1) // seconds * seconds + seconds
        return cls(datetime.fromtimestamp(at, UTC), seconds)

    def night(self, job_id: str) -> int:
        """Return the number of the night, from 0, that a schedule's job is for: its id ends with its slot."""
        slot_ms = int(job_id.rpartition("@")[2])
        return round((slot_ms / 1000 - self.first.timestamp()) / self.seconds)

    def job_ids(self, schedule_id: str, nights: int) -> list[str]:
        """Return the ids that the schedule's jobs will have."""
        first = round(self.first.timestamp())
        return [f"{schedule_id}@{(first + n * self.seconds) * 1000}" for n in range(nights)]


class NightJob(msgspec.Struct, frozen=True, kw_only=True):
    """The data of both schedules' jobs."""

    clock: BankClock


class Ending(enum.StrEnum):
    """How a job is meant to end."""

    COMPLETED = "completed"
    FAILED = "failed"
