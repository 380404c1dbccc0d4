"""The names of a queue's keys, in one place. `docs/keys.md` says what each one holds, and for how long.

Every key has a hash tag, so that a queue is one slot of a cluster: `{queue}`, or the one that the name itself begins
with, which queues may share. The scripts build the same names from `base`.
"""

from __future__ import annotations

from streamq.job import queue_name
from streamq.policy import Priority

PREFIX = "sq"
GROUP = "w"
"""The consumer group of each lane."""


def base(queue: str, shard: int = 0) -> str:
    """Return what all keys of `queue` start with; raise InvalidInput if it is no usable name.

    Each shard has a hash tag of its own, and so a slot of its own. Shard 0 has the keys of a queue without shards.
    """
    name = queue_name(queue)
    tagged = name if name.startswith("{") else f"{{{name}}}"
    return f"{PREFIX}:{tagged.replace('}', f'#{shard}}}', 1)}" if shard else f"{PREFIX}:{tagged}"


def lane(base: str, priority: int) -> str:
    """Stream: the jobs of one priority that wait or run."""
    return f"{base}:lane:{priority}"


def lanes(base: str) -> list[str]:
    """All four lanes, the most urgent first."""
    return [lane(base, p) for p in Priority]


def counter(base: str) -> str:
    """String: the number that was given out last, to a job or an entry."""
    return f"{base}:id"


def shards(base: str) -> str:
    """String: over how many shards the queue is spread; at shard 0 alone."""
    return f"{base}:shards"


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


def minutes(base: str) -> str:
    """Stream, capped: what happened minute by minute."""
    return f"{base}:minutes"


def log(base: str, job_id: str) -> str:
    """List, capped: a job's own log lines."""
    return f"{base}:log:{job_id}"


def steps(base: str, job_id: str) -> str:
    """Hash: what the attempts of a job have remembered for those that follow."""
    return f"{base}:steps:{job_id}"


def follow(base: str, job_id: str) -> str:
    """String with a TTL: somebody follows the job's log, so its lines are announced."""
    return f"{base}:follow:{job_id}"


def schedules(base: str) -> str:
    """Sorted set: each schedule, and when a worker is to look at it."""
    return f"{base}:schedules"


def workers(base: str) -> str:
    """Sorted set: each worker, and when its lease ends."""
    return f"{base}:workers"


def delayed(base: str) -> str:
    """Sorted set: each delayed job, and when it is due."""
    return f"{base}:delayed"


def waiting_children(base: str) -> str:
    """Sorted set: each job that waits for its children, and since when."""
    return f"{base}:waiting_children"


def completed(base: str) -> str:
    """Sorted set, capped: each completed job that is kept, and when it finished."""
    return f"{base}:completed"


def failed(base: str) -> str:
    """Sorted set, capped: each failed job that is kept, and when it finished."""
    return f"{base}:failed"


def cancelled(base: str) -> str:
    """Sorted set, capped: each cancelled job that is kept, and when it ended."""
    return f"{base}:cancelled"


def cancels(base: str, worker: str) -> str:
    """Hash with a TTL: which of the jobs that a worker runs are to end as cancelled, by their entries."""
    return f"{base}:cancels:{worker}"


def control(base: str, worker: str) -> str:
    """List of at most one token, with a TTL: tells a worker to look which of its jobs are to be interrupted."""
    return f"{base}:control:{worker}"


def record(base: str, job_id: str) -> str:
    """Hash: what is known of a job that has a history."""
    return f"{base}:job:{job_id}"


def of_a_queue(base: str) -> list[str]:
    """All keys of which a queue has one each, less those that hold next to nothing."""
    single = (events, dead, meta, schedules, workers, delayed, waiting_children, completed, failed, cancelled)
    return [*lanes(base), *(key(base) for key in single), f"{base}:minutes"]
