"""The worker's one conversation with its queue.

Its life, turn by turn:
1. What has ended since the last tick is settled by the next one, which also claims as many jobs as there is room for.
2. With nothing to settle and nothing to claim it parks: on a second connection it waits for the queue's wake token, and
   the tick behind it claims in the same breath. The room that the parked tick may fill is reserved meanwhile.
3. While parked it sleeps until something is due (then it wakes a parked worker), or an attempt ends (then it ticks on
   the first connection).
4. After a tick that failed nobody knows whether it ran, so its outcomes are sent again, and the worker asks for all
   that it holds and takes up what it does not know.
5. Jobs that stalled before (suspects) are started one at a time, each marked as started first, so that the one that
   takes workers down is blamed and not those beside it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from streamq._engine.store import UNCHANGED, Store
from streamq._engine.transitions import Claim, Outcome, TickArgs, TickReply
from streamq._engine.wire import Wire
from streamq.errors import StoreError
from streamq.policy import RateLimit
from streamq.settings import Settings
from streamq.worker.runner import Attempt, Runner

log = logging.getLogger("streamq.worker")

LONGEST_PARK = 5.0
"""Seconds that a parked worker waits at the server before it looks again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between ticks that fail: from, up to."""
OUTCOMES_PER_TICK = 500
CLAIMS_PER_TICK = 500


class Ticker:
    """Claims jobs for a runner and settles what it brings back."""

    def __init__(
        self,
        store: Store,
        parked_wire: Wire,
        runner_of: Callable[[Ticker], Runner],
        settings: Settings,
        worker: str,
        limiter: RateLimit | None,
    ) -> None:
        self._store, self._parked_wire, self._settings = store, parked_wire, settings
        self.worker = worker
        self._args = TickArgs(
            worker, round(settings.lease * 1000), settings.max_stalls, settings.events_cap, settings.dead_cap
        )
        self._runner = runner_of(self)
        self._limiter = limiter
        self._mine: dict[str, Attempt] = {}
        self._outcomes: list[Outcome] = []
        self._suspects: deque[Attempt] = deque()
        self._suspect: Attempt | None = None
        self._changed = asyncio.Event()
        self._parked: asyncio.Task[TickReply] | None = None
        self._reserved = 0
        self._hungry = True
        self._list_held = False
        self._due_at: float | None = None
        self._stopping = False
        self.last_tick_at: float | None = None
        """When a tick last succeeded (monotonic seconds); None before the first."""
        self.first_tick = asyncio.Event()
        self.stale_outcomes = 0

    @property
    def running(self) -> int:
        """How many claimed jobs have not ended."""
        return len(self._mine) - len(self._outcomes)

    def finished(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take the outcome of an attempt; the runner calls this once for each."""
        if attempt.ended:
            return
        attempt.ended = True
        if attempt is self._suspect:
            self._suspect = None
        self._outcomes.append(outcome)
        self._changed.set()

    # The turns --------------------------------------------------------------------------------------------------------

    def quit(self) -> None:
        """Make `run` return after the present turn."""
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Claim and settle until `quit`."""
        while self._limiter is not None and not self._stopping:
            try:
                await self._store.limit(self._limiter, UNCHANGED)
                self._limiter = None
            except StoreError as error:
                await self._pause_after(error)
        while not self._stopping:
            await self.turn()

    async def turn(self) -> None:
        """Do the next thing: tick, or wait for a reason to."""
        self._changed.clear()
        want = 0 if self._stopping else min(self._room(), CLAIMS_PER_TICK)
        mark = self._next_suspect()
        if self._outcomes or self._list_held or mark is not None or (want and self._hungry):
            await self._tick(want, mark)
            if self._mine:
                # Lets what was just claimed run: outcomes of short jobs go with the very next tick.
                await asyncio.sleep(0)
            return
        await self._wait(want)

    def _room(self) -> int:
        return self._settings.concurrency - len(self._mine) + len(self._outcomes) - self._reserved

    async def _tick(self, want: int, mark: Attempt | None) -> None:
        outcomes, self._outcomes = self._outcomes[:OUTCOMES_PER_TICK], self._outcomes[OUTCOMES_PER_TICK:]
        marks = () if mark is None else (mark.claim.job_id,)
        list_held = self._list_held
        try:
            reply = await self._store.tick(self._args, want, outcomes, list_held=list_held, marks=marks)
        except BaseException as error:
            self._outcomes = outcomes + self._outcomes
            self._list_held = True
            if mark is not None:
                self._suspects.appendleft(mark)
                self._suspect = None
            if isinstance(error, StoreError):
                await self._pause_after(error)
                return
            raise
        self._pause = FIRST_PAUSE
        for at in reply.stale:
            stale = outcomes[int(at)]
            if not list_held:  # else it may be our own, settled by the tick whose reply was lost
                self.stale_outcomes += 1
                log.warning("job %s: its lease had moved on when it ended (%s); dropped", stale.job_id, stale.kind)
        for outcome in outcomes:
            self._mine.pop(outcome.entry, None)
        if list_held:
            self._list_held = False
        self._take(reply, want)
        if mark is not None:
            self._runner.start(mark)

    _pause = FIRST_PAUSE

    async def _pause_after(self, error: StoreError) -> None:
        log.warning("queue %s: Redis is away, again in %.2f s: %s", self._store.queue, self._pause, error)
        await asyncio.sleep(self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _take(self, reply: TickReply, want: int) -> None:
        """Start what a tick brought, and note what it says about the time to come."""
        now = time.monotonic()
        self.last_tick_at = now
        self.first_tick.set()
        self._runner.clock_offset_ms = reply.now_ms - now * 1000
        self._due_at = None if reply.next_ms < 0 else now + reply.next_ms / 1000
        self._hungry = (want > 0 and len(reply.claimed) >= want) or reply.next_ms == 0
        if reply.requeued:
            log.warning("queue %s: %d jobs of lost workers taken back", self._store.queue, reply.requeued)
        for claim in reply.claimed:
            self._start(claim)
        for claim in reply.held:
            if claim.entry not in self._mine:
                self._start(claim)

    def _start(self, claim: Claim) -> None:
        attempt = Attempt(claim)
        self._mine[claim.entry] = attempt
        if self._stopping:
            self.finished(attempt, self._runner.verdicts.released(claim))
        elif claim.stalls:
            self._suspects.append(attempt)
        else:
            self._runner.start(attempt)

    def _next_suspect(self) -> Attempt | None:
        if self._suspect is None and self._suspects and not self._stopping:
            self._suspect = self._suspects.popleft()
            return self._suspect
        return None

    # Waiting ----------------------------------------------------------------------------------------------------------

    async def _wait(self, want: int) -> None:
        """Park if there is room, and wait until there is a reason to tick."""
        beat = min(LONGEST_PARK, self._settings.lease / 3)
        if self._parked is None and want:
            self._reserved = want
            self._parked = asyncio.create_task(
                self._store.park(self._parked_wire, self._args, want, block=beat), name="streamq-parked"
            )
        until = time.monotonic() + beat
        due = self._due_at is not None and self._due_at <= until
        if self._due_at is not None and due:
            until = self._due_at
        changed = asyncio.create_task(self._changed.wait())
        try:
            waits = {changed} if self._parked is None else {changed, self._parked}
            await asyncio.wait(waits, timeout=max(until - time.monotonic(), 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        if self._parked is not None and self._parked.done():
            await self._unpark()
        elif not self._changed.is_set():
            await self._on_time(due)

    async def _on_time(self, due: bool) -> None:
        """Something is due, or nothing has been heard for a beat."""
        self._due_at = None
        if self._parked is None:
            await self._tick(0, None)  # all slots are busy: still renew, sweep and promote
        elif due:
            try:
                await self._store.wake()
            except StoreError as error:
                await self._pause_after(error)

    async def _unpark(self) -> None:
        """Take the reply of the parked tick."""
        parked, want = self._parked, self._reserved
        self._parked, self._reserved = None, 0
        assert parked is not None  # noqa: S101 - the caller looked
        try:
            reply = parked.result()
        except StoreError as error:
            self._list_held = True
            await self._pause_after(error)
            return
        self._pause = FIRST_PAUSE
        self._take(reply, want)

    # Stopping ---------------------------------------------------------------------------------------------------------

    async def stop(self, grace: float, hurry: asyncio.Event) -> None:
        """After `run` has returned: what ends within `grace` seconds or until `hurry`, hand the rest back, sign off.

        Raises:
            StoreError: Redis was away to the end: what is left is requeued when the lease lapses.
        """
        self.quit()
        await self._end_parking()
        for attempt in self._suspects:
            self.finished(attempt, self._runner.verdicts.released(attempt.claim))
        self._suspects.clear()
        end = time.monotonic() + grace
        while self.running and not hurry.is_set() and (left := end - time.monotonic()) > 0:
            if self._outcomes or self._list_held:
                await self._tick(0, None)
                continue
            self._changed.clear()
            waits = {asyncio.create_task(self._changed.wait()), asyncio.create_task(hurry.wait())}
            await asyncio.wait(waits, timeout=min(left, self._settings.lease / 3), return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        await self._hand_back()
        await self._settle_all()
        held = await self._store.leave(self.worker)
        if held:
            log.warning("queue %s: %d jobs go to other workers at once", self._store.queue, held)

    async def _end_parking(self) -> None:
        """Unblock the parked tick and take what it claims in its last moment, to hand it back."""
        if self._parked is None:
            return
        try:
            for _ in range(20):  # more than once only if it has not reached the server yet
                await self._store.unblock(self._parked_wire)
                await asyncio.wait((self._parked,), timeout=0.1)
                if self._parked.done():
                    break
        except StoreError as error:
            log.debug("the parked tick could not be unblocked: %s", error)
        if not self._parked.done():
            self._parked_wire.drop("the worker stops")
            await asyncio.wait((self._parked,))
        await self._unpark()

    async def _hand_back(self) -> None:
        """Cancel what still runs and give it back to its lane; no attempt is used."""
        left = [attempt for attempt in self._mine.values() if not attempt.ended]
        for attempt in left:
            attempt.released = True
            if attempt.task is not None:
                attempt.task.cancel()
        if left:
            log.warning("queue %s: %d jobs did not end in time and are handed back", self._store.queue, len(left))
            await asyncio.wait([a.task for a in left if a.task is not None], timeout=1.0)
        for attempt in left:
            self.finished(attempt, self._runner.verdicts.released(attempt.claim))

    async def _settle_all(self) -> None:
        end = time.monotonic() + self._settings.timeout
        while self._outcomes or self._list_held:
            await self._tick(0, None)
            if time.monotonic() > end and (self._outcomes or self._list_held):
                raise StoreError(f"{len(self._outcomes)} outcomes could not be settled before the end")
