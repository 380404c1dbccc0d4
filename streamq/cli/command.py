"""`streamq`: parse the command line, run the command, and turn what happened into an exit code."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Callable, Sequence

from streamq.cli import (
    adding,
    changing,
    dashboard,
    dead,
    doctor,
    exporter,
    flows,
    jobs,
    keys,
    moving,
    offload,
    processes,
    queues,
    schedules,
    script,
    top,
    watching,
    webhooks,
)
from streamq.cli.arguments import USAGE, Commands, Parser, add_common
from streamq.cli.session import Session, complain
from streamq.errors import InvalidInput, QueueBusy, QueueFull, StoreError, StreamqError

OK, FAILED, UNAVAILABLE, INTERRUPTED, PIPE_CLOSED = 0, 1, 3, 130, 141

DESCRIPTION = "Look at queues of background jobs, and operate them."
EPILOG = """\
environment:
  REDIS_URL, or REDIS_HOST, REDIS_PORT, REDIS_USERNAME, REDIS_PASSWORD, REDIS_DB
  STREAMQ_QUEUES   the queues that are meant where none is named (a,b,c)

exit codes:
  0  done             2  wrong usage; nothing was sent
  1  it failed, or    3  Redis is away, or can't take it now
     was not found

examples:
  streamq stats
  streamq add reports generate-monthly-report '{"month": 11}' --priority high --wait
  streamq jobs reports --state failed --newest
  streamq retry reports --state failed --error TimeoutError

`streamq COMMAND --help` tells more of each one; docs/cli.md tells all.
"""


FAMILIES: tuple[Callable[[Commands], None], ...] = (
    *(
        queues.add_parsers,
        top.add_parsers,
        jobs.add_parsers,
        flows.add_parsers,
        watching.add_parsers,
        doctor.add_parsers,
        script.add_parsers,
    ),
    *(
        adding.add_parsers,
        moving.add_parsers,
        changing.add_parsers,
        dead.add_parsers,
        schedules.add_parsers,
        offload.add_parsers,
        webhooks.add_parsers,
        processes.add_parsers,
    ),
    exporter.add_parsers,
    dashboard.add_parsers,
    keys.add_parsers,
)


def build() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="streamq",
        usage="streamq COMMAND [-r URL] [--json] ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_common(parser)
    parser.add_argument("--version", action=_Version)
    commands = Commands(parser)
    for add_parsers in FAMILIES:
        add_parsers(commands)
    listed = [
        f"{group}:\n" + "\n".join(f"  {name:<12} {help}" for name, help in members)
        for group, members in commands.groups.items()
    ]
    parser.description = DESCRIPTION + "\n\n" + "\n\n".join(listed)
    parser.epilog = EPILOG
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] and arguments[0] in processes.HANDED_ON:
        return processes.hand_on(arguments[0], arguments[1:])
    parser = build()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    logging.basicConfig(level=logging.WARNING, format="streamq: %(message)s", stream=sys.stderr)
    try:
        return run(options)
    except InvalidInput as error:
        return _wrong(error, USAGE)
    except (QueueFull, QueueBusy) as error:
        return _wrong(error, FAILED)
    except StoreError as error:
        return _wrong(error, UNAVAILABLE)
    except StreamqError as error:
        return _wrong(error, FAILED)
    except BrokenPipeError:
        # Whoever read the output has gone: point it elsewhere, or the flush at the end would raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name."""
    session = Session(options)
    done = options.run(session)
    code: int | None = asyncio.run(done) if inspect.iscoroutine(done) else done
    return code or OK


def _wrong(error: Exception, code: int) -> int:
    complain(str(error))
    return code


class _Version(argparse.Action):
    """Prints the version; it is looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and end")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"streamq {version('streamq')}")
        parser.exit()
