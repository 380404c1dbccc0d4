"""The event loop behind `streamq.sync`: one for each process, in a thread of its own, started by the first call.

Its life:
1. A thread that calls puts its call on the list and wakes the loop, if nobody has since it last looked. The loop takes
   all that is on the list, so calls of many threads run side by side, and their adds go out together.
2. A process that was forked off starts a loop of its own with its first call. Of its parent's it touches nothing: the
   sockets and the selector are shared with the parent, and only keeping them as they are leaves the parent alone.
3. When the interpreter ends, the queues are closed, what still runs is cancelled, and the thread ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from streamq.errors import InvalidInput, StoreUnavailable
from streamq.queue import Queue

# Here, and not with the first call: a process that is forked while a thread imports can't import that any more.
try:
    import uvloop
except ImportError:
    new_event_loop = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

T = TypeVar("T")

END_WITHIN = 5.0
"""Seconds that the end of the interpreter waits for the queues to close."""


class _Call(Generic[T]):
    """A call that a thread waits for."""

    __slots__ = ("_abandoned", "_done", "context", "error", "loop", "make", "result", "task")

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], loop: asyncio.AbstractEventLoop) -> None:
        self.make, self.loop = make, loop
        self.context = contextvars.copy_context()
        self.task: asyncio.Task[T] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self._abandoned = False
        self._done = threading.Lock()
        self._done.acquire()

    def start(self) -> None:
        """Runs on the loop."""
        if self._abandoned:
            return
        self.task = self.loop.create_task(self.make(), context=self.context)
        self.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        if background.ended:
            return  # only daemon threads are left: they wait until they end with the interpreter, as they would anyway
        if task.cancelled():
            self.error = StoreUnavailable("the queue was closed before the call ended")
        elif (error := task.exception()) is not None:
            self.error = error
        else:
            self.result = task.result()
        self._done.release()

    def wait(self) -> T:
        try:
            self._done.acquire()
        except BaseException:  # Ctrl-C, say: nobody waits for it any more
            self.loop.call_soon_threadsafe(self._give_up)
            raise
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]

    def _give_up(self) -> None:
        self._abandoned = True
        if self.task is not None:
            self.task.cancel()


class Background:
    """Runs coroutines for threads that wait for them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._pid = os.getpid()
        self.ended = False
        """Whether the interpreter ends."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: deque[_Call[Any]] = deque()
        self._woken = False
        self._queues: WeakSet[Queue] = WeakSet()
        self._readers: WeakSet[AsyncGenerator[Any, None]] = WeakSet()
        self._registered = False
        self._of_parents: list[object] = []
        """What a parent process left here; kept, since ending it would reach into the parent's selector."""
        if hasattr(os, "register_at_fork"):
            # No fork while a loop is being started, or a queue made.
            os.register_at_fork(
                before=lambda: self.lock.acquire(),
                after_in_parent=lambda: self.lock.release(),
                after_in_child=self._forget,
            )

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run what `make` returns on the loop and return its result; blocks this thread alone.

        Raises:
            InvalidInput: This thread runs an event loop, which a wait would stop.
            StoreUnavailable: The process ends.
        """
        if asyncio._get_running_loop() is not None:
            raise InvalidInput(
                "streamq.sync blocks, and this thread runs an event loop: use streamq.Queue and await its calls, or "
                "call this in a thread (asyncio.to_thread)"
            )
        if self._pid != os.getpid():
            self._forget()  # forked by what calls no handlers
        loop = self._loop or self._start()
        call = _Call(make, loop)
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._start_calls)
            except RuntimeError:
                raise StoreUnavailable("streamq.sync is closed: the process ends") from None
        return call.wait()

    def look_after(self, queue: Queue) -> None:
        """Close this queue when the interpreter ends, if nobody has by then."""
        with self.lock:
            self._queues.add(queue)

    def look_after_reader(self, items: AsyncGenerator[Any, None]) -> None:
        """End this when the interpreter ends, if nobody has by then."""
        with self.lock:
            self._readers.add(items)

    def keep(self, of_a_parent: object) -> None:
        """Never let go of what a parent process left."""
        self._of_parents.append(of_a_parent)

    def _start_calls(self) -> None:
        self._woken = False
        while self._calls:
            self._calls.popleft().start()

    def _start(self) -> asyncio.AbstractEventLoop:
        with self.lock:
            if self._loop is not None:
                return self._loop
            if self.ended:
                raise StoreUnavailable("streamq.sync is closed: the process ends")
            if not self._registered:
                self._registered = True
                atexit.register(self.close)
            loop = new_event_loop()
            started = threading.Event()
            loop.call_soon(started.set)
            self._thread = threading.Thread(target=loop.run_forever, name="streamq-sync", daemon=True)
            self._thread.start()
            started.wait()
            self._loop = loop
            return loop

    def _forget(self) -> None:
        """Runs in a child process, where none of the parent's threads exist."""
        self._of_parents += [self._loop, self._thread, self._calls, *self._queues, *self._readers]
        self.lock, self._pid, self.ended = threading.RLock(), os.getpid(), False
        self._loop = self._thread = None
        self._calls, self._woken, self._queues, self._readers = deque(), False, WeakSet(), WeakSet()

    def close(self) -> None:
        """Close the queues and end the thread, for good; the interpreter's end does this."""
        with self.lock:
            self.ended = True
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            queues, readers = list(self._queues), list(self._readers)
        if loop is None or thread is None:
            return
        ending = asyncio.run_coroutine_threadsafe(_end(queues, readers), loop)
        with contextlib.suppress(TimeoutError):
            ending.result(END_WITHIN)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(END_WITHIN)
        if not thread.is_alive():
            loop.close()


async def _end(queues: list[Queue], readers: list[AsyncGenerator[Any, None]]) -> None:
    await asyncio.gather(*(queue.close() for queue in queues), return_exceptions=True)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for items in readers:  # one after the other, since each ends what it reads from
        with contextlib.suppress(Exception):
            await items.aclose()
    await asyncio.get_running_loop().shutdown_asyncgens()


background = Background()
"""The process's own. Nothing runs before the first call."""
