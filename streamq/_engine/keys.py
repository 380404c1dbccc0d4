"""The names of a queue's keys, in one place. `docs/keys.md` says what each one holds, and for how long.

Every key has the hash tag `{queue}`, so that a queue is one slot of a cluster. The scripts build the same
names from `base`.
"""

from __future__ import annotations

from streamq.job import MAX_NAME, check_text
from streamq.policy import Priority

PREFIX = "sq"
GROUP = "w"
"""The consumer group of each lane."""


def base(queue: str) -> str:
    """Return what all keys of `queue` start with; raise InvalidInput if it is no usable name."""
    return f"{PREFIX}:{{{check_text('queue name', queue, MAX_NAME)}}}"


def lane(base: str, priority: int) -> str:
    """Stream: the jobs of one priority that wait or run."""
    return f"{base}:lane:{priority}"


def lanes(base: str) -> list[str]:
    """All four lanes, the most urgent first."""
    return [lane(base, p) for p in Priority]


def events(base: str) -> str:
    """Stream, capped: what happened."""
    return f"{base}:events"


def dead(base: str) -> str:
    """Stream, capped: jobs that failed for good."""
    return f"{base}:dead"


def meta(base: str) -> str:
    """Hash: whether the queue is paused, and its limits."""
    return f"{base}:meta"


def wake(base: str) -> str:
    """List of at most one token: wakes one idle worker."""
    return f"{base}:wake"


def log(base: str, job_id: str) -> str:
    """List, capped: a job's own log lines."""
    return f"{base}:log:{job_id}"


def follow(base: str, job_id: str) -> str:
    """String with a TTL: somebody follows the job's log, so its lines are announced."""
    return f"{base}:follow:{job_id}"


def schedules(base: str) -> str:
    """Sorted set: each schedule, and when a worker is to look at it."""
    return f"{base}:schedules"
