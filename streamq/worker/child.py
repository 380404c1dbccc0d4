"""A process of the pool: runs one handler at a time, told so over a socket. `streamq.worker.pool` starts it.

It knows no Redis. It ends when the socket does, so nothing is left behind when its worker is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn

import msgspec

from streamq._engine import codec
from streamq.errors import InvalidInput, RateLimited, RetryAfter, Snooze, StreamqError, Unrecoverable
from streamq.flow import ChildEnd, FlowJob
from streamq.log import configure_as_the_worker, current_job
from streamq.processor import ActiveJob, Processor, Processors
from streamq.worker.done import Done
from streamq.worker.failure import describe
from streamq.worker.frames import HEADER, Ended, Said, Task, Told, pack, unpack
from streamq.worker.steps import Steps, drive


class _Line:
    """The socket to the worker, for blocking use."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, value: Said | Ended) -> None:
        self._connection.sendall(pack(value))

    def ask(self, value: Said) -> dict[str, bytes]:
        """Send what is answered, and return the answer."""
        self.send(value)
        if not isinstance(answer := self.receive(), Told):
            raise ConnectionError("the worker hung up")
        return answer.fields

    def receive(self) -> Task | Told | None:
        header = self._read(HEADER.size)
        if header is None:
            return None
        body = self._read(HEADER.unpack(header)[0])
        value = None if body is None else unpack(body)
        return value if isinstance(value, Task | Told) else None

    def _read(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            part = self._connection.recv(size - len(parts))
            if not part:
                return None
            parts += part
        return bytes(parts)


class _Memory:
    """What the job's attempts remember, asked of the worker. If it can't tell, it ends this process and the attempt."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    async def recall(self) -> dict[str, bytes]:
        return self._line.ask(Said("recall", b""))

    async def remember(self, field: str, value: bytes) -> None:
        self._line.ask(Said("remember", msgspec.msgpack.encode((field, value))))


class _Control:
    """What the handler can ask for; done by the worker, which answers where steps are concerned."""

    def __init__(self, line: _Line, max_payload: int) -> None:
        self._line, self._max_payload = line, max_payload
        self._steps = Steps(_Memory(line), max_payload, drive)

    def progress(self, value: Any) -> Awaitable[None]:
        self._line.send(Said("progress", codec.encode_data("progress", value, self._max_payload)))
        return Done()

    def log(self, line: str) -> Awaitable[None]:
        self._line.send(Said("log", str(line).encode("utf-8", "replace")))
        return Done()

    def extend_timeout(self, seconds: float) -> None:
        self._line.send(Said("extend", codec.encode_data("seconds", seconds, self._max_payload)))

    def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._steps.step(name, fn, args, kwargs)

    def save_cursor(self, value: Any) -> Awaitable[None]:
        return self._steps.save_cursor(value)

    def add_children(self, children: Iterable[FlowJob]) -> Awaitable[NoReturn]:
        raise InvalidInput("a handler in a process can't add children: register it to run in the loop or a thread")

    def child_ends(self) -> Awaitable[list[ChildEnd]]:
        raise InvalidInput("a handler in a process can't read its children: register it to run in the loop or a thread")


def find_processor(module_name: str, queue: str, name: str) -> Processor:
    """Return the processor that a registry in this module has for the queue's jobs of this name.

    Raises:
        StreamqError: There is none.
    """
    for value in list(vars(importlib.import_module(module_name)).values()):
        if isinstance(value, Processors) and (found := value.find(queue, name)) is not None:
            return found
    raise StreamqError(f"module {module_name} holds no Processors with {name!r}: register it where it is defined")


def run(task: Task, line: _Line) -> Ended:
    """Run one handler; whatever it raises is how it ended."""
    try:
        processor = find_processor(task.module, task.queue, task.name)
        data = codec.typed_decoder(processor.data).decode(task.data)
        job = ActiveJob(
            _Control(line, task.max_payload), task.job_id, task.name, task.queue, data, attempt=task.attempt,
            attempts=task.attempts, stalls=task.stalls, tags=task.tags, headers=task.headers, key=task.key,
            processor=processor.name, cursor=codec.decode(task.cursor),
        )  # fmt: skip
        current_job.set(job)
        line.send(Said("started", b""))
        result = processor.handler(job)
        if inspect.isawaitable(result):
            result = asyncio.run(_await(result))
        return Ended("done", b"" if result is None else codec.encode_result(result, task.max_payload))
    except Unrecoverable as error:
        return Ended("Unrecoverable", message=str(error))
    except (RetryAfter, Snooze, RateLimited) as error:
        return Ended(type(error).__name__, message=error.reason, seconds=error.seconds)
    except BaseException as error:
        found = describe(error)
        return Ended("raised", type=found.type, message=found.message, traceback=found.traceback)


async def _await(result: Awaitable[Any]) -> Any:
    return await result


def main(descriptor: int) -> None:
    """Run tasks until the worker hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the worker's to handle
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    configure_as_the_worker()
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as connection:
        line = _Line(connection)
        while isinstance(task := line.receive(), Task):
            line.send(run(task, line))


if __name__ == "__main__":
    main(int(sys.argv[1]))
