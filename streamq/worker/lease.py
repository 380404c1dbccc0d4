"""Keep a worker's lease alive from a thread of its own.

A handler that blocks the event loop must not lose its jobs, so the renewal has its own thread, loop and connection.
It also looks at the worker's loop from outside, and says so in the log when that has stood still. It never brings a
lost lease back: the worker's next tick does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.wire import Wire
from streamq.errors import StoreError
from streamq.settings import Settings

log = logging.getLogger("streamq.worker")

BEATS_PER_LEASE = 3


class LeaseThread:
    """Renews a lease from `start` to `stop`. `beat` is called by the worker's loop to show that it turns."""

    def __init__(self, queue: str, worker: str, connect: Callable[[], Endpoint], settings: Settings) -> None:
        self._queue, self._worker, self._connect, self._settings = queue, worker, connect, settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"streamq-lease-{queue}", daemon=True)
        self._last_beat = time.monotonic()
        self._warned = False
        self.renewed_at = time.monotonic()
        """When the lease was last known to be good (monotonic seconds)."""

    def start(self) -> None:
        """Start renewing."""
        self._thread.start()

    def stop(self) -> None:
        """Stop renewing; returns at once, the thread ends within a beat."""
        self._stopping.set()

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
        lease = self._settings.lease
        wire = Wire(self._connect())
        store = Store(self._queue, wire, self._settings)
        try:
            while not self._stopping.is_set():
                pause = lease / BEATS_PER_LEASE
                try:
                    if not await store.renew(self._worker, round(lease * 1000)):
                        log.debug("worker %s has no lease (yet, or any more)", self._worker)
                    self.renewed_at = time.monotonic()
                except StoreError as error:
                    log.warning("the lease of worker %s could not be renewed: %s", self._worker, error)
                    pause = lease / BEATS_PER_LEASE / 5
                except Exception:
                    log.exception("renewing the lease of worker %s failed; going on", self._worker)
                self._look_at_the_loop()
                end = time.monotonic() + pause
                while not self._stopping.is_set() and (left := end - time.monotonic()) > 0:
                    await asyncio.to_thread(self._stopping.wait, left)
        finally:
            await wire.close()

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
