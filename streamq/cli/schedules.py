"""Schedules: list them, look at one, upsert, pause, resume, trigger, remove."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from streamq.cli import arguments, values
from streamq.cli.output import Cell, Row, Table
from streamq.cli.upserting import EXAMPLES as UPSERT_EXAMPLES
from streamq.cli.upserting import add_arguments, upsert
from streamq.errors import ScheduleNotFound

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.schedule import ScheduleSnapshot

EXAMPLES = """
  streamq schedules list reports
  streamq schedules get reports nightly
  streamq schedules trigger reports nightly
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command and what it does."""
    group = commands.add("schedules", "schedules", show_all, "list and operate schedules", examples=EXAMPLES)
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    for name, run, help in (
        ("list", show_all, "the schedules of a queue, the next one due first"),
        ("get", show_one, "all of one schedule"),
        ("upsert", upsert, "create it, or make it as described; what is not said is as for a new one"),
        ("pause", pause, "let nothing of it fire until it is resumed"),
        ("resume", resume, "go on with its next regular slot"),
        ("trigger", trigger, "add one job of it now, paused or not"),
        ("remove", remove, "remove it; jobs that it has added stay"),
    ):
        parser: arguments.Parser = actions.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + ".", formatter_class=argparse.RawTextHelpFormatter
        )
        parser.set_defaults(run=run)
        arguments.add_common(parser)
        arguments.add_queue(parser)
        if name != "list":
            parser.add_argument("id", metavar="ID", help="the schedule")
        if name == "upsert":
            add_arguments(parser)
            parser.epilog = f"examples:\n{UPSERT_EXAMPLES.strip(chr(10))}"
        if name == "remove":
            arguments.add_yes(parser)


async def show_all(session: Session) -> None:
    """List a queue's schedules."""
    async with session.queue() as queue:
        found = await queue.schedules()
    if session.out.json:
        for schedule in found:
            session.out.record(schedule)
    elif found:
        session.out.table(Table(COLUMNS, [_row(schedule) for schedule in found]))
    else:
        session.out.line(f"no schedules in {queue.name}")


COLUMNS = ("id", "job", "when", "next", ">fired", ">missed", ">skipped", "state")


def _row(found: ScheduleSnapshot) -> Row:
    return (
        Cell(found.id, "name"),
        found.schedule.name,
        _rule(found),
        values.when(found.next_at),
        *(values.number(count) for count in (found.fired, found.missed, found.skipped)),
        _state(found),
    )


def _rule(found: ScheduleSnapshot) -> str:
    if found.schedule.cron is not None:
        return f"{found.schedule.cron} ({found.schedule.tz})"
    every = found.schedule.every
    return f"every {values.age(every if isinstance(every, int | float) else None)}"


def _state(found: ScheduleSnapshot) -> Cell:
    if found.paused:
        return Cell("paused", "warn")
    return Cell("active", "good") if found.next_at is not None else Cell("ended", "dim")


async def show_one(session: Session) -> None:
    """Show a schedule."""
    async with session.queue() as queue:
        found = await queue.get_schedule(session.options.id)
    if found is None:
        raise ScheduleNotFound(session.options.id)
    if session.out.json:
        session.out.record(found)
        return
    schedule = found.schedule
    pairs: list[tuple[str, str | Cell]] = [
        ("id", Cell(found.id, "name")),
        ("state", _state(found)),
        ("job", schedule.name),
        ("when", _rule(found)),
        ("next", values.when_exactly(found.next_at)),
        ("from, until", f"{values.when(schedule.start)}, {values.when(schedule.end)}"),
        ("missed slots", f"{schedule.missed} (grace {schedule.grace:g} s)"),
        ("overlap", schedule.overlap),
        ("fired", values.number(found.fired) + (f" of {schedule.limit:,}" if schedule.limit is not None else "")),
        ("missed", values.number(found.missed)),
        ("skipped", values.number(found.skipped)),
        ("last job", found.last_job_id or values.NOTHING),
        ("priority", schedule.options.lane.name.lower()),
        ("data", values.to_json(schedule.data, indent=2)),
    ]
    session.out.fields(pairs)


async def pause(session: Session) -> None:
    """Pause a schedule."""
    async with session.queue() as queue:
        await queue.pause_schedule(session.options.id)
    _tell(session, "paused")


async def resume(session: Session) -> None:
    """Resume a schedule."""
    async with session.queue() as queue:
        await queue.resume_schedule(session.options.id)
    _tell(session, "resumed")


async def trigger(session: Session) -> None:
    """Add a schedule's job now."""
    async with session.queue() as queue:
        job = await queue.trigger_schedule(session.options.id)
    done = "was added" if job.is_new else "is there already; nothing was added"
    _tell(session, f"job {job.id} {done}", job_id=job.id)


async def remove(session: Session) -> None:
    """Remove a schedule."""
    schedule = session.options.id
    session.confirm(f"Remove schedule {schedule} of {session.options.queue}?")
    async with session.queue() as queue:
        if not await queue.remove_schedule(schedule):
            raise ScheduleNotFound(schedule)
    _tell(session, "removed")


def _tell(session: Session, done: str, **fields: str) -> None:
    schedule = session.options.id
    if session.out.json:
        session.out.record({"id": schedule, **(fields or {done: True})})
    else:
        session.out.line(f"schedule {schedule}: {done}")
