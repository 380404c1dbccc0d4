"""Watching: the workers of queues, a queue's events, a job's log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from streamq.cli import arguments, values
from streamq.cli.output import Cell, Row, Table
from streamq.cli.queues import LOOK
from streamq.errors import JobNotFound

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.events import Event
    from streamq.overview import RunningJob, WorkerSnapshot

SHOWN_JOBS = 3

EVENTS_EXAMPLES = """
  streamq events reports
  streamq events reports --after 0-0 --count 100      from the oldest that is kept
  streamq events reports --kind failed --kind stalled --json
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the commands."""
    parser = commands.add(LOOK, "workers", workers, "show who serves queues, and what each worker runs now")
    arguments.add_queues(parser)
    parser.add_argument("-n", "--count", type=arguments.positive, default=100, metavar="N",
        help="workers per queue (default: 100)")  # fmt: skip

    parser = commands.add(LOOK, "events", events, "follow what happens in a queue", examples=EVENTS_EXAMPLES)
    arguments.add_queue(parser)
    option = parser.add_argument
    option(
        "--after", metavar="ID", help="begin behind this event; 0-0: with the oldest (default: with what comes next)"
    )
    option("--kind", action="append", metavar="KIND", help="only these; may be given more than once")
    option("--job", metavar="ID", help="only those of this job")
    option("-n", "--count", type=arguments.positive, metavar="N", help="end after so many")

    parser = commands.add(LOOK, "logs", logs, "print a job's own log")
    arguments.add_queue(parser)
    option = parser.add_argument
    option("id", metavar="ID", help="the job")
    option("-f", "--follow", action="store_true", help="print lines as they come, until the job has ended")
    option("--start", type=int, default=0, metavar="LINE", help="begin with this line; the first one is 0")
    option("-n", "--count", type=arguments.positive, default=1_000, metavar="N", help="lines (default: 1000)")


async def workers(session: Session) -> None:
    """Show workers."""
    async with session.queues() as queues:
        found = await asyncio.gather(*(queue.workers(session.options.count) for queue in queues))
    if session.out.json:
        for queue, members in zip(queues, found, strict=True):
            for worker in members:
                session.out.record(worker_fields(queue.name, worker))
        return
    rows = [worker_row(queue.name, worker) for queue, all in zip(queues, found, strict=True) for worker in all]
    if rows:
        session.out.table(Table(WORKER_COLUMNS, rows))
    else:
        session.out.line(f"no workers on {', '.join(queue.name for queue in queues)}")
    for queue, members in zip(queues, found, strict=True):
        if members.total > len(members):
            session.out.line(f"{queue.name}: {members.total - len(members):,} more workers (--count)")


WORKER_COLUMNS = ("queue", "worker", ">lease left", "holds", "runs now")


def worker_row(queue: str, worker: WorkerSnapshot) -> Row:
    """Return a worker's row for `WORKER_COLUMNS`."""
    lease = Cell(values.age(worker.lease_left)) if worker.alive else Cell("lapsed", "bad")
    held = ", ".join(f"{count:,} {priority.name.lower()}" for priority, count in worker.held.items() if count)
    return (Cell(queue, "name"), worker.id, lease, held or Cell("nothing", "dim"), _running(worker))


def _running(worker: WorkerSnapshot) -> str:
    shown = sorted(worker.jobs, key=lambda job: -job.seconds)[:SHOWN_JOBS]
    more = worker.running - len(shown)
    return ", ".join(_job(job) for job in shown) + (f", {more:,} more" if more > 0 else "")


def _job(job: RunningJob) -> str:
    return f"{job.id} {job.name} ({values.age(job.seconds)})".replace("  ", " ")


def worker_fields(queue: str, worker: WorkerSnapshot) -> dict[str, object]:
    """Return a worker as JSON tells it."""
    return {
        "queue": queue,
        "id": worker.id,
        "alive": worker.alive,
        "lease_left": worker.lease_left,
        "running": worker.running,
        "held": worker.held,
        "jobs": worker.jobs,
    }


async def events(session: Session) -> None:
    """Print events as they come."""
    options, shown = session.options, 0
    async with session.queue() as queue:
        await queue.stats()  # says at once if Redis is away; from then on reconnects are waited for
        async with aclosing(queue.events(options.after)) as stream:
            async for event in stream:
                if options.job not in (None, event.job_id) or (options.kind and event.kind not in options.kind):
                    continue
                _tell(session, event)
                shown += 1
                if shown == options.count:
                    return


def _tell(session: Session, event: Event) -> None:
    if session.out.json:
        session.out.record(event)
    else:
        session.out.line(f"{values.when_exactly(event.at)}  {event.id:<19}  {event.kind:<13} {event.job_id}".rstrip())


async def logs(session: Session) -> None:
    """Print a job's log."""
    options = session.options
    async with session.queue() as queue:
        if await queue.get_job(options.id) is None:
            raise JobNotFound(options.id)
        if not options.follow:
            for line in await queue.logs(options.id, options.start, options.count):
                _line(session, line)
            return
        async with aclosing(queue.follow_logs(options.id, options.start)) as lines:
            async for line in lines:
                _line(session, line)


def _line(session: Session, line: str) -> None:
    if session.out.json:
        session.out.record({"line": line})
    else:
        session.out.line(line)
