"""The `streamq` command: look at queues and operate them, from a terminal or from a script.

One module per family of commands. Each declares its arguments with `add_parsers` and imports the engine only when it
runs, so that help and usage errors come at once. `docs/cli.md` tells what each command prints and its exit codes.
"""

from streamq.cli.command import main

__all__ = ["main"]
