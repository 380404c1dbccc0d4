"""Keep a worker's lease alive from a thread of its own.

A handler that blocks the event loop must not lose its jobs, so the renewal has its own thread and loop, and a
connection for each shard. Between two renewals that waits for word that a job is to be interrupted, which a renewal
then tells. The thread also looks at the worker's loop from outside, and says so in the log when that has stood still.
It never brings a lost lease back: the worker's next tick does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.wire import Wire
from streamq.errors import StoreError
from streamq.settings import Settings

log = logging.getLogger("streamq.worker")

BEATS_PER_LEASE = 3
LATE = 0.1
"""Seconds by which Redis may be late in ending a wait."""


class LeaseThread:
    """Renews a lease from `start` to `stop`. `beat` is called by the worker's loop to show that it turns.

    Where the queue has shards (else None is the only one), the lease is kept at each of them. `cancelled` is told, in
    this thread, at which one jobs are to be interrupted: their entries, and why. It is told so again with every renewal
    until they have ended.
    """

    def __init__(
        self,
        queue: str,
        worker: str,
        connect: Callable[[int | None], Endpoint],
        settings: Settings,
        cancelled: Callable[[int | None, Mapping[str, str]], None],
    ) -> None:
        self._queue, self._worker, self._connect, self._settings = queue, worker, connect, settings
        self._cancelled = cancelled
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name=f"streamq-lease-{queue}", daemon=True)
        self._last_beat = time.monotonic()
        self._warned = False
        self._renewed_at: dict[int | None, float] = {None: time.monotonic()}

    @property
    def renewed_at(self) -> float:
        """When the lease was last known to be good, at all shards (monotonic seconds)."""
        return min(self._renewed_at.values())

    def start(self, shards: Sequence[int | None] = (None,)) -> None:
        """Start renewing."""
        self._renewed_at = dict.fromkeys(shards, time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; returns at once, the thread ends within a beat."""
        self._stopping.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._stopped.set)

    def beat(self) -> None:
        """Note that the worker's loop turns."""
        self._last_beat = time.monotonic()

    @property
    def beaten_ago(self) -> float:
        """Seconds since the worker's loop has shown that it turns."""
        return time.monotonic() - self._last_beat

    def _main(self) -> None:
        try:
            asyncio.run(self._renew_for_ever())
        except Exception:
            log.exception(
                "the lease thread of queue %s ended; jobs of this worker may be started elsewhere", self._queue
            )

    async def _renew_for_ever(self) -> None:
        self._loop = asyncio.get_running_loop()
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.gather(*(self._keep(shard, stopped) for shard in self._renewed_at))
        finally:
            stopped.cancel()

    async def _keep(self, shard: int | None, stopped: asyncio.Task[Any]) -> None:
        """Renew the lease at one shard, until this stops."""
        beat = self._settings.lease / BEATS_PER_LEASE
        wire = Wire(self._connect(shard))
        store = Store(self._queue, wire, self._settings, shard=shard)
        block = 0.0
        try:
            while not self._stopping.is_set():
                renewing = asyncio.create_task(self._renew(store, block))
                await asyncio.wait((renewing, stopped), return_when=asyncio.FIRST_COMPLETED)
                if not renewing.done():
                    renewing.cancel()
                    break
                block = max(beat - LATE, beat / 2) if renewing.result() else 0.0
                if not shard:
                    self._look_at_the_loop()
                if not block:
                    await asyncio.wait((stopped,), timeout=beat / 5)
        finally:
            await wire.close()

    async def _renew(self, store: Store, block: float) -> bool:
        """Renew the lease after `block` seconds, or once a job is to be interrupted; False if that failed."""
        try:
            renewal = await store.renew(self._worker, round(self._settings.lease * 1000), block=block)
        except StoreError as error:
            log.warning("the lease of worker %s could not be renewed: %s", self._worker, error)
            return False
        except Exception:
            log.exception("renewing the lease of worker %s failed; going on", self._worker)
            return False
        self._renewed_at[store.shard] = time.monotonic()
        if not renewal.holds:
            log.debug("worker %s has no lease (yet, or any more)", self._worker)
        if renewal.cancels:
            self._cancelled(store.shard, renewal.cancels)
        return True

    def _look_at_the_loop(self) -> None:
        still = time.monotonic() - self._last_beat
        if still > self._settings.lease and not self._warned:
            self._warned = True
            log.warning(
                "the event loop has stood still for %.1f s: a processor of queue %s blocks it; "
                "make it a plain function, so that it runs in a thread", still, self._queue,
            )  # fmt: skip
        elif still <= self._settings.lease:
            self._warned = False
