"""The `streamq` command as users start it: a process of its own, on a pipe or on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
"""Seconds after which something that must happen has not."""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")

PROCESSORS = """
from streamq import ActiveJob, Processors, Unrecoverable

processors = Processors()


@processors.register("echo", queue="q")
async def echo(job: ActiveJob):
    return job.data


@processors.register("fails", queue="q")
async def fails(job: ActiveJob):
    await job.log("about to fail")
    raise Unrecoverable(job.data)


@processors.register("holds", queue="q")
def holds(job: ActiveJob):
    with open(job.data) as gate:
        return gate.read()
"""


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[Any]:
        """The output as JSON, a value per line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self) -> Any:
        """The output as one JSON value."""
        (found,) = self.records
        return found


class Cli(msgspec.Struct):
    """Starts commands with one environment."""

    url: str
    folder: Path
    more: Mapping[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The tests' environment, without what would change the command's answers."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_", "STREAMQ_", "QUEUE_", "JOB_"))}
        return {**plain, "REDIS_URL": self.url, "COLUMNS": "120", "TERM": "xterm", **self.more}

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> Done:
        """Run a command off a terminal, and check its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "streamq", *arguments],
            cwd=self.folder, env=self.environment, input=stdin, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command whose output is read line by line."""
        return subprocess.Popen(
            [sys.executable, "-m", "streamq", *arguments],
            cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def on_terminal(self, *arguments: str, until: str = "", answer: str = "", interrupt: bool = False) -> Done:
        """Run a command on a terminal; once it has written `until`, type `answer`, or do as Ctrl-C does."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "streamq", *arguments],
            cwd=self.folder, env=self.environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        written, deadline = "", time.monotonic() + PATIENCE
        try:
            while select.select([ours], [], [], max(deadline - time.monotonic(), 0))[0]:
                try:
                    written += os.read(ours, 65_536).decode(errors="replace")
                except OSError:  # the other side has gone
                    break
                if (answer or interrupt) and until in ESCAPES.sub("", written):
                    os.write(ours, answer.encode())
                    if interrupt:
                        process.send_signal(signal.SIGINT)
                    answer, interrupt = "", False
            return Done(process.wait(max(deadline - time.monotonic(), 0.1)), written, "")
        finally:
            process.kill()
            process.wait()
            os.close(ours)


class CliWorker:
    """`streamq worker` on queue `q`, with the processors above."""

    def __init__(self, cli: Cli) -> None:
        (cli.folder / "cli_jobs.py").write_text(PROCESSORS)
        self.process = cli.start("worker", "--queues", "q", "--processors", "cli_jobs", "--log-level", "info")
        assert self.process.stderr is not None
        if not any("runs queue q" in line for line in self.process.stderr):
            self.stop()
            raise AssertionError("the worker did not start")

    def __enter__(self) -> CliWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


def eventually(look: Callable[[], Any]) -> Any:
    """Call `look`, a command that takes its time itself, until it returns something; return that."""
    until = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < until, "it did not happen"
    return found
