"""Keys of a queue's jobs: list them, limit, pause and resume one, or limit all."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from streamq.cli import arguments, values
from streamq.cli.output import Cell, Row, Table
from streamq.cli.queues import LOOK, OPERATE, rate_text
from streamq.errors import InvalidInput

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.fairness import KeyLimits, KeySnapshot

KEYS_EXAMPLES = """
  streamq keys emails
  streamq keys emails --count 10 --json
"""
KEY_EXAMPLES = """
  streamq key emails tenant-42
  streamq key emails tenant-42 --rate 10/1m --concurrency 1
  streamq key emails tenant-42 --pause
  streamq key emails --all --concurrency 5
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the commands."""
    parser = commands.add(
        LOOK, "keys", keys, "list the keys of a queue's jobs, and their limits", examples=KEYS_EXAMPLES
    )
    arguments.add_queue(parser)
    parser.add_argument(
        "-n", "--count", type=arguments.positive, default=50, metavar="N", help="how many (default: 50)"
    )
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="how many to pass over")
    parser = commands.add(
        OPERATE, "key", key, "show a key of a queue's jobs, or limit, pause, resume it", examples=KEY_EXAMPLES
    )
    arguments.add_queue(parser)
    add = parser.add_argument
    add("key", metavar="KEY", nargs="?", help="the key")
    add("--all", action="store_true", help="instead of one key: all that have no limits of their own")
    add("--rate", type=arguments.rate, default=argparse.SUPPRESS, metavar="MAX/SPAN|none",
        help="job starts in any window of that length, over all workers")  # fmt: skip
    add("--concurrency", type=arguments.limit, default=argparse.SUPPRESS, metavar="N|none",
        help="jobs that run at once, over all workers; 1 keeps their order")  # fmt: skip
    add("--weight", type=arguments.limit, default=argparse.SUPPRESS, metavar="N|none",
        help="how much it gets where others wait too (none: 1)")  # fmt: skip
    state = parser.add_mutually_exclusive_group()
    state.add_argument("--pause", action="store_true", help="let no worker start another job of it")
    state.add_argument("--resume", action="store_true", help="let workers start its jobs again")


async def keys(session: Session) -> None:
    """List keys."""
    options = session.options
    async with session.queue() as queue:
        found = await queue.keys(options.count, options.skip)
    if session.out.json:
        for one in found:
            session.out.record(one)
        return
    session.out.table(
        Table(("key", ">jobs", ">parked", "rate", ">concurrency", ">weight", "state"), [_row(k) for k in found])
    )
    session.out.line(f"for all keys: {', '.join(f'{name} {text}' for name, text in _fields(found.limits))}")


async def key(session: Session) -> None:
    """Set what was given of one key, or of all, and show what holds now."""
    options = session.options
    if (options.key is None) != options.all:
        raise InvalidInput("say which key: give its name, or --all, one of the two")
    if options.all and (options.pause or options.resume):
        raise InvalidInput("--all can't go with --pause or --resume: `streamq pause` stops the whole queue")
    given = {name: getattr(options, name) for name in ("rate", "concurrency", "weight") if name in options}
    async with session.queue() as queue:
        if given:
            await queue.limit_key(options.key, **given)
        if options.pause:
            await queue.pause_key(options.key)
        if options.resume:
            await queue.resume_key(options.key)
        if options.all:
            limits = (await queue.keys(1)).limits
            found = None
        else:
            found = await queue.get_key(options.key)
            limits = found.limits
    if session.out.json:
        session.out.record(found if found is not None else limits)
        return
    counts = [] if found is None else [("jobs", f"{found.jobs:,}"), ("parked", f"{found.parked:,}")]
    state = [] if found is None else [("paused", "yes" if found.paused else "no")]
    session.out.fields([*counts, *_fields(limits), *state])


def _row(found: KeySnapshot) -> Row:
    own = [text for _, text in _fields(found.limits, values.NOTHING)]
    state = Cell("paused", "warn") if found.paused else Cell("")
    return (Cell(found.key, "name"), f"{found.jobs:,}", f"{found.parked:,}", *own, state)


def _fields(limits: KeyLimits, nothing: str = "none") -> list[tuple[str, str]]:
    return [
        ("rate", nothing if limits.rate is None else rate_text(limits.rate)),
        ("concurrency", nothing if limits.concurrency is None else f"{limits.concurrency:,}"),
        ("weight", nothing if limits.weight is None else f"{limits.weight:,}"),
    ]
