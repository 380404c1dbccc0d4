"""Looking at many jobs, and at a job's log. `Queue` inherits these; nothing here changes anything.

No listing ever scans keys: each page costs what it holds, however many jobs the queue or the database has.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable

from streamq._engine import keys
from streamq._engine.snapshots import snapshots
from streamq.bulk import match
from streamq.errors import InvalidInput
from streamq.events import EventReader, read_on
from streamq.job import JobSnapshot, JobState
from streamq.operations import QueueParts, known_id
from streamq.payload import aside
from streamq.policy import whole

_CURSOR = re.compile(r"(\d+:.*)?", re.DOTALL)
"""A page's `next`: a lane and an entry, or a score and a job id."""
MOST_PER_PAGE = 10_000
PAGE_JOBS = 200
SCANNED = 20
"""Calls that one page with a name takes at most: each looks at up to a thousand jobs."""
FOLLOW_TTL_MS = 30_000
"""How long workers go on telling about a log after its follower has gone."""
LOG_LINES = 500


class JobPage(list[JobSnapshot]):
    """A list of jobs that knows where the next page starts: `jobs(state, start=page.next)`. None: that was all."""

    def __init__(self, jobs: Iterable[JobSnapshot], following: str | None) -> None:
        super().__init__(jobs)
        self.next = following


class Listings(QueueParts):
    """Pages of jobs and of logs."""

    async def jobs(
        self,
        state: JobState,
        start: int | str = 0,
        count: int = 50,
        *,
        newest_first: bool = False,
        name: str | None = None,
    ) -> JobPage:
        """Return up to `count` jobs of one state, in order, and where the next page starts (`page.next`).

        Waiting jobs come in the order in which they will be started, active ones lane by lane in the order in which
        they were, delayed ones by when they are due, ended ones by when they ended; `newest_first` turns each around.
        `start` is a page's `next`, whatever it costs to reach; or a number of jobs to skip, which for waiting and
        active jobs costs time in proportion. With `name` only jobs of that name are returned; one call looks at no
        more than some 20,000 jobs, so a page may be short, or empty, and still have a `next`. Jobs that move between
        two pages may be missing or come twice.

        Raises:
            InvalidInput: A value makes no sense.
        """
        chosen = str(JobState(state)) if state in list(JobState) else ""
        if not chosen:
            raise InvalidInput(f"state must be one of {', '.join(JobState)}, not {state!r}")
        whole("count", count, low=1, high=MOST_PER_PAGE)
        if isinstance(start, str) and not _CURSOR.fullmatch(start):
            raise InvalidInput(f"start must be a number or a page's next, not {start[:60]!r}")
        cursor, skip = (start, 0) if isinstance(start, str) else ("", whole("start", start, low=0, high=10**9))
        named = match(name)
        found: list[JobSnapshot] = []
        looks = 0
        while True:
            wanted = min(count - len(found), PAGE_JOBS)
            page = await self._store.jobs(chosen, cursor, skip, wanted, newest_first=newest_first, name=named)
            cursor, skip = page.cursor, skip - page.skipped
            found += await aside(self._store.codec, snapshots, self.name, page.jobs, self._store.codec)
            looks += 1
            if not cursor or len(found) >= count or (named and looks >= SCANNED):
                return JobPage(found, cursor or None)

    async def logs(self, job_id: str, start: int = 0, count: int = 100) -> list[str]:
        """Return up to `count` lines of a job's log from line `start` on; empty if there are none.

        Lines are numbered from 0 for ever: those that the cap (`STREAMQ_LOG_CAP`) has dropped still count.
        """
        whole("start", start, low=0, high=10**12)
        whole("count", count, low=1, high=MOST_PER_PAGE)
        page = await self._store.logs(known_id(job_id), start, min(count, 5_000))
        return page.lines

    async def follow_logs(self, job_id: str, start: int = 0) -> AsyncGenerator[str, None]:
        """Yield the lines of a job's log from line `start` on, as they come, until the job has ended.

        Does not poll: workers announce lines while somebody follows. Takes a connection of its own while it runs. Of a
        job that is unknown it yields nothing.
        """
        known_id(job_id)
        position = whole("start", start, low=0, high=10**12)
        wire = self._new_wire()
        reader = EventReader(self._store, wire, None)
        try:
            await reader.start()
            await self._announce(job_id)
            while True:
                job = await self._store.get(job_id)  # before the lines, so that none comes after an end that is seen
                while True:
                    page = await self._store.logs(job_id, position, LOG_LINES)
                    for line in page.lines:
                        yield line
                    position = max(position, page.first + len(page.lines))
                    if len(page.lines) < LOG_LINES:
                        break
                if job is None or JobState(job.state).ended:
                    return
                await self._next_event(reader, job_id)
        finally:
            await wire.close()

    async def _announce(self, job_id: str) -> None:
        await self._store.command("SET", keys.follow(self._store.base, job_id), 1, "PX", FOLLOW_TTL_MS)

    async def _next_event(self, reader: EventReader, job_id: str) -> None:
        """Wait until something happens to the job or to the queue as a whole, or some seconds have gone by."""
        while True:
            events = await read_on(reader)
            await self._announce(job_id)
            if not events or any(event.job_id in (job_id, "") for event in events):
                return
