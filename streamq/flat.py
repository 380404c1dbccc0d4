"""The flat style: one function per thing to do, over the same objects.

    await add_job("reports", "generate-monthly-report", {"month": 11}, priority=Priority.HIGH)
    worker = create_worker("reports", processors, concurrency=5)
    ...
    await close_all_queues()

There is one `Queue` for each name and event loop, made at its first use from the environment (see `settings`). A
queue is given by its name or as a `Queue`. Nothing is made at import.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Unpack
from weakref import WeakKeyDictionary

from streamq.errors import InvalidInput
from streamq.events import Event
from streamq.job import Job, JobSnapshot, JobState, queue_name
from streamq.observer import ErrorHandler
from streamq.policy import RateLimit, Seconds
from streamq.processor import Processors
from streamq.queue import OptionFields, Queue, QueueStats, Shards
from streamq.task import Task
from streamq.worker import Worker

log = logging.getLogger("streamq.queue")

EventHandler = Callable[[Event], Awaitable[None] | None]


class QueueEvents:
    """A queue's events, told to handlers: `events.on("completed", handler)`, or `async for event in events`.

    Begins with the first handler (`wait_until_ready`: from here on none is missed) or loop, and ends with `close` or
    `close_all_queues`. Handlers, async or plain, are called one at a time, in order; one that raises is logged, and the
    next event comes all the same.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._handlers: dict[str, list[EventHandler]] = {}
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    def on(self, kind: str, handler: EventHandler) -> None:
        """Call `handler` with each event of this kind (see `Event`); `*` is every kind."""
        self._handlers.setdefault(kind, []).append(handler)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._tell(), name=f"streamq-events-{self._queue.name}")

    async def wait_until_ready(self) -> None:
        """Wait until the handlers are told of whatever happens from now on; waits through outages of Redis."""
        await self._ready.wait()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._queue.events()

    async def _tell(self) -> None:
        async for event in self._queue._events_from(self._ready):
            for handler in (*self._handlers.get(event.kind, ()), *self._handlers.get("*", ())):
                try:
                    answer = handler(event)
                    if inspect.isawaitable(answer):
                        await answer
                except Exception as error:
                    log.exception("a handler of the event %s failed", event.kind)
                    self._queue._store.on_error(error)

    async def close(self) -> None:
        """Stop telling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class _OfLoop:
    """What the functions have made on one event loop."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.workers: dict[Worker, asyncio.Task[None]] = {}
        self.events: list[QueueEvents] = []


_made: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()


def _here() -> _OfLoop:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise InvalidInput("call this inside a running event loop; plain code has streamq.sync") from None
    return _made.setdefault(loop, _OfLoop())


def get_queue(name: str, shards: Shards = None) -> Queue:
    """Return the queue of this name and of the running event loop, made at the first call, which says its shards.

    Raises:
        InvalidInput: The name or the environment makes no sense, or no event loop is running.
    """
    queues = _here().queues
    key = queue_name(name)
    if key not in queues:
        queues[key] = Queue(key, shards=shards)
    return queues[key]


Task.find_queue = get_queue


def _queue(queue: str | Queue) -> Queue:
    return queue if isinstance(queue, Queue) else get_queue(queue)


async def add_job(
    queue: str | Queue, name: str, data: Any = None, *, durable: bool = False, **options: Unpack[OptionFields]
) -> Job:
    """Add a job; see `Queue.add`."""
    return await _queue(queue).add(name, data, durable=durable, **options)


def create_worker(
    queue: str | Queue,
    processors: Processors | Mapping[str, Callable[..., Any]] | Callable[..., Any],
    *,
    concurrency: int | None = None,
    limiter: RateLimit | None = None,
    on_error: ErrorHandler | None = None,
) -> Worker:
    """Make a worker and start it on the running event loop; it runs until its `stop`, or `close_all_queues`.

    Its shards are those of the queue that is given, or that `get_queue` has made. `on_error` is told of trouble that is
    no job's, as by `Worker`. (Of a queue: `get_queue(name).on_error = …`.)

    Raises:
        InvalidInput: A value makes no sense, or no event loop is running.
    """
    here = _here()
    name = queue.name if isinstance(queue, Queue) else queue_name(queue)
    known = queue if isinstance(queue, Queue) else here.queues.get(name)
    shards = None if known is None else known.shards
    worker = Worker(name, processors, shards=shards, concurrency=concurrency, limiter=limiter, on_error=on_error)
    here.workers[worker] = asyncio.get_running_loop().create_task(worker.run(), name=f"streamq-worker-{name}")
    return worker


def create_queue_events(queue: str | Queue) -> QueueEvents:
    """Return the queue's events, for handlers and loops."""
    here = _here()
    events = QueueEvents(_queue(queue))
    here.events.append(events)
    return events


async def get_queue_stats(queue: str | Queue) -> QueueStats:
    """Count the queue's jobs; see `Queue.stats`."""
    return await _queue(queue).stats()


async def get_job(queue: str | Queue, job_id: str) -> JobSnapshot | None:
    """Read a job; None if it is unknown."""
    return await _queue(queue).get_job(job_id)


async def remove_job(queue: str | Queue, job_id: str, *, force: bool = False) -> bool:
    """Remove a job; see `Queue.remove`."""
    return await _queue(queue).remove(job_id, force=force)


async def retry_job(queue: str | Queue, job_id: str) -> None:
    """Retry a failed or cancelled job; see `Queue.retry`."""
    await _queue(queue).retry(job_id)


async def cancel_job(queue: str | Queue, job_id: str, reason: str = "") -> bool:
    """Cancel a job; see `Queue.cancel`."""
    return await _queue(queue).cancel(job_id, reason)


async def clean_queue(
    queue: str | Queue, grace: Seconds = 0, limit: int | None = 1_000, state: JobState = JobState.COMPLETED
) -> list[str]:
    """Remove jobs of one state that are older than `grace` seconds; return their ids. See `Queue.clean`."""
    return await _queue(queue).clean(grace, limit, state)


async def pause_queue(queue: str | Queue) -> None:
    """Let no worker start another job."""
    await _queue(queue).pause()


async def resume_queue(queue: str | Queue) -> None:
    """Undo `pause_queue`."""
    await _queue(queue).resume()


async def close_all_queues(grace: float | None = None) -> None:
    """Stop the workers, end the events and close the queues that these functions have made on this event loop.

    Workers let their jobs finish for `grace` seconds (default: `STREAMQ_GRACE`) and hand the rest back. All is closed
    when this returns or raises; the functions can be used again.

    Raises:
        StoreError: Redis was away when a worker stopped: what it held is requeued when its lease lapses.
    """
    here = _made.pop(asyncio.get_running_loop(), None)
    if here is None:
        return
    await asyncio.gather(*(worker.stop(grace) for worker in here.workers))
    ends = await asyncio.gather(*here.workers.values(), return_exceptions=True)
    await asyncio.gather(*(events.close() for events in here.events))
    await asyncio.gather(*(queue.close() for queue in here.queues.values()))
    for end in ends:
        if isinstance(end, BaseException):
            raise end
