"""Assertions about what was added to a queue, wherever its jobs are now."""

from __future__ import annotations

from typing import Any

from streamq._engine import codec
from streamq.job import JobSnapshot, JobState
from streamq.queue import Queue

PAGE = 500
TOLD = 20
"""Jobs that a failed assertion tells of."""


class _Anything:
    def __repr__(self) -> str:
        return "ANYTHING"


ANYTHING: Any = _Anything()
"""Stands for any data."""


async def assert_added(
    queue: Queue, name: str, data: Any = ANYTHING, *, count: int | None = None, state: JobState | None = None
) -> JobSnapshot:
    """Assert that a job of this name, with exactly this data, was added and is known; return the first such job.

    With `count` exactly so many, with `state` in that state. A job that completed with nothing kept is not known any
    more.

    Raises:
        AssertionError: Its text lists what the queue holds.
    """
    jobs = await _jobs(queue)
    found = [job for job in jobs if _fits(job, name, data) and state in (None, job.state)]
    if not found or (count is not None and len(found) != count):
        wanted = "a job" if count is None else f"exactly {count} jobs"
        raise AssertionError(
            f"{wanted} {_described(name, data)}{f' that is {state}' if state else ''} should have been added to queue "
            f"{queue.name}; {f'{len(found)} were, and it' if found else 'it'} holds {_listed(jobs)}"
        )
    return found[0]


async def assert_not_added(queue: Queue, name: str, data: Any = ANYTHING) -> None:
    """Assert that no job of this name, with exactly this data, is known.

    Raises:
        AssertionError: Its text names the jobs.
    """
    found = [job for job in await _jobs(queue) if _fits(job, name, data)]
    if found:
        raise AssertionError(
            f"no job {_described(name, data)} should have been added to queue {queue.name}; it holds {_listed(found)}"
        )


async def _jobs(queue: Queue) -> list[JobSnapshot]:
    found: dict[str, JobSnapshot] = {}
    for state in JobState:
        start: int | str | None = 0
        while start is not None:
            page = await queue.jobs(state, start, PAGE)
            found.update((job.id, job) for job in page)
            start = page.next
    return sorted(found.values(), key=lambda job: (job.created_at is not None and job.created_at.timestamp(), job.id))


def _fits(job: JobSnapshot, name: str, data: Any) -> bool:
    if job.name != name:
        return False
    return data is ANYTHING or job.data == codec.decode(codec.encode_data("data", data, 1 << 30))


def _described(name: str, data: Any) -> str:
    return repr(name) if data is ANYTHING else f"{name!r} with the data {data!r}"


def _listed(jobs: list[JobSnapshot]) -> str:
    if not jobs:
        return "no job"
    lines = [f"  {job.id} {job.name} {job.data!r} {job.state}" for job in jobs[:TOLD]]
    more = [f"  and {len(jobs) - TOLD} more"] if len(jobs) > TOLD else []
    return "\n".join(["", *lines, *more])
