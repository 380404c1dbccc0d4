"""Hold the embedded server in the foreground: `python -m streamq.embedded`, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from streamq.embedded.launcher import default_data_dir, start, stop_when_unused
from streamq.errors import ServerNotFound


def main(arguments: list[str] | None = None) -> int:
    """Start or join the server, print its address, and use it until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m streamq.embedded", description=main.__doc__)
    parser.add_argument("--data-dir", type=Path, help=f"where the jobs are kept (default: {default_data_dir()})")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--stay", action="store_true", help="print the address and leave the server running")
    kept.add_argument("--stop", action="store_true", help="let a server that stays end with its last user")
    options = parser.parse_args(arguments)
    if options.stop:
        stop_when_unused(options.data_dir)
        return 0
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the address is out, which may provoke one
    try:
        server = start(options.data_dir, stay=options.stay)
    except ServerNotFound as error:
        print(error, file=sys.stderr)
        return 1
    with server:
        print(server.url, flush=True)
        if not options.stay:
            signal.sigwait(signals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
