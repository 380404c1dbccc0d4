"""Commands that are processes: the embedded server, a worker, the demo."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from streamq.cli import arguments
from streamq.cli.session import complain

if TYPE_CHECKING:
    from streamq.cli.session import Session

RUN = "run"
HANDED_ON = ("worker", "demo")
"""Commands whose arguments are read by the module that they stand for."""

SERVER_EXAMPLES = """
  streamq server                    until Ctrl-C; prints its address
  export REDIS_URL=$(streamq server --stay)
  streamq server --stop
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the commands; those that are handed on are declared for the list only."""
    parser = commands.add(RUN, "server", server, "run a Redis or Valkey server of your own, for development",
        examples=SERVER_EXAMPLES, connects=False)  # fmt: skip
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where its jobs are kept (default: in your home)")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--stay", action="store_true", help="print the address, and leave the server running")
    kept.add_argument("--stop", action="store_true", help="let a server that stays end with its last user")
    commands.add(RUN, "worker", _misplaced, "run jobs: the same as python -m streamq.worker", connects=False)
    commands.add(RUN, "demo", _misplaced, "see a bank's jobs run: the same as python -m streamq.demo", connects=False)


def hand_on(name: str, rest: list[str]) -> int:
    """Run a command whose module reads the arguments itself."""
    run: Callable[[list[str]], int]
    if name == "worker":
        from streamq.worker.__main__ import leave
        from streamq.worker.__main__ import main as run

        leave(run(rest))
    from streamq.demo.__main__ import main as run

    return run(rest)


def _misplaced(session: Session) -> int:
    name = session.options.command
    complain(f"options of {name} come behind it: streamq {name} --help")
    return arguments.USAGE


def server(session: Session) -> int:
    """Start or join the embedded server, and use it until SIGINT or SIGTERM."""
    from streamq.embedded import start, stop_when_unused

    options = session.options
    if options.stop:
        stop_when_unused(options.data_dir)
        _tell(session, "the server ends when nobody uses it any more", stopping=True)
        return 0
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the address is out, which may provoke one
    with start(options.data_dir, stay=options.stay) as running:
        if running.folder is None:
            complain("the environment names a server (REDIS_URL or REDIS_HOST); nothing was started")
            return 1
        _tell(session, running.url, url=running.url, pid=running.pid, folder=str(running.folder))
        if not options.stay:
            signal.sigwait(signals)
    return 0


def _tell(session: Session, text: str, **fields: object) -> None:
    if session.out.json:
        session.out.record(fields)
    else:
        session.out.line(text)
