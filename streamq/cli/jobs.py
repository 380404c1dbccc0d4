"""Looking at jobs: a page of them, all of one."""

from __future__ import annotations

import asyncio
import shlex
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from streamq.cli import arguments, values
from streamq.cli.output import Cell, Output, Row, Table, shorten
from streamq.cli.queues import LOOK
from streamq.cli.session import complain
from streamq.errors import JobNotFound
from streamq.job import JobState

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.events import Event
    from streamq.job import JobSnapshot
    from streamq.queue import Queue

LOGGED = 5_000
"""Lines of a log that one call reads: five times what is kept by default."""
TONES = {JobState.FAILED: "bad", JobState.COMPLETED: "good", JobState.ACTIVE: "warn", JobState.CANCELLED: "dim"}

JOBS_EXAMPLES = """
  streamq jobs reports
  streamq jobs reports --state failed --newest --count 20
  streamq jobs emails --state delayed --name send-email
  streamq jobs emails --state failed --all --json | jq -r .error.type | sort | uniq -c
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the commands."""
    parser = commands.add(LOOK, "jobs", jobs, "list jobs of one state", examples=JOBS_EXAMPLES)
    arguments.add_queue(parser)
    option = parser.add_argument
    option("-s", "--state", type=arguments.state(*JobState), default=JobState.WAITING, metavar="STATE",
        help=f"{', '.join(JobState)} (default: waiting)")  # fmt: skip
    option("--name", help="only jobs of this name")
    option("-n", "--count", type=arguments.positive, default=50, metavar="N", help="how many (default: 50)")
    option("--start", type=_start, default=0, metavar="WHERE", help="a number of jobs to skip, or where a page ended")
    option("--newest", action="store_true", help="the other way round: what came last, first")
    option("--all", action="store_true", help="page after page until there are no more")
    parser = commands.add(LOOK, "job", job, "show all of one job: data, result, error, timeline, log")
    arguments.add_queue(parser)
    parser.add_argument("id", metavar="ID", help="the job")
    parser.add_argument("--log-lines", type=arguments.positive, default=20, metavar="N", help="(default: the last 20)")


def _start(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


async def jobs(session: Session) -> None:
    """List jobs."""
    options, out = session.options, session.out
    start, shown = options.start, 0
    async with session.queue() as queue:
        while True:
            page = await queue.jobs(options.state, start, options.count, newest_first=options.newest, name=options.name)
            for found in page if out.json else ():
                out.record(found)
            if page and not out.json:
                out.table(Table(COLUMNS[options.state], [_row(found) for found in page]))
            shown += len(page)
            start = page.next
            if start is None or not options.all:
                break
        if start is not None and await _is_end(queue, options, start):
            start = None
        counts = await queue.stats() if not shown and not out.json else None
    if counts is not None and start is None:
        others = [f"{n:,} {s}" for s in JobState if (n := getattr(counts, s, 0)) and s != options.state]
        out.line(f"no {options.state} jobs in {queue.name}" + (f" (but {', '.join(others)})" if others else ""))
    if start is not None:
        where = shlex.quote(str(start))
        complain(f"there may be more: --start {where}")


async def _is_end(queue: Queue, options: Any, start: int | str) -> bool:
    """Whether nothing follows a page, such as when none of the jobs behind it has the name that is asked for."""
    rest = await queue.jobs(options.state, start, 1, newest_first=options.newest, name=options.name)
    return not rest and rest.next is None


_ALWAYS = ("id", "name", "priority", ">attempts")
COLUMNS = {
    JobState.WAITING: (*_ALWAYS, "created", "data"),
    JobState.ACTIVE: (*_ALWAYS, "started", "progress", "data"),
    JobState.DELAYED: (*_ALWAYS, "due", "error", "data"),
    JobState.WAITING_CHILDREN: (*_ALWAYS, "created", ">open", ">children", "data"),
    JobState.COMPLETED: (*_ALWAYS, "finished", ">took", "result"),
    JobState.FAILED: (*_ALWAYS, "finished", "error"),
    JobState.CANCELLED: (*_ALWAYS, "finished", "reason", "data"),
}


def _row(found: JobSnapshot) -> Row:
    always = (Cell(found.id, "name"), found.name, found.priority.name.lower(), str(found.attempts_made))
    data, error = shorten(values.to_json(found.data), 40), Cell(shorten(str(found.error or values.NOTHING)), "bad")
    match found.state:
        case JobState.ACTIVE:
            return (*always, values.when(found.started_at), _brief(found.progress), data)
        case JobState.DELAYED:
            return (*always, values.when(found.run_at), error if found.error else values.NOTHING, data)
        case JobState.WAITING_CHILDREN:
            counts = values.number(found.open_children), values.number(found.children)
            return (*always, values.when(found.created_at), *counts, data)
        case JobState.COMPLETED:
            return (*always, values.when(found.finished_at), values.age(took(found)), _brief(found.result))
        case JobState.FAILED:
            return (*always, values.when(found.finished_at), error)
        case JobState.CANCELLED:
            return (*always, values.when(found.finished_at), shorten(found.cancel_reason or values.NOTHING), data)
        case _:
            return (*always, values.when(found.created_at), data)


def _brief(value: Any) -> str:
    return values.NOTHING if value is None else shorten(values.to_json(value))


def took(found: JobSnapshot) -> float | None:
    """Return how many seconds a job's last attempt took; None if it has not ended."""
    if found.started_at is None or found.finished_at is None:
        return None
    return max((found.finished_at - found.started_at).total_seconds(), 0.0)


async def job(session: Session) -> None:
    """Show one job."""
    async with session.queue() as queue:
        found = await queue.get_job(session.options.id)
        if found is None:
            raise JobNotFound(session.options.id)
        history, log = await asyncio.gather(
            queue.history(found.id, since=found.created_at), queue.logs(found.id, count=LOGGED)
        )
    if session.out.json:
        events = [{"kind": event.kind, "at": event.at} for event in history]
        session.out.record({**msgspec.structs.asdict(found), "history": events, "log": log})
        return
    _show(session.out, found, history, log, session.options.log_lines)


def _show(out: Output, found: JobSnapshot, history: list[Event], log: list[str], lines: int) -> None:
    pairs: list[tuple[str, str | Cell]] = [
        ("id", Cell(found.id, "name")),
        ("queue", found.queue),
        ("name", found.name or Cell("(unreadable)", "bad")),
        ("state", Cell(str(found.state), TONES.get(found.state, ""))),
        ("priority", found.priority.name.lower()),
        ("attempts", str(found.attempts_made)),
    ]
    pairs += [(name, str(count)) for name in ("stalls", "interruptions") if (count := getattr(found, name))]
    times = {"created": found.created_at, "due": found.run_at, "started": found.started_at, "ended": found.finished_at}
    pairs += [(name, values.when_exactly(at)) for name, at in times.items() if at is not None]
    if (seconds := took(found)) is not None:
        pairs.append(("took", values.age(seconds)))
    if found.key is not None:
        pairs.append(("key", found.key))
    if found.unique_key is not None:
        pairs.append(("unique key", found.unique_key))
    if found.parents:
        names = (job_id if queue == found.queue else f"{job_id} in {queue}" for queue, job_id in found.parents)
        pairs.append(("parents", ", ".join(names)))
    if found.children:
        pairs.append(("children", f"{found.children:,}, of which {found.open_children:,} have not ended"))
    if found.tags:
        pairs.append(("tags", ", ".join(found.tags)))
    pairs += [(f"header {name}", text) for name, text in found.headers.items()]
    if found.cancel_reason:
        pairs.append(("cancelled for", found.cancel_reason))
    if found.progress is not None:
        pairs.append(("progress", values.to_json(found.progress)))
    pairs.append(("data", values.to_json(found.data, indent=2)))
    if found.result is not None:
        pairs.append(("result", values.to_json(found.result, indent=2)))
    if found.error is not None:
        pairs.append(("last error", Cell(found.error.traceback.rstrip() or str(found.error), "bad")))
    out.fields(pairs)
    if len(found.errors) > 1:
        out.line()
        rows = [(str(attempt), Cell(str(error), "bad")) for attempt, error in sorted(found.errors.items())]
        out.table(Table((">attempt", "error"), rows))
    if history:
        out.line()
        out.table(Table(("timeline", ">since", "event"), _timeline(history)))
    if log:
        out.line()
        out.line(f"log (the last {lines} of {len(log):,} lines):" if len(log) > lines else "log:")
        for line in log[-lines:]:
            out.line(f"  {line}")


def _timeline(history: list[Event]) -> list[Row]:
    """Return a row per event; what happens again and again, such as progress, takes one row."""
    rows: list[Row] = []
    for kind, run in groupby(history, key=lambda event: event.kind):
        events = list(run)
        since = values.age((events[0].at - history[0].at).total_seconds())
        until = values.age((events[-1].at - history[0].at).total_seconds())
        again = f" ({len(events):,} times, until +{until})" if len(events) > 1 else ""
        rows.append((values.when_exactly(events[0].at), f"+{since}", kind + again))
    return rows
