"""What the generated classes of `streamq.sync` stand on: which asynchronous object is behind them in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from streamq import job as jobs
from streamq import queue as queues
from streamq.dead_letters import DeadLetter
from streamq.dead_letters import Watch as AsyncWatch
from streamq.job import JobOptions
from streamq.middleware import Middleware
from streamq.observer import NOBODY, ErrorHandler, Observer
from streamq.payload import Codec
from streamq.queue import OptionFields, Shards
from streamq.settings import Settings
from streamq.sync.background import background

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

T = TypeVar("T")
S = TypeVar("S", bound="QueueFacade")


class QueueFacade:
    """A queue of this process, and of each process that is forked off it."""

    def __init__(
        self,
        name: str,
        redis: str | Redis | RedisCluster | None = None,
        *,
        shards: Shards = None,
        defaults: JobOptions | None = None,
        settings: Settings | None = None,
        observer: Observer = NOBODY,
        on_error: ErrorHandler | None = None,
        middleware: Sequence[Middleware] = (),
        codec: Codec | None = None,
    ) -> None:
        def make() -> queues.Queue:
            return queues.Queue(
                name, redis, shards=shards, defaults=defaults, settings=settings, observer=observer, on_error=on_error,
                middleware=middleware, codec=codec,
            )  # fmt: skip

        self._make = make
        self._made = make()
        self._pid = os.getpid()
        background.look_after(self._made)

    def __repr__(self) -> str:
        return repr(self._queue())

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(lambda queue: queue.close())

    @property
    def settings(self) -> Settings:
        """What it goes by."""
        return self._queue().settings

    @property
    def defaults(self) -> JobOptions:
        """The options of jobs that say nothing themselves."""
        return self._queue().defaults

    def check(self, name: str, data: Any = None, **fields: Unpack[OptionFields]) -> None:
        """Raise what `add` would raise of a job that does not fit; send nothing.

        Raises:
            InvalidInput, PayloadTooLarge: It does not fit.
        """
        self._queue()._encode(name, data, None, fields)

    def _queue(self) -> queues.Queue:
        if self._pid != os.getpid():
            with background.lock:
                if self._pid != os.getpid():
                    background.keep(self._made)
                    self._made, self._pid = self._make(), os.getpid()
                    background.look_after(self._made)
        return self._made

    def _run(self, call: Callable[[queues.Queue], Coroutine[Any, Any, T]]) -> T:
        queue = self._queue()
        return background.run(lambda: call(queue))

    def _iterate(self, begin: Callable[[queues.Queue], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        found = begin(self._queue())
        background.look_after_reader(found)
        try:
            while True:
                try:
                    yield background.run(lambda: _next(found))
                except StopAsyncIteration:
                    return
        finally:
            if not background.ended:
                background.run(found.aclose)


class JobFacade:
    """The handle of a job: which one it is, and its queue."""

    __slots__ = ("_facade", "id", "is_new", "name")

    def __init__(self, queue: QueueFacade, job: jobs.Job) -> None:
        self._facade, self.id, self.name, self.is_new = queue, job.id, job.name, job.is_new

    def __repr__(self) -> str:
        return f"<Job {self.queue}/{self.id} {self.name}>"

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._facade._queue().name

    def _run(self, call: Callable[[jobs.Job], Coroutine[Any, Any, T]]) -> T:
        return self._facade._run(lambda queue: call(jobs.Job(queue, self.id, self.name, is_new=self.is_new)))


class Watch:
    """A handler that is being told of new dead letters, until `stop` or the queue's `close`."""

    def __init__(self, watch: AsyncWatch) -> None:
        self._watch = watch

    def stop(self) -> None:
        """End it; a handler that is running is let go on."""
        background.run(self._watch.stop)


def in_thread(handler: Callable[[DeadLetter], Any]) -> Callable[[DeadLetter], Awaitable[None]]:
    """Return a handler that is called in a thread, so that it may block."""

    async def call(letter: DeadLetter) -> None:
        await asyncio.to_thread(handler, letter)

    return call


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)
