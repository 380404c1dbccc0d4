"""`streamq script`: print a transition's Lua script, put together, for producers in other languages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamq.cli import arguments
from streamq.cli.session import complain

if TYPE_CHECKING:
    from streamq.cli.session import Session

EXAMPLES = """
  streamq script add                what adds jobs; docs/wire-format.md tells how it is called
  streamq script                    the names of all scripts
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add("look", "script", show, "print a Lua script as the server runs it", examples=EXAMPLES)
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a transition of docs/state-machine.md (default: list all)"
    )


def show(session: Session) -> int:
    """Print the script, or the names of all."""
    from streamq._engine import scripts

    name = session.options.name
    if name is None:
        if session.out.json:
            session.out.record({"scripts": scripts.names()})
        else:
            session.out.line("\n".join(scripts.names()))
        return 0
    if name not in scripts.names():
        complain(f"there is no script called {name!r}; `streamq script` lists them")
        return 1
    script = scripts.load(name)
    if session.out.json:
        session.out.record({"name": name, "sha1": script.sha, "body": script.body})
    else:
        session.out.line(script.body)
    return 0
