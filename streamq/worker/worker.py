"""A worker: runs the jobs of one queue.

Its life: `run` starts the lease thread and the ticker and returns after `stop`, when everything has been settled or
handed back. A second `stop` with no grace hurries the first one along.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from streamq._engine import keys
from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.wire import Wire
from streamq.errors import InvalidInput, StoreError
from streamq.job import queue_name
from streamq.middleware import Middleware, checked
from streamq.observer import NOBODY, ErrorHandler, Observer, careful
from streamq.payload import PLAIN, Codec
from streamq.policy import RateLimit, whole
from streamq.processor import Processors, as_processors
from streamq.settings import Settings
from streamq.worker.forwarder import Forwarder
from streamq.worker.lease import LeaseThread
from streamq.worker.runner import Runner
from streamq.worker.scheduler import Scheduler
from streamq.worker.supervisor import supervise
from streamq.worker.ticker import Ticker

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

log = logging.getLogger("streamq.worker")


class Worker:
    """Runs the jobs of `queue` with `processors`: a registry, a mapping of names to functions, or one function for all.

    `concurrency` is how many jobs run at once. With `dead_letter_queue`, jobs that fail for good are also added to that
    queue (on the same server), with headers that say where from and why. `on_error` is told of trouble that is no job's
    (Redis is away, a loop of the worker's own failed); it is logged all the same, and the worker goes on. `middleware`
    is entered around each run, inside that of the processors; `codec` comes before theirs. Belongs to one event loop;
    use `await worker.run()`, or `async with worker:` to have it run beside your code.
    """

    def __init__(
        self,
        queue: str,
        processors: Processors | Mapping[str, Callable[..., Any]] | Callable[..., Any],
        *,
        redis: str | Redis | RedisCluster | None = None,
        concurrency: int | None = None,
        limiter: RateLimit | None = None,
        dead_letter_queue: str | None = None,
        settings: Settings | None = None,
        observer: Observer = NOBODY,
        on_error: ErrorHandler | None = None,
        middleware: Sequence[Middleware] = (),
        codec: Codec | None = None,
    ) -> None:
        settings = settings or Settings.from_env()
        if concurrency is not None:
            settings = msgspec.structs.replace(
                settings, concurrency=whole("concurrency", concurrency, low=1, high=10_000)
            )
        if limiter is not None and not isinstance(limiter, RateLimit):
            raise InvalidInput(f"limiter must be a RateLimit, not {limiter!r}")
        self.settings, self.limiter = settings, limiter
        self.processors = as_processors(processors)
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        target = settings.redis_url if redis is None else redis
        base = keys.base(queue)
        self._endpoint = Endpoint(target, settings.timeout, base)
        self._wire, self._parked_wire = Wire(self._endpoint), Wire(self._endpoint)
        self._store = Store(queue, self._wire, settings, observer)
        self._store.on_error = careful(on_error)
        self._store.codec = codec or self.processors.codec or PLAIN
        self._middleware = (*self.processors.middleware, *checked(middleware))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lease = LeaseThread(
            self.queue, self.id, lambda: Endpoint(target, settings.timeout, base), settings, self._interrupt
        )
        self._ticker = Ticker(self._store, self._parked_wire, self._make_runner, settings, self.id, limiter)
        dead = settings.dead_letter_queue if dead_letter_queue is None else dead_letter_queue
        if dead is not None and queue_name(dead) == self.queue:
            raise InvalidInput(f"the dead-letter queue of {self.queue} must be another queue")
        if dead is not None:
            self._store.check_reach([dead], "a queue with its dead-letter queue")
        self._forwarder = None if dead is None else Forwarder(self._store, lambda: Wire(self._endpoint), dead)
        self._scheduler = Scheduler(self._store, self._ticker.look_in)
        self._ticker.hand_schedules = self._scheduler.hand
        self._grace = settings.grace
        self._beat = min(settings.lease / 4, 1.0)
        self._loop_lag = 0.0
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ran = False

    def __repr__(self) -> str:
        return f"<Worker {self.id} on {self.queue}>"

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._store.queue

    @property
    def running(self) -> int:
        """How many jobs it holds now."""
        return self._ticker.running

    @property
    def ended(self) -> int:
        """How many attempts have ended here."""
        return self._ticker.ended

    @property
    def concurrency(self) -> int:
        """How many jobs it runs at once; a batch counts as one."""
        return self.settings.concurrency

    @property
    def lease_age(self) -> float:
        """Seconds since the lease was renewed."""
        return time.monotonic() - self._lease.renewed_at

    @property
    def connects(self) -> int:
        """How many connections it has opened so far."""
        return self._wire.connects + self._parked_wire.connects

    @property
    def loop_lag(self) -> float:
        """Seconds by which the event loop was late at its last beat, or is now. May be asked from any thread."""
        return max(self._loop_lag, self._lease.beaten_ago - self._beat, 0.0)

    @property
    def alive(self) -> bool:
        """Whether its event loop turns: it has shown so within the last lease. May be asked from any thread."""
        return self._lease.beaten_ago < self.settings.lease

    @property
    def stale_outcomes(self) -> int:
        """How many outcomes came after their lease had moved on, and were dropped."""
        return self._ticker.stale_outcomes

    @property
    def healthy(self) -> bool:
        """Whether a tick succeeded within the last lease."""
        at = self._ticker.last_tick_at
        return at is not None and time.monotonic() - at < self.settings.lease

    def _make_runner(self, ticker: Ticker) -> Runner:
        self._runner = Runner(self._store, self.processors, self.settings, ticker.finished, self._middleware)
        return self._runner

    async def run(self) -> None:
        """Run jobs until `stop` is called; waits through any outage of Redis.

        Raises:
            StoreError: It was stopped while Redis was away: what it held is requeued when its lease lapses.
        """
        if self._ran:
            raise InvalidInput("a worker runs once; make a new one")
        self._ran = True
        log.info("worker %s runs queue %s, %d at once", self.id, self.queue, self.settings.concurrency)
        self._loop = asyncio.get_running_loop()
        self._lease.start()
        beats = asyncio.create_task(self._show_that_the_loop_turns(), name="streamq-beat")
        on_error = self._store.on_error
        ticking = asyncio.create_task(
            supervise(f"the ticker of queue {self.queue}", self._tick, on_error),
            name="streamq-ticker",
        )
        firing = asyncio.create_task(
            supervise(f"the scheduler of queue {self.queue}", self._scheduler.run, on_error),
            name="streamq-scheduler",
        )
        roles = [ticking, firing, beats]
        if self._forwarder is not None:
            forwarding = supervise(f"the forwarder of queue {self.queue}", self._forwarder.run, on_error)
            roles.append(asyncio.create_task(forwarding, name="streamq-forwarder"))
        try:
            try:
                await self._stop.wait()
                self._ticker.quit()
                await ticking
            except asyncio.CancelledError:
                self._hurry.set()
                ticking.cancel()
                await asyncio.wait((ticking,))
                await self._ticker.stop(0, self._hurry)
                raise
            await self._ticker.stop(self._grace, self._hurry)
            with contextlib.suppress(StoreError):
                await self._store.wake()  # this worker may have been the only one to know when something is due
        finally:
            for task in roles:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            self._lease.stop()
            self._runner.close()
            await asyncio.gather(self._wire.close(), self._parked_wire.close())
            log.info("worker %s has stopped", self.id)

    async def _tick(self) -> None:
        """Tick from the moment on at which no dead letter is missed, or the worker is to stop."""
        if self._forwarder is not None and not self._forwarder.begun.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._forwarder.begun, self._stop)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        await self._ticker.run()

    async def ready(self) -> None:
        """Wait until its first tick has succeeded."""
        await self._ticker.first_tick.wait()

    async def stop(self, grace: float | None = None) -> None:
        """Stop: claim nothing more, let jobs finish for `grace` seconds, hand the rest back without using an attempt.

        Returns when the worker has stopped, if it runs in a task of this loop through `async with`; else at once.
        A second call with `grace=0` hands everything back now.
        """
        if grace is not None:
            self._grace = grace
        if self._stop.is_set() or grace == 0:
            self._hurry.set()
        self._stop.set()
        if self._task is not None and self._task is not asyncio.current_task():
            await asyncio.wait((self._task,))

    def flush_batches(self) -> None:
        """Have the jobs that are gathered for batches run now, or with the next free slots: no more are waited for."""
        self._runner.gathering.flush()

    def _interrupt(self, asked: Mapping[str, str]) -> None:
        """Pass on, from the lease's thread, which jobs are to be interrupted."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._ticker.interrupt, asked)

    async def _show_that_the_loop_turns(self) -> None:
        while True:
            self._lease.beat()
            due = time.monotonic() + self._beat
            await asyncio.sleep(self._beat)
            self._loop_lag = time.monotonic() - due

    async def __aenter__(self) -> Worker:
        self._task = asyncio.create_task(self.run(), name=f"streamq-worker-{self.queue}")
        ready = asyncio.create_task(self._ticker.first_tick.wait())
        await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if self._task is not None:
            try:
                self._task.result()
            except StoreError:
                if kind is None:
                    raise
