"""Processes for handlers that compute: started when needed, reused, and killed when a job's time is up.

A handler runs in a process if it was registered with `run_in="process"`. One that takes its process down (a crash in
native code, the kernel's out-of-memory killer) fails its attempt and nothing else.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from streamq._engine import codec
from streamq.errors import ProcessorError, RateLimited, RetryAfter, Snooze, Unrecoverable
from streamq.job import JobError
from streamq.worker.frames import HEADER, Ended, Said, Task, pack, unpack

_WAITS = {kind.__name__: kind for kind in (RetryAfter, Snooze, RateLimited)}


class ChildError(Exception):
    """A handler's exception, from another process: `described` is what is stored of it."""

    def __init__(self, described: JobError) -> None:
        super().__init__(described)
        self.described = described

    def __str__(self) -> str:
        return str(self.described)


class ProcessLost(ProcessorError):
    """The handler's process ended under it."""


class _Child:
    """One process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], near: socket.socket) -> None:
        self.process = process
        self._near = near
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, task: Task, said: Callable[[Said], Any]) -> Ended:
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(sock=self._near)
        self._writer.write(pack(task))
        try:
            while True:
                header = await self._reader.readexactly(HEADER.size)
                value = unpack(await self._reader.readexactly(HEADER.unpack(header)[0]))
                if isinstance(value, Ended):
                    return value
                if isinstance(value, Said):
                    answer = await said(value)
                    if answer is not None:
                        self._writer.write(pack(answer))
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await asyncio.to_thread(self.process.wait)
            raise ProcessLost(f"its process ended with {code} while running it") from None

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()
        self.process.wait()
        if self._writer is not None:
            self._writer.close()
        else:
            self._near.close()


class ProcessPool:
    """The processes of one worker. There are never more than handlers that run at once."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()

    async def run(self, task: Task, said: Callable[[Said], Any]) -> Any:
        """Run a task and return the handler's result. Cancelling this kills the process.

        Raises:
            ChildError: The handler raised.
            ProcessLost: Its process ended under it.
            Unrecoverable, RetryAfter, Snooze, RateLimited: The handler raised that.
        """
        child = self._idle.pop() if self._idle else self._start()
        try:
            ended = await child.run(task, said)
        except BaseException:
            self._all.discard(child)
            child.kill()
            raise
        self._idle.append(child)
        if ended.kind == "done":
            return codec.decode(ended.body)
        if ended.kind == "Unrecoverable":
            raise Unrecoverable(ended.message)
        if ended.kind in _WAITS:
            raise _WAITS[ended.kind](ended.seconds, ended.message)
        raise ChildError(JobError(ended.type, ended.message, ended.traceback))

    def _start(self) -> _Child:
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "streamq.worker.child", str(far.fileno())],
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        child = _Child(process, near)
        self._all.add(child)
        return child

    def close(self) -> None:
        """End all processes."""
        for child in self._all:
            child.kill()
        self._all.clear()
        self._idle.clear()
