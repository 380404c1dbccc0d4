"""Real worker processes, and all that can happen to a process.

    worker = fleet.start("faults", concurrency=10, lease=3)
    await worker.ready()
    worker.kill()

Nothing here knows how workers work, but for the command line and the environment that they are started with.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import psutil

from streamq.embedded.supervisor import end_with_parent
from tests.faults.ledger import ENVIRONMENT, Ledger

ROOT = Path(__file__).resolve().parents[2]
_POLL = 0.02


async def eventually(
    condition: Callable[[], object | Awaitable[object]], timeout: float, what: str | Callable[[], str] = ""
) -> float:
    """Wait until `condition` holds and return the seconds that it took; fail the test after `timeout`."""
    since = time.monotonic()
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        took = time.monotonic() - since
        if found:
            return took
        if took > timeout:
            text = what() if callable(what) else what or inspect.getsource(condition).strip()
            raise AssertionError(f"did not happen within {timeout:g} s: {text}")
        await asyncio.sleep(_POLL)


async def stays(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Fail the test if `condition` stops holding within `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert condition(), f"did not last: {what}"
        await asyncio.sleep(_POLL)


def ends_with_us() -> Callable[[], None] | None:
    """Return what a child does before it starts, so that a killed test run leaves no process behind; Linux only."""
    return end_with_parent(os.getpid()) if sys.platform == "linux" else None


class Stalls:
    """Measures, while it is entered, how long the machine gave this process, and one that it watches, no turn.

    Attributes:
        worst: Seconds that this process overslept a short nap by, plus seconds that the watched one waited for a
            processor within half a second; each at its worst. The second is known on Linux only.
    """

    def __init__(self, watched: int) -> None:
        self._schedstat = Path(f"/proc/{watched}/schedstat")
        self._overslept = self._waited = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)

    @property
    def worst(self) -> float:
        return self._overslept + self._waited

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        nap, since = 0.005, time.monotonic()
        waits: deque[float] = deque([self._wait()], maxlen=100)
        while not self._over.wait(nap):
            now = time.monotonic()
            self._overslept, since = max(self._overslept, now - since - nap), now
            waits.append(self._wait())
            self._waited = max(self._waited, waits[-1] - waits[0])

    def _wait(self) -> float:
        """Return the seconds that the watched process has been ready to run and did not, so far."""
        try:
            return int(self._schedstat.read_text().split()[1]) / 1e9
        except OSError:
            return 0.0


class WorkerProcess:
    """One `python -m streamq.worker`, its log in a file, in a process group of its own.

    Attributes:
        name: What its jobs call it.
        log_path: Where its output goes.
        expected_to_live: Whether the end of the test finds fault with its being gone.
    """

    def __init__(
        self, name: str, arguments: list[str], environment: dict[str, str], ledger: Ledger, folder: Path
    ) -> None:
        self.name, self._ledger = name, ledger
        self.log_path = folder / f"{name}.log"
        self.expected_to_live = True
        self._arguments, self._environment = arguments, environment
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the process; a second start is a new process that goes on in the same log."""
        environment = {
            **os.environ,
            **self._environment,
            ENVIRONMENT: str(self._ledger.path),
            "FAULTS_WORKER": self.name,
        }
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "dev" if self._environment.get("FAULTS_DEV") else "utf8", "-m", "streamq.worker",
                 *self._arguments],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=ends_with_us(),
            )  # fmt: skip
        self.expected_to_live = True

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is stopped), still."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """SIGKILL the whole process group and note the death in the ledger; the process is gone when this returns."""
        self.expected_to_live = False
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)
        self._ledger.killed(self.pid)

    def freeze(self) -> None:
        """SIGSTOP: the process stands still and keeps its connections."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM: ask for a graceful stop."""
        self.expected_to_live = False
        os.kill(self.pid, signal.SIGTERM)

    async def exits(self, timeout: float) -> int:
        """Wait for the end of the process and return its exit code; a death by signal is noted in the ledger."""
        await eventually(
            lambda: not self.alive, timeout, lambda: f"{self.name} exits; its log ends:\n{self.log_tail()}"
        )
        code = self.exit_code
        assert code is not None
        if code < 0:
            self._ledger.killed(self.pid)
        return code

    @property
    def log(self) -> str:
        """Everything that the process has written."""
        return self.log_path.read_text(errors="replace")

    def log_tail(self, lines: int = 30) -> str:
        """The end of it."""
        return "\n".join(self.log.splitlines()[-lines:])

    async def logs(self, pattern: str, timeout: float = 10) -> None:
        """Wait for a log line that `pattern` matches."""
        await eventually(
            lambda: re.search(pattern, self.log), timeout, lambda: f"{self.name} logs {pattern!r}:\n{self.log_tail()}"
        )

    @property
    def rss(self) -> int:
        """Bytes of memory that the process occupies."""
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        """Seconds of processor time that the process has used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def open_files(self) -> int:
        """File descriptors that the process holds."""
        return int(psutil.Process(self.pid).num_fds())


class Fleet:
    """All worker processes of a test: started here, ended here, their logs judged here."""

    def __init__(self, url: str, ledger: Ledger, folder: Path) -> None:
        self._url, self._ledger, self._folder = url, ledger, folder
        self.workers: list[WorkerProcess] = []

    def start(
        self,
        queue: str = "faults",
        *,
        url: str | None = None,
        name: str | None = None,
        concurrency: int = 10,
        lease: float = 3.0,
        grace: float = 10.0,
        attempts: int = 3,
        retry_delay_ms: int = 100,
        processors: str = "tests.faults.jobs",
        shards: int | None = None,
        **environment: str,
    ) -> WorkerProcess:
        """Start one worker process of `queue`."""
        settings = {
            "REDIS_URL": url or self._url,
            "STREAMQ_LEASE": str(lease),
            "STREAMQ_GRACE": str(grace),
            "STREAMQ_TIMEOUT": "2",
            "JOB_RETRY_ATTEMPTS": str(attempts),
            "JOB_RETRY_DELAY": str(retry_delay_ms),
            **environment,
        }
        arguments = ["--queues", queue, "--processors", processors, "--concurrency", str(concurrency)]
        if shards is not None:
            arguments += ["--shards", str(shards)]
        name = name or f"worker-{len(self.workers) + 1}"
        worker = WorkerProcess(name, arguments, settings, self._ledger, self._folder)
        self.workers.append(worker)
        return worker

    def start_many(self, count: int, queue: str = "faults", **options: object) -> list[WorkerProcess]:
        """Start several worker processes alike."""
        return [self.start(queue, **options) for _ in range(count)]  # type: ignore[arg-type]

    def stop(self) -> None:
        """End every process that still runs: gracefully first, then not."""
        for worker in self.workers:
            if worker.alive:
                with contextlib.suppress(ProcessLookupError):
                    worker.thaw()
                    worker.terminate()
        until = time.monotonic() + 5
        for worker in self.workers:
            while worker.alive and time.monotonic() < until:
                time.sleep(_POLL)
            if worker.alive:
                worker.kill()

    def complaints(self) -> list[str]:
        """Return what is wrong with the processes: those that died unasked, and tasks that failed unseen."""
        found = [
            f"{w.name} is gone ({w.exit_code}), and nobody killed it:\n{w.log_tail()}"
            for w in self.workers
            if w.expected_to_live and not w.alive
        ]
        for worker in self.workers:
            for bad in ("Task exception was never retrieved", "RecursionError", "Task was destroyed but it is pending"):
                if bad in worker.log:
                    found.append(f"{worker.name} logged {bad!r}:\n{worker.log_tail(60)}")
        return found
