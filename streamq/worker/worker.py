"""A worker: runs the jobs of one queue.

Its life: `run` starts the lease thread and a part for each shard, and returns after `stop`, when everything has been
settled or handed back. A second `stop` with no grace hurries the first one along.
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
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from streamq._engine import codec as payloads
from streamq._engine import keys
from streamq._engine.endpoint import Endpoint
from streamq._engine.shards import read_number, register
from streamq._engine.store import Store
from streamq._engine.wire import Wire
from streamq.errors import InvalidInput, StoreError, StoreRefused, WrongShards
from streamq.job import queue_name
from streamq.middleware import Middleware, checked
from streamq.observer import NOBODY, ErrorHandler, Observer, careful
from streamq.payload import PLAIN, Codec
from streamq.policy import RateLimit, whole
from streamq.processor import Processors, as_processors
from streamq.queue import Shards
from streamq.settings import Settings
from streamq.sharding.queue import check_shards
from streamq.sharding.shares import rate_shares, settings_share
from streamq.worker.lease import LeaseThread
from streamq.worker.part import Part
from streamq.worker.pauses import Pauses
from streamq.worker.pool import ProcessPool
from streamq.worker.sharing import Slots
from streamq.worker.threads import Threads
from streamq.worker.ticker import FIRST_PAUSE, LONGEST_PAUSE

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
        shards: Shards = None,
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
        _check_data(self.processors, queue_name(queue))
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        target = settings.redis_url if redis is None else redis
        self._target = target
        self._observer, self._on_error = observer, careful(on_error)
        self._codec = codec or self.processors.codec or PLAIN
        self._middleware = (*self.processors.middleware, *checked(middleware))
        dead = settings.dead_letter_queue if dead_letter_queue is None else dead_letter_queue
        if dead is not None and queue_name(dead) == queue_name(queue):
            raise InvalidInput(f"the dead-letter queue of {queue} must be another queue")
        self._dead = dead
        self._queue, self._number = queue_name(queue), None if shards is None else check_shards(shards)
        self._slots = None if shards is None else Slots(settings.concurrency)
        self._pools = Threads(settings.concurrency, settings.threads), ProcessPool()
        self._wire = Wire(self._connect(0))
        self._limiters = rate_shares(limiter, self._number or 1)
        self._parts: list[Part] = []
        self._begun = asyncio.Event()
        """Set once it is known at how many shards this works."""
        if shards != "stored":
            self._make_parts(self._number or 1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lease = LeaseThread(self.queue, self.id, self._connect, settings, self._interrupt)
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
        return self._queue

    @property
    def running(self) -> int:
        """How many jobs it holds now."""
        return sum(part.ticker.running for part in self._parts)

    @property
    def ended(self) -> int:
        """How many attempts have ended here."""
        return sum(part.ticker.ended for part in self._parts)

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
        wires = {part.store.wire for part in self._parts} | {part.parked_wire for part in self._parts}
        return sum(wire.connects for wire in wires)

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
        return sum(part.ticker.stale_outcomes for part in self._parts)

    @property
    def healthy(self) -> bool:
        """Whether a tick succeeded within the last lease, at every shard."""
        ticks = [part.ticker.last_tick_at for part in self._parts]
        return bool(ticks) and all(at is not None and time.monotonic() - at < self.settings.lease for at in ticks)

    def _connect(self, shard: int | None) -> Endpoint:
        return Endpoint(self._target, self.settings.timeout, keys.base(self._queue, shard or 0))

    def _make_parts(self, number: int) -> None:
        """Make what works at each shard, up to so many; at the queue itself, if it has none."""
        settings = self.settings if number == 1 else settings_share(self.settings, number)
        for at in range(len(self._parts), number):
            shard = None if self._slots is None or number == 1 else at
            endpoint = self._connect(shard)
            wire = Wire(endpoint) if endpoint.in_cluster and at else self._wire
            store = Store(self._queue, wire, settings, self._observer, shard)
            if self._dead is not None:
                store.check_reach([self._dead], "a queue with its dead-letter queue")
            store.on_error, store.codec = self._on_error, self._codec
            self._parts.append(
                Part(
                    store, partial(Wire, endpoint), self.processors, settings, self.id,
                    middleware=self._middleware, limiter=self._limiters[at], dead_letter_queue=self._dead,
                    slots=self._slots if number > 1 else None, pools=self._pools,
                )
            )  # fmt: skip
            self._parts[-1].runner.verdicts.shards = number

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
        looking: asyncio.Task[None] | None = None
        if self._slots is not None:
            try:
                await self._agree_on_shards()
            except BaseException:
                await asyncio.gather(self._wire.close(), *(part.close() for part in self._parts))
                raise
        else:
            looking = asyncio.create_task(self._refuse_shards(), name="streamq-shards")
        self._begun.set()
        self._lease.start([part.store.shard for part in self._parts])
        beats = asyncio.create_task(self._show_that_the_loop_turns(), name="streamq-beat")
        for part in self._parts:
            part.start()
        try:
            try:
                await self._stop.wait()
                await asyncio.gather(*(part.quit() for part in self._parts))
            except asyncio.CancelledError:
                self._hurry.set()
                await asyncio.gather(*(part.break_off(self._hurry) for part in self._parts))
                raise
            ends = await asyncio.gather(
                *(part.settle(self._grace, self._hurry) for part in self._parts), return_exceptions=True
            )
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
            if looking is not None and looking.done() and not looking.cancelled():
                looking.result()
        finally:
            for part in self._parts:
                await part.end()
            for task in (beats, looking):
                if task is not None:
                    task.cancel()
                    await asyncio.wait((task,))
            self._lease.stop()
            await asyncio.gather(*(part.close() for part in self._parts))
            log.info("worker %s has stopped", self.id)

    async def _refuse_shards(self) -> None:
        """Stop this worker, which knows of no shards, if the queue has some: it would leave all but one alone.

        Raises:
            WrongShards: It has.
        """
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                number = await read_number(self._parts[0].store)
                break
            except StoreRefused:
                return  # a user who may not ask
            except StoreError:  # which the ticker tells of
                await asyncio.sleep(pauses.failed())
        if number is not None and number > 1:
            self._stop.set()
            raise WrongShards(self.queue, number, 1)

    async def _agree_on_shards(self) -> None:
        """Wait until Redis says how many shards there are.

        Raises:
            WrongShards: Not so many.
        """
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while not self._stop.is_set():
            try:
                if self._number is None:
                    number = await read_number(Store(self._queue, self._wire, self.settings)) or 1
                    self._limiters = rate_shares(self.limiter, number)
                    self._make_parts(number)
                else:
                    await register([part.store for part in self._parts])
                return
            except StoreError as error:
                pause = pauses.failed()
                log.warning("queue %s: Redis is away, again in %.2f s: %s", self.queue, pause, error)
                self._on_error(error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)

    async def ready(self) -> None:
        """Wait until its first tick has succeeded, at every shard."""
        await self._begun.wait()
        for part in self._parts:
            await part.ticker.first_tick.wait()

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
        for part in self._parts:
            part.runner.gathering.flush()

    def _interrupt(self, shard: int | None, asked: Mapping[str, str]) -> None:
        """Pass on, from the lease's thread, which jobs are to be interrupted."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._parts[shard or 0].ticker.interrupt, asked)

    async def _show_that_the_loop_turns(self) -> None:
        while True:
            self._lease.beat()
            due = time.monotonic() + self._beat
            await asyncio.sleep(self._beat)
            self._loop_lag = time.monotonic() - due

    async def __aenter__(self) -> Worker:
        self._task = asyncio.create_task(self.run(), name=f"streamq-worker-{self.queue}")
        ready = asyncio.create_task(self.ready())
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


def _check_data(processors: Processors, queue: str) -> None:
    """Make sure that data can be decoded to the types that processors of this queue have registered.

    It is looked at here and not when they register, as a type may name others that are defined further down.
    """
    for processor in processors:
        if processor.queue in (None, queue):
            try:
                payloads.typed_decoder(processor.data)
            except Exception as error:
                raise InvalidInput(
                    f"processor {processor.name!r}: no data can be decoded to its type: {error}"
                ) from error
