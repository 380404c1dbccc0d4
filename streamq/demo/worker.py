"""The demo's worker: `python -m streamq.worker` as a process of its own, its log in the demo's folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from streamq.demo.errors import DemoFailed
from streamq.demo.folder import DemoFolder
from streamq.demo.processors import QUEUES

STOPS_WITHIN = 15.0


class DemoWorker:
    """The running process."""

    def __init__(self, process: asyncio.subprocess.Process, folder: DemoFolder) -> None:
        self._process, self._folder = process, folder

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def died(self) -> DemoFailed:
        """Wait until the process ends, and return what to say about it."""
        code = await self._process.wait()
        return DemoFailed(
            f"the worker ended early with code {code}; its log {self._folder.worker_log} ends: {self._tail()}"
        )

    async def stop(self) -> None:
        """Ask it to stop, as a deployment does, and wait for it.

        Raises:
            DemoFailed: It did not stop, or not cleanly. It has ended all the same.
        """
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOPS_WITHIN):
                code = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise DemoFailed(f"the worker did not stop within {STOPS_WITHIN:g} s of SIGTERM") from None
        if code != 0:
            raise DemoFailed(
                f"the worker stopped with code {code}; its log {self._folder.worker_log} ends: {self._tail()}"
            )

    def _tail(self) -> str:
        with suppress(OSError):
            lines = self._folder.worker_log.read_text(errors="replace").strip().splitlines()
            return " | ".join(lines[-3:]) or "(empty)"
        return "(none)"


@asynccontextmanager
async def running_worker(folder: DemoFolder, redis_url: str) -> AsyncIterator[DemoWorker]:
    """Run the worker for as long as the block does; when the block raises, it is ended in any way."""
    env = os.environ | {
        "REDIS_URL": redis_url,  # not an argument: it may hold a password, and arguments are for all to see
        "STREAMQ_LEDGER_URL": folder.ledger_url,
        "STREAMQ_STORAGE_URL": str(folder.files),
    }
    command = [
        "-m",
        "streamq.worker",
        "--queues",
        ",".join(QUEUES),
        "--processors",
        "streamq.demo.processors:processors",
    ]
    with await asyncio.to_thread(open, folder.worker_log, "wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
    worker = DemoWorker(process, folder)
    try:
        yield worker
    except BaseException:
        with suppress(DemoFailed):
            await asyncio.shield(worker.stop())
        raise
    await worker.stop()
