"""Whole queues: stats, limits, pause, resume, drain, obliterate."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from streamq.cli import arguments, values
from streamq.cli.output import Cell, Row, Table
from streamq.policy import RateLimit

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.overview import Limits
    from streamq.queue import QueueStats

LOOK, OPERATE = "look", "operate a queue"


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the commands."""
    parser = commands.add(LOOK, "stats", stats, "count the jobs of queues by state", examples=STATS_EXAMPLES)
    arguments.add_queues(parser)
    for name, run, help in (
        ("pause", pause, "let no worker start another job of these queues"),
        ("resume", resume, "let workers start jobs again"),
    ):
        parser = commands.add(OPERATE, name, run, help)
        parser.add_argument("queues", metavar="QUEUE", nargs="+", help="the queues")
    parser = commands.add(OPERATE, "limits", limits, "show a queue's limits, or set them", examples=LIMITS_EXAMPLES)
    arguments.add_queue(parser)
    add = parser.add_argument
    add("--rate", type=arguments.rate, default=argparse.SUPPRESS, metavar="MAX/SPAN|none",
        help="job starts in any window of that length, over all workers")  # fmt: skip
    add("--concurrency", type=arguments.limit, default=argparse.SUPPRESS, metavar="N|none",
        help="jobs that run at once, over all workers")  # fmt: skip
    add("--max-size", type=arguments.limit, default=argparse.SUPPRESS, metavar="N|none",
        help="jobs that wait, run or are delayed before an add is refused")  # fmt: skip
    parser = commands.add(
        OPERATE, "shards", shards, "show over how many shards a queue is spread, or change it", examples=SHARDS_EXAMPLES
    )
    arguments.add_queue(parser)
    parser.add_argument("number", metavar="N", nargs="?", type=int, help="how many there are to be; the queue is empty")
    parser.add_argument("--grow", action="store_true", help="to more of them, while the queue holds jobs")
    parser = commands.add(OPERATE, "drain", drain, "remove all jobs that wait; running ones go on")
    arguments.add_queue(parser)
    parser.add_argument("--delayed", action="store_true", help="remove the delayed ones as well")
    arguments.add_yes(parser)
    parser = commands.add(OPERATE, "obliterate", obliterate, "remove a queue with all that belongs to it")
    arguments.add_queue(parser)
    parser.add_argument("--force", action="store_true", help="even while jobs run; their outcomes are dropped")
    arguments.add_yes(parser)


STATS_EXAMPLES = """
  streamq stats
  streamq stats reports emails --json
"""
LIMITS_EXAMPLES = """
  streamq limits emails
  streamq limits emails --rate 100/1m --concurrency 5
  streamq limits emails --rate none --max-size 100000
"""


SHARDS_EXAMPLES = """
  streamq shards emails
  streamq shards emails 8
  streamq shards emails 16 --grow
"""


async def shards(session: Session) -> None:
    """Show or change the number of shards."""
    async with session.queue() as queue:
        if session.options.number is not None:
            await queue.set_shards(session.options.number, grow=session.options.grow)
        number = await queue.count_shards()
    if session.out.json:
        session.out.record({"queue": queue.name, "shards": number})
    else:
        session.out.line(f"queue {queue.name}: {number} shards" if number else f"queue {queue.name} has no shards")


async def stats(session: Session) -> None:
    """Count jobs by state."""
    async with session.queues() as queues:
        counted = await asyncio.gather(*(queue.stats() for queue in queues))
    if session.out.json:
        for queue, found in zip(queues, counted, strict=True):
            session.out.record({"queue": queue.name, "total": found.total, **msgspec.structs.asdict(found)})
        return
    rows = [stats_row(queue.name, found) for queue, found in zip(queues, counted, strict=True)]
    session.out.table(Table(STATS_COLUMNS, rows))


STATS_COLUMNS = (
    *("queue", ">waiting", ">active", ">delayed", ">parents", ">completed", ">failed", ">cancelled", ">dead"),
    *(">oldest", ">workers", "state"),
)


def stats_row(name: str, found: QueueStats) -> Row:
    """Return a queue's row for `STATS_COLUMNS`."""
    stuck = found.waiting > 0 and not found.workers and not found.paused
    state = Cell("paused", "warn") if found.paused else Cell("no worker", "bad") if stuck else Cell("")
    return (
        Cell(name, "name"),
        *(
            _count(count)
            for count in (found.waiting, found.active, found.delayed, found.waiting_children, found.completed)
        ),
        _count(found.failed, "bad"),
        _count(found.cancelled),
        _count(found.dead, "bad"),
        values.age(found.oldest_waiting_age),
        _count(found.workers, zero="bad" if stuck else "dim"),
        state,
    )


def _count(count: int, tone: str = "", zero: str = "dim") -> Cell:
    return Cell(values.number(count), tone if count else zero)


async def pause(session: Session) -> None:
    """Pause queues."""
    async with session.queues() as queues:
        for queue in queues:
            await queue.pause()
            _tell(session, queue.name, "paused", paused=True)


async def resume(session: Session) -> None:
    """Resume queues."""
    async with session.queues() as queues:
        for queue in queues:
            await queue.resume()
            _tell(session, queue.name, "resumed", paused=False)


async def limits(session: Session) -> None:
    """Set the limits that were given, and show what holds now."""
    options = session.options
    async with session.queue() as queue:
        if "rate" in options:
            await queue.set_rate_limit(options.rate)
        if "concurrency" in options:
            await queue.set_concurrency(options.concurrency)
        if "max_size" in options:
            await queue.set_max_size(options.max_size)
        found = await queue.limits()
    if session.out.json:
        session.out.record({"queue": queue.name, **msgspec.structs.asdict(found)})
        return
    session.out.fields(limit_fields(found))


def limit_fields(found: Limits) -> list[tuple[str, str]]:
    """Return limits as people read them."""
    return [
        ("rate", "none" if found.rate is None else rate_text(found.rate)),
        ("concurrency", "none" if found.concurrency is None else f"{found.concurrency:,} jobs at once"),
        ("max size", "none" if found.max_size is None else f"{found.max_size:,} jobs"),
        ("paused", "yes" if found.paused else "no"),
        *([] if found.held_for is None else [("held", f"by a handler, for {values.age(found.held_for)} yet")]),
    ]


def rate_text(rate: RateLimit) -> str:
    """Return a rate limit as people read it."""
    return f"{rate.max:,} starts in any {values.age(rate.per)}"


async def drain(session: Session) -> None:
    """Remove what waits."""
    session.check_consent("drain")
    async with session.queue() as queue:
        found = await queue.stats()
        what = f"{found.waiting:,} waiting" + (f" and {found.delayed:,} delayed" if session.options.delayed else "")
        session.confirm(f"Remove {what} jobs of {queue.name}?")
        gone = await queue.drain(session.options.delayed)
    _tell(session, queue.name, f"{values.count(gone, 'job')} removed", removed=gone)


async def obliterate(session: Session) -> None:
    """Remove everything."""
    session.check_consent("obliterate")
    async with session.queue() as queue:
        found = await queue.stats()
        what = f"{values.count(found.total, 'job')} and {values.count(found.dead, 'dead letter')}"
        session.confirm(f"Remove queue {queue.name} with all of its {what}?")
        gone = await queue.obliterate(session.options.force)
    _tell(session, queue.name, f"gone, with {values.count(gone, 'job')}", removed=gone)


def _tell(session: Session, queue: str, sentence: str, **fields: Any) -> None:
    if session.out.json:
        session.out.record({"queue": queue, **fields})
    else:
        session.out.line(f"{queue}: {sentence}")
