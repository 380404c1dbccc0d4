"""Fire the schedules that the ticks of this worker found due.

A tick hands over their ids, each to one worker for a second. This role reads them, computes their slots (the scripts
can't read cron) and calls `fire`, which does nothing if another worker was faster. It never holds up a tick, and never
decides by a clock of its own: the time comes with what it read. What fails is handed out again, here or elsewhere.
Started by the worker, which supervises it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from streamq import slots
from streamq._engine.scheduling import StoredSchedule
from streamq._engine.store import Store
from streamq.errors import StoreError

log = logging.getLogger("streamq.worker")

_decode = lru_cache(maxsize=1_000)(msgspec.msgpack.Decoder(slots.Spec).decode)


class Scheduler:
    """Fires schedules of one queue. `look_in` is told in how many seconds one that was fired is due again."""

    def __init__(self, store: Store, look_in: Callable[[float], None]) -> None:
        self._store, self._look_in = store, look_in
        self._ids: dict[str, None] = {}
        self._handed = asyncio.Event()

    def hand(self, ids: Sequence[str]) -> None:
        """Take over schedules that are due."""
        self._ids.update(dict.fromkeys(ids))
        self._handed.set()

    async def run(self) -> None:
        """Fire what is handed over, until cancelled."""
        while True:
            await self._handed.wait()
            self._handed.clear()
            ids, self._ids = list(self._ids), {}
            await asyncio.gather(*map(self._look_after, ids))

    async def _look_after(self, schedule_id: str) -> None:
        """Read and fire one schedule; one that fails leaves the others alone."""
        try:
            for seen in await self._store.schedules((schedule_id,)):
                await self.fire(seen)
        except StoreError as error:
            log.warning("schedule %s of queue %s must wait: %s", schedule_id, self._store.queue, error)
            self._store.on_error(error)
        except Exception as error:
            log.exception("schedule %s of queue %s can't be fired here", schedule_id, self._store.queue)
            self._store.on_error(error)

    async def fire(self, seen: StoredSchedule) -> None:
        """Fire what is due of one schedule.

        Raises:
            StoreError: Redis did not answer; if nothing was written, the schedule is handed out again.
        """
        if seen.paused:
            return
        spec = _decode(seen.spec)
        plan = slots.Plan([], None)
        if seen.next_ms is not None:
            plan = slots.plan(spec, seen.anchor_ms, seen.next_ms, seen.now_ms)
        run = [(slot, slot + slots.jitter(seen.id, slot, spec.jitter_ms)) for slot in plan.run]
        done = await self._store.fire(seen, plan.next, run=run, missed=plan.missed, missed_slots=plan.missed_slots)
        if plan.missed:
            log.warning("schedule %s of queue %s missed %d slots", seen.id, self._store.queue, plan.missed)
        if done is not None and done.next_ms is not None:
            self._look_in(done.next_ms / 1000)
