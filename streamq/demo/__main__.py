"""`python -m streamq.demo`. Exit codes: 0 all is well; 1 something is wrong, in one sentence; 130 interrupted."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from streamq.errors import StreamqError


def main(argv: list[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m streamq.demo", description="See a night of a bank's jobs run, a worker killed on the way."
    )
    parser.add_argument("-f", "--folder", type=Path, default=Path(".demo"), help="where its files go (default: .demo)")
    parser.add_argument("--short", action="store_true", help="fewer rows and nights")
    parser.add_argument("--reconcile", action="store_true", help="check the folder's last night again, and run nothing")
    options = parser.parse_args(argv)
    try:
        from streamq.demo.folder import DemoFolder
        from streamq.demo.run import run, settle
        from streamq.demo.show import Show
    except ModuleNotFoundError as error:
        return _wrong(f"the demo needs {error.name}: pip install 'streamq[demo]'")
    try:
        if options.reconcile:
            asyncio.run(settle(DemoFolder(options.folder), Show()))
        else:
            asyncio.run(run(options.folder, Show(), short=options.short))
    except StreamqError as error:
        return _wrong(str(error))
    except KeyboardInterrupt:
        return _wrong("interrupted") and 130
    return 0


def _wrong(sentence: str) -> int:
    print(f"streamq.demo: {sentence}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
