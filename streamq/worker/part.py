"""What a worker does at one queue, or at one shard of it: it ticks, fires schedules and forwards dead letters there.

Its life: `start` begins its roles; `quit` ends its claiming; `settle` waits for its jobs and hands the rest back; `end`
takes down what is left. Started by the worker, which keeps its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from streamq._engine.store import Store
from streamq._engine.wire import Wire
from streamq.errors import StoreError
from streamq.middleware import Middleware
from streamq.policy import RateLimit
from streamq.processor import Processors
from streamq.settings import Settings
from streamq.worker.forwarder import Forwarder
from streamq.worker.pool import ProcessPool
from streamq.worker.runner import Runner
from streamq.worker.scheduler import Scheduler
from streamq.worker.sharing import Slots
from streamq.worker.supervisor import supervise
from streamq.worker.threads import Threads
from streamq.worker.ticker import Ticker


class Part:
    """The worker's roles at one queue or shard. `slots` are shared with other parts; None: all are its own."""

    def __init__(
        self,
        store: Store,
        new_wire: Callable[[], Wire],
        processors: Processors,
        settings: Settings,
        worker: str,
        *,
        middleware: Sequence[Middleware],
        limiter: RateLimit | None,
        dead_letter_queue: str | None,
        slots: Slots | None,
        pools: tuple[Threads, ProcessPool],
    ) -> None:
        self.store, self._settings = store, settings
        self._processors, self._middleware, self._pools = processors, middleware, pools
        self.parked_wire = new_wire()
        self.ticker = Ticker(store, self.parked_wire, self._make_runner, settings, worker, limiter, slots)
        self._forwarder = None if dead_letter_queue is None else Forwarder(store, new_wire, dead_letter_queue)
        self._scheduler = Scheduler(store, self.ticker.look_in)
        self.ticker.hand_schedules = self._scheduler.hand
        self._stop = asyncio.Event()
        self._roles: list[asyncio.Task[None]] = []

    def _make_runner(self, ticker: Ticker) -> Runner:
        self.runner = Runner(
            self.store, self._processors, self._settings, ticker.finished, self._middleware, *self._pools
        )
        return self.runner

    def start(self) -> None:
        """Begin ticking, and what goes on beside it."""
        queue, on_error = self.store.queue, self.store.on_error
        roles = [("ticker", self._tick), ("scheduler", self._scheduler.run)]
        if self._forwarder is not None:
            roles.append(("forwarder", self._forwarder.run))
        self._roles = [
            asyncio.create_task(supervise(f"the {role} of queue {queue}", run, on_error), name=f"streamq-{role}")
            for role, run in roles
        ]

    async def _tick(self) -> None:
        """Tick from the moment on at which no dead letter is missed, or the worker is to stop."""
        if self._forwarder is not None and not self._forwarder.begun.is_set():
            waits = [asyncio.create_task(event.wait()) for event in (self._forwarder.begun, self._stop)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        await self.ticker.run()

    async def quit(self) -> None:
        """Claim nothing more."""
        self._stop.set()
        self.ticker.quit()
        await self._roles[0]

    async def break_off(self, hurry: asyncio.Event) -> None:
        """Hand everything back now, in the middle of whatever it is at."""
        self._roles[0].cancel()
        await asyncio.wait((self._roles[0],))
        await self.ticker.stop(0, hurry)

    async def settle(self, grace: float, hurry: asyncio.Event) -> None:
        """After `quit`: let jobs finish, hand back the rest, sign off.

        Raises:
            StoreError: Redis was away to the end: what is left is requeued when the lease lapses.
        """
        await self.ticker.stop(grace, hurry)
        with contextlib.suppress(StoreError):
            await self.store.wake()  # this worker may have been the only one to know when something is due

    async def end(self) -> None:
        """End all roles."""
        for task in self._roles:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def close(self) -> None:
        """Let go of handlers' threads and processes, and close the connections."""
        self.runner.close()
        await asyncio.gather(self.store.wire.close(), self.parked_wire.close())
