from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from streamq.errors import Unrecoverable
from streamq.processor import ActiveJob
from streamq.processors.calculations_day import slot_day


class NoControl:
    async def progress(self, value: Any) -> None: ...
    async def log(self, line: str) -> None: ...


def job(job_id: str) -> ActiveJob[None]:
    return ActiveJob(NoControl(), job_id, "post-interest", "calculations", None, attempt=1, attempts=3, stalls=0)


@pytest.mark.parametrize(
    ("slot", "zone", "day"),
    [
        (datetime(2025, 1, 31, 23, 59, tzinfo=UTC), "UTC", date(2025, 1, 31)),
        (datetime(2025, 2, 1, tzinfo=UTC), "UTC", date(2025, 2, 1)),
        (datetime(2025, 6, 30, 23, 0, tzinfo=UTC), "Europe/Berlin", date(2025, 7, 1)),
        (datetime(2025, 1, 1, 3, 0, tzinfo=UTC), "America/New_York", date(2024, 12, 31)),
    ],
)
def test_a_slot_lies_on_a_day_of_its_time_zone(slot: datetime, zone: str, day: date) -> None:
    assert slot_day(job(f"interest@{int(slot.timestamp() * 1000)}"), zone) == day


@pytest.mark.parametrize("job_id", ["17", "ada@example.org", "interest@12", "interest@1735689600000x"])
def test_a_job_of_no_schedule_needs_a_date(job_id: str) -> None:
    with pytest.raises(Unrecoverable, match="give a date"):
        slot_day(job(job_id), "UTC")


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "../etc/passwd", ""])
def test_an_unknown_time_zone_is_named(zone: str) -> None:
    with pytest.raises(Unrecoverable, match="there is no time zone"):
        slot_day(job("interest@1735689600000"), zone)
