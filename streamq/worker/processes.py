"""Run several worker processes, and keep that many running.

The parent imports no processors and talks to nobody: it starts children with its own command line, starts anew what
ends unasked (later and later if it keeps ending), passes signals on, and waits. A child stops by itself when its parent
is gone, since it holds the reading end of a pipe whose other end only the parent has, and to be recycled, after so many
jobs or at so much memory. Exit code: the highest of the children's last ones.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

log = logging.getLogger("streamq.worker")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a child that ended unasked is started anew: from, up to."""
SOUND = 30.0
"""Seconds that a child must have run for its next pause to be the first one again."""
LIFELINE = "STREAMQ_LIFELINE"
"""Names, to a child, the descriptor that ends when its parent does."""


class _Child:
    """One place among the processes: who holds it now, and what became of those before."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.pause = 0.0
        self.start_at = 0.0
        self.code = 0


class Processes:
    """Keeps `count` children running the command `argv` until a signal stops them."""

    def __init__(self, argv: Sequence[str], count: int, env: Mapping[str, str] | None = None) -> None:
        self._argv, self._env = [sys.executable, *argv], env or {}
        self.on_end: Callable[[int], object] = lambda pid: None
        """Told of each child that has ended."""
        self._children = [_Child(number) for number in range(count)]
        self._signals = 0
        self._wake_read, self._wake_write = os.pipe()
        self._lifeline_read, self._lifeline_write = os.pipe()
        os.set_inheritable(self._lifeline_read, True)

    def run(self) -> int:
        """Run until stopped; return the exit code."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        os.set_blocking(self._wake_write, False)
        wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            self._keep_running()
            return max(child.code for child in self._children)
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def stopping(self) -> bool:
        """Whether a signal has said to stop."""
        return self._signals > 0

    def missing(self) -> str:
        """Say how many children that should run don't; "" if all do. May be called from any thread."""
        if self.stopping:
            return ""
        missing = sum(child.process is None for child in self._children)
        return f"{missing} of {len(self._children)} processes do not run" if missing else ""

    def restart(self) -> None:
        """End all children cleanly, so that they are started anew; may be called from another thread."""
        for child in self._children:
            child.pause = 0.0
            self._send(child, signal.SIGTERM)

    def _keep_running(self) -> None:
        while True:
            now = time.monotonic()
            for child in self._children:
                if child.process is not None and child.process.poll() is not None:
                    self._ended(child)
                if child.process is None and not self._signals and child.start_at <= now:
                    self._start(child)
            if self._signals and all(child.process is None for child in self._children):
                return
            waits = [child.start_at - now for child in self._children if child.process is None and not self._signals]
            self._sleep(max(min(waits, default=5.0), 0.05))

    def _sleep(self, seconds: float) -> None:
        """Sleep until a signal (of a child's end, among others) or for so long."""
        ready, _, _ = select.select([self._wake_read], [], [], seconds)
        if ready:
            os.read(self._wake_read, 1024)

    def _start(self, child: _Child) -> None:
        # A session of its own: a terminal's Ctrl-C reaches the parent alone, which passes it on once.
        child.process = subprocess.Popen(  # noqa: S603 - our own command line
            self._argv,
            env={**os.environ, **self._env, LIFELINE: str(self._lifeline_read)},
            pass_fds=(self._lifeline_read,),
            start_new_session=True,
        )
        child.started_at = time.monotonic()
        log.info("process %d runs as %d", child.number, child.process.pid)

    def _ended(self, child: _Child) -> None:
        assert child.process is not None  # noqa: S101 - the caller looked
        child.code = abs(child.process.returncode)
        pid, child.process = child.process.pid, None
        self.on_end(pid)
        if self._signals:
            return
        lived = time.monotonic() - child.started_at
        if child.code == 0:
            child.pause = 0.0  # it was recycled
        elif lived > SOUND:
            child.pause = FIRST_PAUSE
        else:
            child.pause = min(max(child.pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        child.start_at = time.monotonic() + child.pause
        log.log(
            logging.INFO if child.code == 0 else logging.WARNING,
            "process %d (%d) ended with %d after %.0f s; a new one starts in %.1f s",
            child.number, pid, child.code, lived, child.pause,
        )  # fmt: skip

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        for child in self._children:
            self._send(child, number)

    def _send(self, child: _Child, number: int) -> None:
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(number)


def watch_lifeline(on_end: Callable[[], object]) -> None:
    """In a child: call `on_end` (from a thread) when the parent is gone. Does nothing in a process without one."""
    descriptor = os.environ.pop(LIFELINE, None)
    if descriptor is None:
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(int(descriptor), 1):
                pass
        on_end()

    threading.Thread(target=wait, name="streamq-lifeline", daemon=True).start()


def is_child() -> bool:
    """Whether this process was started by `Processes`."""
    return LIFELINE in os.environ
