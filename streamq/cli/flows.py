"""Looking at a flow as a tree, and moving all of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from streamq.cli import arguments, values
from streamq.cli.jobs import TONES
from streamq.cli.output import Cell, Row, Table
from streamq.cli.queues import LOOK
from streamq.job import JobState

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.flow import FlowNode

EXAMPLES = """
  streamq flow reports month-end
  streamq flow reports month-end --depth 2 --width 20
  streamq flow reports month-end --retry
  streamq flow reports month-end --cancel 'wrong month'
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add(LOOK, "flow", flow, "show a job and those it waits for as a tree; retry or cancel them all",
        examples=EXAMPLES)  # fmt: skip
    arguments.add_queue(parser)
    option = parser.add_argument
    option("id", metavar="ID", help="the job at the top")
    option("--depth", type=arguments.positive, default=10, metavar="N", help="levels below it (default: 10)")
    option("--width", type=arguments.positive, default=50, metavar="N", help="children of each job (default: 50)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--retry", action="store_true", help="retry all of them that have failed or were cancelled")
    which.add_argument("--cancel", metavar="REASON", help="cancel all of them that have not ended")


async def flow(session: Session) -> None:
    """Show a flow, or move its jobs."""
    options, out = session.options, session.out
    async with session.queue() as queue:
        if options.retry or options.cancel is not None:
            moved = await (
                queue.retry_flow(options.id) if options.retry else queue.cancel_flow(options.id, options.cancel)
            )
            word = "retried" if options.retry else "cancelled, or asked to end"
            if out.json:
                out.record({"jobs": moved})
            else:
                out.line(f"{len(moved):,} jobs {word}")
            return
        tree = await queue.flow(options.id, depth=options.depth, width=options.width, most=10_000)
    if out.json:
        out.record(msgspec.to_builtins(tree))
    else:
        out.table(Table(("job", "name", "queue", "state", ">children", ">open"), list(_rows(tree))))


def _rows(node: FlowNode, before: str = "", branch: str = "") -> Iterator[Row]:
    state = Cell(node.state, TONES.get(JobState(node.state), "") if node.state in list(JobState) else "dim")
    counts = (values.number(node.children), values.number(node.open)) if node.children else ("", "")
    yield (Cell(f"{before}{branch}{node.id}", "name"), node.name or values.NOTHING, node.queue, state, *counts)
    below = before + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
    left = node.children - (node.nodes[-1].place if node.nodes else 0)
    for at, child in enumerate(node.nodes, 1):
        is_last = at == len(node.nodes) and not left
        yield from _rows(child, below, "└─ " if is_last else "├─ ")
    if left:
        yield (Cell(f"{below}└─ … {left:,} more", "dim"), "", "", "", "", "")
