"""`streamq top`: a screen that shows queues, their speed, and what workers run, and keeps itself up to date."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from streamq.cli import arguments, values
from streamq.cli.output import Cell, Row, Table, drawn
from streamq.cli.queues import LOOK, stats_row
from streamq.cli.session import complain
from streamq.cli.watching import WORKER_COLUMNS, worker_fields, worker_row
from streamq.errors import InvalidInput, StoreError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from streamq.cli.session import Session
    from streamq.overview import Tally, WorkerList
    from streamq.queue import Queue, QueueStats

EXAMPLES = """
  streamq top
  streamq top reports emails --interval 1s
  streamq top --once
"""
COLUMNS = ("queue", ">waiting", ">active", ">delayed", ">failed", ">oldest", ">added/s", ">done/s", ">fail/s", "state")
"""As many as fit on 80 characters; `stats` and `--json` have all."""
SHOWN = ("added", "completed", "failed")
SPEEDS = {"added": ("added", "delayed"), "started": ("active",), "completed": ("completed",), "failed": ("failed",)}
"""What the rates count, as kinds of events."""


class View(msgspec.Struct, frozen=True):
    """A queue at one moment."""

    queue: str
    stats: QueueStats
    tally: Tally
    workers: WorkerList

    def as_fields(self) -> dict[str, Any]:
        """Return it as JSON tells it."""
        return {
            "queue": self.queue,
            "total": self.stats.total,
            **msgspec.structs.asdict(self.stats),
            "rates": {name: round(self.tally.rate(*kinds), 3) for name, kinds in SPEEDS.items()},
            "rates_complete": self.tally.complete,
            "workers": [worker_fields(self.queue, worker) for worker in self.workers],
        }


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add(LOOK, "top", top, "watch queues, their speed and their workers", examples=EXAMPLES)
    arguments.add_queues(parser)
    parser.add_argument("-i", "--interval", type=arguments.span, default=2.0, metavar="SPAN",
        help="between two looks; also what the rates are taken over (default: 2s)")  # fmt: skip
    parser.add_argument("--once", action="store_true", help="look once, print, and end")


async def top(session: Session) -> int:
    """Show the screen until it is interrupted."""
    options = session.options
    if options.interval < 0.1:
        raise InvalidInput("--interval must be at least 100ms")
    if not (options.once or session.out.json) and session.out.console is None:
        raise InvalidInput("top needs a terminal, and rich: pip install 'streamq[cli]'; or use --once, or --json")
    async with session.queues() as queues:
        views = await look(queues, options.interval, {})
        if options.once:
            _print(session, views)
            return 0
        async with _screen(session) as show:
            try:
                await _go_on(queues, views, options.interval, show)
            except asyncio.CancelledError:
                return 0  # Ctrl-C is how one leaves
    return 0


async def _go_on(queues: list[Queue], views: list[View], interval: float, show: Any) -> None:
    trouble = ""
    while True:
        show(views, trouble)
        await asyncio.sleep(interval)
        try:
            views, trouble = await look(queues, interval, {view.queue: view.tally.until for view in views}), ""
        except StoreError as error:
            trouble = str(error)


async def look(queues: list[Queue], over: float, since: dict[str, datetime]) -> list[View]:
    """Look at all queues at once. Rates are over what has happened `since` the last look, or over `over` seconds."""

    async def one(queue: Queue) -> View:
        stats, tally, workers = await asyncio.gather(
            queue.stats(), queue.tally(since.get(queue.name), over=over), queue.workers(50, jobs_each=10)
        )
        return View(queue.name, stats, tally, workers)

    return list(await asyncio.gather(*(one(queue) for queue in queues)))


@asynccontextmanager
async def _screen(session: Session) -> AsyncIterator[Any]:
    """Yield a function that shows views: on the terminal's own screen, or as lines of JSON."""
    if session.out.json:
        yield lambda views, trouble: complain(trouble) if trouble else _print(session, views)
        return
    from rich.live import Live

    console = session.out.console
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda views, trouble: live.update(_frame(views, trouble, live.console.width), refresh=True)


def _frame(views: list[View], trouble: str, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    moment = max(view.tally.until for view in views)
    heading = Text(f"streamq top  {values.when(moment)} by the server's clock  (Ctrl-C ends)", style="dim")
    queues, workers = drawn(queue_table(views), width), drawn(worker_table(views), width)
    parts: list[RenderableType] = [heading, Text(), queues, Text(), workers]
    if trouble:
        parts.insert(1, Text(f"this is not the present state: {trouble}", style="bold red"))
    return Group(*parts)


def _print(session: Session, views: list[View]) -> None:
    if session.out.json:
        for view in views:
            session.out.record(view.as_fields())
        return
    session.out.table(queue_table(views))
    session.out.line()
    session.out.table(worker_table(views))


def queue_table(views: list[View]) -> Table:
    """Return the queues, a row each."""
    rows = [_row(view) for view in views]
    if any(not view.tally.complete for view in views):
        return Table(COLUMNS, rows, "rates marked + are of the last moments only: the event stream holds no more")
    return Table(COLUMNS, rows)


def _row(view: View) -> Row:
    name, waiting, active, delayed, _, _, failed, _, _, oldest, _, state = stats_row(view.queue, view.stats)
    mark = "" if view.tally.complete else "+"
    rates = [values.speed(view.tally.rate(*SPEEDS[name])) for name in SHOWN]
    speeds = [Cell(rate + mark, "dim" if rate == values.NOTHING else "") for rate in rates]
    return (name, waiting, active, delayed, failed, oldest, *speeds, state)


def worker_table(views: list[View]) -> Table:
    """Return all workers, the busiest first."""
    found = [(view.queue, worker) for view in views for worker in view.workers]
    found.sort(key=lambda pair: (-pair[1].running, pair[0], pair[1].id))
    return Table(WORKER_COLUMNS, [worker_row(queue, worker) for queue, worker in found])
