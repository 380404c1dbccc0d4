"""The demo's workers: `python -m streamq.worker` as processes of their own, their logs in the demo's folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from streamq.demo.errors import DemoFailed
from streamq.demo.folder import DemoFolder
from streamq.demo.processors import QUEUES

STOPS_WITHIN = 15.0
LEASE = 3.0
"""Seconds after which a killed worker's jobs go to the other one; 15 if nothing is said."""


class DemoWorker:
    """One running process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self.log = process, log
        self.killed = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def runs(self, worker_id: str) -> bool:
        """Return whether the worker of this id is in this process."""
        return worker_id.split("-")[-2] == str(self.pid)

    def freeze(self) -> None:
        """Stop it where it is, so that what it holds stays as it is."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut does: nothing is handed back, nothing is said to anybody."""
        self.killed = True
        self._process.kill()

    async def died(self) -> DemoFailed:
        """Wait until the process ends though nobody ended it, and return what to say about it."""
        code = await self._process.wait()
        if self.killed:
            await asyncio.Event().wait()
        return DemoFailed(f"a worker ended early with code {code}; its log {self.log} ends: {self._tail()}")

    async def stop(self) -> None:
        """Ask it to stop, as a deployment does, and wait for it.

        Raises:
            DemoFailed: It did not stop, or not cleanly. It has ended all the same.
        """
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(STOPS_WITHIN):
                code = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise DemoFailed(f"a worker did not stop within {STOPS_WITHIN:g} s of SIGTERM") from None
        if code != 0 and not self.killed:
            raise DemoFailed(f"a worker stopped with code {code}; its log {self.log} ends: {self._tail()}")

    def _tail(self) -> str:
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").strip().splitlines()
            return " | ".join(lines[-3:]) or "(empty)"
        return "(none)"


def environment(folder: DemoFolder, redis_url: str, mail_port: int) -> dict[str, str]:
    """Return the workers' environment: this one's, without what would lead them elsewhere."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("STREAMQ_SMTP_", "STREAMQ_EMAIL_"))}
    return env | {
        "REDIS_URL": redis_url,  # not an argument: it may hold a password, and arguments are for all to see
        "STREAMQ_LEASE": str(LEASE),
        "STREAMQ_LEDGER_URL": folder.ledger_url,
        "STREAMQ_SYNC_SECOND_URL": folder.second_url,
        "STREAMQ_STORAGE_URL": str(folder.files),
        "STREAMQ_SMTP_HOST": "127.0.0.1",
        "STREAMQ_SMTP_PORT": str(mail_port),
        "STREAMQ_SMTP_SECURITY": "none",
        "STREAMQ_SMTP_FROM": "River Bank <post@bank.example>",
        "STREAMQ_EMAIL_BANK_NAME": "River Bank",
    }


@asynccontextmanager
async def running_worker(env: dict[str, str], log: Path) -> AsyncIterator[DemoWorker]:
    """Run a worker for as long as the block does; when the block raises, it is ended in any way."""
    command = ["-m", "streamq.worker", "--queues", ",".join(QUEUES)]
    command += ["--processors", "streamq.demo.processors:processors"]
    with await asyncio.to_thread(open, log, "wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file
        )
    worker = DemoWorker(process, log)
    try:
        yield worker
    except BaseException:
        with suppress(DemoFailed):
            await asyncio.shield(worker.stop())
        raise
    await worker.stop()
