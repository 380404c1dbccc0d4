"""What is going on in a queue now: its workers and what they run, its limits, how fast jobs go, one job's past.

`Queue` inherits this; nothing here changes anything. Nothing scans keys: each call costs what it returns, except that
`history` and `tally` read the event stream from a moment on, which its cap bounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from streamq._engine import keys
from streamq._engine.pages import StoredWorker
from streamq._engine.snapshots import readable
from streamq.errors import StoreRefused
from streamq.events import Event, unfold
from streamq.operations import QueueParts, known_id
from streamq.payload import Codec, aside
from streamq.policy import Priority, RateLimit, Seconds, seconds, whole

PAGE_ENTRIES = 500


class RunningJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a worker holds, for `seconds` by now. The name is "" where it can't be read."""

    id: str
    name: str
    priority: Priority
    seconds: float


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A worker at one moment.

    Attributes:
        id: Its host, its process id, and a random part.
        lease_left: Seconds until its jobs go to others, unless it renews its lease; 0 if it is taken for dead.
        held: How many jobs it holds, by priority.
        jobs: Those it holds, the most urgent first, as far as they were asked for.
    """

    id: str
    lease_left: float
    held: dict[Priority, int]
    jobs: list[RunningJob]

    @property
    def alive(self) -> bool:
        """Whether its lease holds."""
        return self.lease_left > 0

    @property
    def running(self) -> int:
        """How many jobs it holds."""
        return sum(self.held.values())


class WorkerList(list[WorkerSnapshot]):
    """A list of workers that knows how many there are in all."""

    def __init__(self, workers: Iterable[WorkerSnapshot], total: int) -> None:
        super().__init__(workers)
        self.total = total


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What holds a queue back; None where nothing does. `held_for`: seconds, by a handler's `RateLimited`."""

    paused: bool
    rate: RateLimit | None
    concurrency: int | None
    max_size: int | None
    held_for: float | None


class StepsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the attempts of a job have remembered; what can't be read here is None.

    Attributes:
        steps: What each step that has run returned, by its name.
        cursor: What `save_cursor` was given last.
    """

    steps: dict[str, Any]
    cursor: Any


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How often each kind of event happened in a span of time, by the server's clock.

    Attributes:
        counts: Events by kind (`added`, `active`, `completed` …).
        since, until: The span; give `until` to `tally(since=…)` for the next one, with no event lost or told twice.
        complete: False if the stream's cap has dropped events of the span asked for: it begins with what was left.
    """

    counts: Mapping[str, int]
    since: datetime
    until: datetime
    complete: bool

    def rate(self, *kinds: str) -> float:
        """Return events of these kinds per second."""
        span = (self.until - self.since).total_seconds()
        return sum(self.counts.get(kind, 0) for kind in kinds) / span if span > 0 else 0.0


class Overview(QueueParts):
    """Looks at what is going on."""

    async def workers(self, count: int = 100, *, jobs_each: int = 20) -> WorkerList:
        """Return up to `count` workers, and up to `jobs_each` of the jobs that each one holds.

        The longest lease comes first. A worker that died is there until its lease is over and others have its jobs.

        Raises:
            InvalidInput: A number makes no sense.
        """
        whole("count", count, low=1, high=10_000)
        page = await self._store.workers(count, whole("jobs_each", jobs_each, low=0, high=1_000))
        return WorkerList((_worker(stored) for stored in page.workers), page.total)

    async def limits(self) -> Limits:
        """Read what holds the queue back; see `pause`, `set_rate_limit`, `set_concurrency`, `set_max_size`."""
        fields = ("paused", "rate_max", "rate_ms", "max_active", "max_size", "hold_until")
        found = await self._store.command("HMGET", keys.meta(self._store.base), *fields)
        paused, rate_max, rate_ms, max_active, max_size, hold_until = (int(v) if v else None for v in found)
        hold = (hold_until - await self._store.now_ms()) / 1000 if hold_until else 0
        return Limits(
            paused=bool(paused),
            rate=RateLimit(rate_max, rate_ms / 1000) if rate_max and rate_ms else None,
            concurrency=max_active,
            max_size=max_size,
            held_for=hold if hold > 0 else None,
        )

    async def history(self, job_id: str, since: datetime | None = None) -> list[Event]:
        """Return a job's events since a moment, as far as the stream's cap (`STREAMQ_EVENTS_CAP`) has left them."""
        wanted = known_id(job_id).encode()
        found: list[Event] = []
        async for entry, fields in self._past("-" if since is None else f"{_ms(since)}-0", "+"):
            if any(wanted in ids for ids in fields[1::2]):
                found += [event for event in unfold(entry, fields) if event.job_id == job_id]
        return found

    async def steps(self, job_id: str) -> StepsSnapshot:
        """Return what a job's attempts have remembered so far: nothing before the first step, and once it completed."""
        flat = await self._store.command("HGETALL", keys.steps(self._store.base, known_id(job_id)))
        found = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        return await aside(self._store.codec, _steps, found, self._store.codec)

    async def tally(self, since: datetime | None = None, *, over: Seconds = 5.0) -> Tally:
        """Count what has happened since a moment (an earlier tally's `until`), or in the last `over` seconds."""
        until = await self._store.now_ms()
        return await self._tally(tally_start(since, over, until), until)

    async def _tally(self, start: int, until: int) -> Tally:
        counts: Counter[str] = Counter()
        # What happens in this very millisecond is left to the next tally.
        async for _, fields in self._past(f"{start}-0", f"({until}-0"):
            for kind, ids in zip(fields[::2], fields[1::2], strict=True):
                counts[kind.decode()] += ids.count(b"\0") + 1
        oldest = min(await self._oldest_left_ms(), until)
        return Tally(counts=counts, since=_moment(max(start, oldest)), until=_moment(until), complete=oldest <= start)

    async def _past(self, start: str, end: str) -> AsyncIterator[tuple[str, list[bytes]]]:
        """Yield entries of the event stream, in pages, so that others are served in between."""
        key = keys.events(self._store.base)
        while True:
            page = await self._store.command("XRANGE", key, start, end, "COUNT", PAGE_ENTRIES)
            for entry, fields in page:
                yield entry.decode(), fields
            if len(page) < PAGE_ENTRIES:
                return
            start = f"({page[-1][0].decode()}"

    async def _oldest_left_ms(self) -> int:
        """Return when the oldest event that is left happened, if there were older ones; else 0."""
        try:
            flat = await self._store.command("XINFO", "STREAM", keys.events(self._store.base))
        except StoreRefused:
            return 0  # nothing has ever happened
        about = dict(zip(flat[::2], flat[1::2], strict=True))
        first = about[b"first-entry"]
        return int(first[0].partition(b"-")[0]) if first and about[b"entries-added"] > about[b"length"] else 0


def _steps(found: dict[str, bytes], opener: Codec) -> StepsSnapshot:
    steps = {field[1:]: readable(value, opener) for field, value in found.items() if field.startswith("s")}
    return StepsSnapshot(steps=dict(sorted(steps.items())), cursor=readable(found.get("c", b""), opener))


def _worker(stored: StoredWorker) -> WorkerSnapshot:
    return WorkerSnapshot(
        id=stored.worker,
        lease_left=stored.lease_ms / 1000,
        held={priority: stored.held[priority] for priority in Priority},
        jobs=[
            RunningJob(id=job.job_id, name=job.name, priority=Priority(job.lane), seconds=job.idle_ms / 1000)
            for job in stored.jobs
        ],
    )


def tally_start(since: datetime | None, over: Seconds, until: int) -> int:
    """Return the first millisecond that a tally is to count."""
    return until - round(seconds("over", over, low=0.1) * 1000) if since is None else _ms(since)


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
