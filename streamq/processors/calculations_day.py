"""Which day a calculation is for when its job does not say: a schedule asks for it with data that never changes.

The day follows from the slot, which every attempt and every worker reads alike from the job's id, never from a clock.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from streamq.errors import Unrecoverable
from streamq.processor import ActiveJob

_SLOT = re.compile(r"@(\d{13})\Z")


def slot_day(job: ActiveJob[Any], time_zone: str) -> dt.date:
    """Return the day, in `time_zone`, on which the slot of a schedule's job lies.

    Raises:
        Unrecoverable: The job is none of a schedule's, or there is no such time zone.
    """
    found = _SLOT.search(job.id)
    if found is None:
        raise Unrecoverable("give a date: only the job of a schedule has a day of its own")
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Unrecoverable(f"timeZone: there is no time zone {time_zone[:60]!r}") from None
    return dt.datetime.fromtimestamp(int(found[1]) / 1000, zone).date()
