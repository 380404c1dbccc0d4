"""The adapter processes of a storm: started, killed, frozen and thawed with all that they have forked."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from streamq.embedded.supervisor import end_with_parent
from tests.faults.ledger import Ledger

GONE_WITHIN = 10.0


class Process:
    """One worker or producer, in a session of its own; its output goes into a log, over all its lives.

    Attributes:
        frozen_until: When it is to be thawed; 0 while it runs.
        again_at: When it may be started again after it ended by itself; 0 while it runs.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, ledger: Ledger) -> None:
        self.command, self._environment, self.log, self._ledger = list(command), dict(environment), log, ledger
        self._process: subprocess.Popen[bytes] | None = None
        self.frozen_until = self.again_at = 0.0
        self.start()

    @property
    def pid(self) -> int:
        """The process's id, which is its session's too."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs, frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it, again if it has ended."""
        prepare = end_with_parent(os.getpid()) if sys.platform == "linux" else None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=self._environment, cwd=self.log.parent, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True, preexec_fn=prepare,
            )  # fmt: skip
        self.frozen_until = self.again_at = 0.0

    def kill(self) -> None:
        """SIGKILL all of it. When this returns all are gone, and the ledger knows."""
        members = self._members()
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(GONE_WITHIN)
        until = time.monotonic() + GONE_WITHIN
        while any(map(is_running, members)) and time.monotonic() < until:
            time.sleep(0.002)
        for pid in {self.pid, *members}:
            self._ledger.killed(pid)

    def signal(self, which: signal.Signals) -> list[int]:
        """Send a signal to all of it; return the ids that got it."""
        members = self._members()
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, which)
        return members

    def _members(self) -> list[int]:
        """Return the ids of the session, the first process first: what it forked stays in it even in another group."""
        found = [self.pid] if self.alive else []
        for pid in psutil.pids():
            with contextlib.suppress(OSError):
                if pid != self.pid and os.getsid(pid) == self.pid:
                    found.append(pid)
        return found


def is_running(pid: int) -> bool:
    """Say whether there is such a process, and it is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
