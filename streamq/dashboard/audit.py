"""One line for each thing that somebody did, or was refused, on the logger `streamq.audit`.

A line is one JSON object: no name or id, however it is made, can end it or begin another. It never holds a job's data.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from streamq.dashboard.access import Visitor

audit = logging.getLogger("streamq.audit")

MOST_IDS = 20


class Deed(msgspec.Struct, frozen=True):
    """What was asked for: an action, on a queue, with these ids."""

    action: str
    queue: str = ""
    ids: Sequence[str] = ()
    more: str = ""


def note(visitor: Visitor | None, peer: str, deed: Deed, outcome: str) -> None:
    """Write a line."""
    line = {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": visitor.name if visitor else None,
        "role": str(visitor.role) if visitor else None,
        "from": peer,
        "action": deed.action,
        "queue": deed.queue,
        "ids": [str(job_id)[:300] for job_id in deed.ids[:MOST_IDS]],
        "count": len(deed.ids),
        "outcome": outcome[:500],
    }
    if deed.more:
        line["filter"] = deed.more[:300]
    audit.info(json.dumps(line))
