"""The worker's one conversation with its queue.

Its life, turn by turn:
1. What has ended since the last tick is settled by the next one, which also claims as many jobs as there is room for.
   Under load two ticks are under way: the server works on one while this process works on what the other brought.
2. With nothing to settle and nothing to claim it parks: on a second connection it waits for the queue's wake token, and
   the tick behind it claims in the same breath. The room that a tick may fill is reserved while it is under way.
3. While parked it sleeps until something is due (then it wakes a parked worker), or an attempt ends (then it ticks on
   the first connection).
4. After a tick that failed nobody knows whether it ran, nor whether the same Redis answers the next one. So the worker
   first asks for all that it holds, takes up what it does not know and lets go of what is no longer its own; only then
   outcomes are sent again. A number that Redis gives out twice, having lost data, is thus never taken for the same job.
5. Jobs that stalled before (suspects) are marked as started first, so that one which never got to run is not blamed.
   Those that another stall would fail are started one at a time: the one that takes workers down fails alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from streamq._engine.store import UNCHANGED, Store
from streamq._engine.transitions import NOT_SETTLED, Outcome, TickArgs, TickReply
from streamq._engine.wire import Wire
from streamq.errors import StoreError
from streamq.observer import tell
from streamq.policy import RateLimit
from streamq.settings import Settings
from streamq.worker.attempt import Attempt
from streamq.worker.holdings import OVERDUE, Holdings
from streamq.worker.pauses import Pauses
from streamq.worker.runner import Runner
from streamq.worker.sharing import SharedHoldings, Slots

log = logging.getLogger("streamq.worker")

LONGEST_PARK = 5.0
"""Seconds that a parked worker waits at the server before it looks again."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between ticks that fail: from, up to."""
TICK_JOBS = 250
"""Jobs that one tick claims at most (it settles twice as many): about three milliseconds of the server's time."""
TICKS_UNDER_WAY = 2
WORTH_A_TICK = 50
"""Outcomes and claims that are worth a second tick while one is under way."""


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
        slots: Slots | None = None,
    ) -> None:
        self._store, self._parked_wire, self._settings = store, parked_wire, settings
        self.worker = worker
        self._args = TickArgs(
            worker, round(settings.lease * 1000), settings.max_stalls, settings.events_cap, settings.dead_cap
        )
        self._runner = runner = runner_of(self)
        self._holdings = (
            Holdings(settings.concurrency, settings.max_stalls, runner.start, runner.gathering)
            if slots is None
            else SharedHoldings(slots, settings.max_stalls, runner.start, runner.gathering)
        )
        self._limiter = limiter
        self._changed = asyncio.Event()
        self._holdings.on_change = self._changed.set
        self._ticks: set[asyncio.Task[None]] = set()
        self._parked: asyncio.Task[TickReply] | None = None
        self._parked_want = 0
        self._hungry, self._list_held = True, False
        self._listing = False
        """Whether the list is being asked for: nothing may be settled before it is there."""
        self._list_held_at = time.monotonic() + settings.lease
        """When to look for claims whose reply never came: a tick may run long after its connection was given up."""
        self._due_at: float | None = None
        self._pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        self._parking_pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        """Of the second connection alone: ticks on the first one may work all the while."""
        self._stopping = False
        self.last_tick_at: float | None = None
        """When a tick last succeeded (monotonic seconds); None before the first."""
        self.first_tick = asyncio.Event()
        self.stale_outcomes = 0
        self._unsure: set[str] = set()
        """Entries whose outcomes a failed tick may have settled: when they are gone, that may be our own doing."""
        self._asked: dict[str, str] = {}
        """Entries whose jobs are to be interrupted, and why, that have not come here yet."""
        self.hand_schedules: Callable[[list[str]], None] = lambda ids: None
        """Takes the schedules that a tick found due; must not wait."""

    @property
    def running(self) -> int:
        """How many claimed jobs have not ended."""
        return self._holdings.unfinished

    @property
    def ended(self) -> int:
        """How many attempts have ended."""
        return self._holdings.ended

    def finished(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take the outcome of an attempt; the runner calls this when it has ended."""
        if self._holdings.finished(attempt, outcome):
            self._changed.set()

    def look_in(self, seconds: float) -> None:
        """Tick in so many seconds at the latest: something that no tick has told of is due then."""
        at = time.monotonic() + seconds
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self._changed.set()

    def interrupt(self, asked: Mapping[str, str]) -> None:
        """End the jobs of these entries as cancelled, each for its reason; one that is on its way, when it is here."""
        self._asked = dict(asked)
        self._interrupt()

    def _interrupt(self) -> None:
        for entry, reason in list(self._asked.items()):
            attempt = self._holdings.mine.get(entry)
            if attempt is None:
                continue
            if attempt.started_at:
                self._runner.interrupt(attempt, reason)
            elif self._holdings.withdraw(attempt):
                self.finished(attempt, self._runner.verdicts.cancelled(attempt.claim, reason))
            else:
                continue  # a suspect that is being marked
            del self._asked[entry]

    # The turns --------------------------------------------------------------------------------------------------------

    def quit(self) -> None:
        """Make `run` return after the present turn."""
        self._stopping = self._holdings.closed = self._holdings.gathering.closed = True
        self._changed.set()

    async def run(self) -> None:
        """Claim and settle until `quit`."""
        while self._limiter is not None and not self._stopping:
            try:
                await self._store.limit(self._limiter, UNCHANGED)
                self._limiter = None
            except StoreError as error:
                self._failed(error)
                await asyncio.sleep(self._pauses.pause)
        while not self._stopping:
            await self._turn()

    async def _turn(self) -> None:
        """Start ticks for which there is reason, then wait until there is another."""
        self._changed.clear()
        if self._parked is not None and self._parked.done():
            self._unpark()
        holdings = self._holdings
        if time.monotonic() >= self._list_held_at:
            self._list_held = True
        if self._list_held and self._parked is not None:
            await self._end_parking()  # or what it claims meanwhile would be found twice
        for attempt in holdings.overdue():
            self.finished(attempt, self._runner.verdicts.returned(attempt.claim))
        while len(self._ticks) < TICKS_UNDER_WAY and not self._listing and time.monotonic() >= self._pauses.until:
            most = 1 if self._pauses.pause else TICK_JOBS  # a server that may hang keeps no slots from other shards
            want = min(max(holdings.room(), 0), most) if not self._stopping else 0
            marks = holdings.next_suspects() if not self._stopping else []
            hungry = want and self._hungry
            if self._ticks and not marks and len(holdings.outcomes) + (want if hungry else 0) < WORTH_A_TICK:
                break  # too little for a second tick: it will go with the next
            if not (holdings.outcomes or self._list_held or marks or hungry):
                break
            self._start_tick(want, marks)
        await self._wait(0 if self._stopping else holdings.room())

    def _start_tick(self, want: int, marks: list[Attempt]) -> None:
        self._holdings.reserved += want
        self._ticks.add(asyncio.get_running_loop().create_task(self._run_tick(want, marks)))

    async def _run_tick(self, want: int, marks: list[Attempt]) -> None:
        try:
            await self._tick(want, marks)
        finally:
            self._ticks.discard(asyncio.current_task())
            self._changed.set()

    async def _tick(self, want: int, marks: list[Attempt]) -> None:
        holdings = self._holdings
        list_held, self._list_held = self._list_held, False
        outcomes = [] if list_held else holdings.take_outcomes(TICK_JOBS * 2)
        if list_held:
            self._listing = True
            self._list_held_at = time.monotonic() + self._settings.lease
        started = [mark.claim.job_id for mark in marks]
        try:
            reply = await self._store.tick(self._args, want, outcomes, list_held=list_held, marks=started)
        except BaseException as error:
            holdings.reserved -= want
            holdings.put_back(outcomes)
            self._unsure.update(outcome.entry for outcome in outcomes)
            self._list_held = True
            holdings.unmarked(marks)
            if not isinstance(error, Exception):
                raise
            if not isinstance(error, StoreError):
                log.exception("a tick of queue %s failed", self._store.queue)
            self._failed(error)
            return
        finally:
            self._listing = self._listing and not list_held
        holdings.reserved -= want
        if NOT_SETTLED in reply.stale:
            holdings.put_back(outcomes)
            outcomes = []
        holdings.settled(outcomes)
        observer = self._store.observer
        tell(observer, observer.ticked, self._store.queue, len(outcomes), len(reply.claimed))
        for at in reply.stale if outcomes else ():
            self._note_stale(outcomes[int(at)].of)
        if list_held:
            for attempt in holdings.reconcile(reply.held):
                if attempt.claim.entry not in self._unsure:
                    self._note_stale(attempt.claim.job_id)
            self._unsure.clear()
        if self._stopping or (NOT_SETTLED in reply.stale and not list_held):
            holdings.unmarked(marks)  # without a lease they may be another worker's by now: the list will tell
        else:
            holdings.marked(marks)
        self._take(reply, want)

    def _note_stale(self, job_id: str) -> None:
        self.stale_outcomes += 1
        tell(self._store.observer, self._store.observer.stale, self._store.queue)
        log.warning("job %s: its lease had moved on; what it ended with, or will end with, is dropped", job_id)

    def _take(self, reply: TickReply, want: int) -> None:
        """Start what a tick brought, and note what it says about the time to come."""
        now = time.monotonic()
        self._pauses.worked()
        self.last_tick_at = now
        self.first_tick.set()
        self._runner.clock_offset_ms = reply.now_ms - now * 1000
        due_at = None if reply.next_ms < 0 else now + reply.next_ms / 1000
        if want == 0 and self._due_at is not None:  # one that claims nothing is not told when limits allow the next
            due_at = self._due_at if due_at is None else min(due_at, self._due_at)
        self._due_at = due_at
        self._hungry = (want > 0 and len(reply.claimed) >= want) or reply.next_ms == 0
        self._holdings.limited = reply.limited
        self._runner.verdicts.bound = reply.bound
        observer = self._store.observer
        if reply.requeued:
            tell(observer, observer.taken_back, self._store.queue, reply.requeued)
            log.warning("queue %s: %d jobs of lost workers taken back", self._store.queue, reply.requeued)
        if reply.poisoned:
            tell(observer, observer.poisoned, self._store.queue, reply.poisoned)
            log.error(
                "queue %s: %d jobs failed as poison: workers were lost with them", self._store.queue, reply.poisoned
            )
        if NOT_SETTLED in reply.stale and self._holdings.mine:
            self._list_held = True
        for attempt in (*self._holdings.take(reply.claimed), *self._holdings.take(reply.held)):
            self._note_stale(attempt.claim.job_id)
        if self._asked:
            self._interrupt()
        if reply.schedules:
            self.hand_schedules(reply.schedules)
        if self._stopping:
            self._give_back_idle_claims()

    def _failed(self, error: Exception) -> None:
        pause = self._pauses.failed()
        log.warning("queue %s: Redis is away, again in %.2f s: %s", self._store.queue, pause, error)
        self._store.on_error(error)

    # Waiting ----------------------------------------------------------------------------------------------------------

    async def _wait(self, room: int) -> None:
        """Park if there is room and nothing under way, and wait until there is a reason for another turn."""
        if self._parked is not None and self._parked.done():
            self._unpark()  # its reply came while the turn before was waiting for something else
            return
        now = time.monotonic()
        beat = min(LONGEST_PARK, self._settings.lease / 3)
        until = now + beat if self._due_at is None else min(self._due_at, now + beat)
        if self._pauses.until > now:
            until = self._pauses.until
        elif self._parked is None and room > 0 and not self._ticks and not self._list_held:
            if self._parking_pauses.until > now:
                until = min(until, self._parking_pauses.until)
            else:
                self._park(room, beat)
        if self._holdings.waiting:
            until = min(until, now + OVERDUE)
        # Ended attempts, ended ticks and a parked tick's reply set `changed`; so does the clock.
        rings: list[bool] = []

        def ring() -> None:
            rings.append(True)
            self._changed.set()

        alarm = asyncio.get_running_loop().call_later(max(until - now, 0), ring)
        await self._changed.wait()
        alarm.cancel()
        if rings and self._pauses.until <= now and not self._ticks and not (self._parked and self._parked.done()):
            await self._on_time()

    async def _on_time(self) -> None:
        """Something is due, or nothing has been heard for a beat."""
        due = self._due_at is not None and self._due_at <= time.monotonic()
        if self._parked is not None and due:
            self._due_at = None
            try:
                await self._store.wake()
            except StoreError as error:
                self._failed(error)
        elif self._parked is None and self._holdings.room() <= 0:
            self._due_at = None
            self._start_tick(0, [])  # all slots are busy: still renew, sweep and promote

    def _park(self, want: int, block: float) -> None:
        want = min(want, self._settings.concurrency, TICK_JOBS)
        self._parked_want = want = self._holdings.reserve_parked(want)
        parking = self._store.park(self._parked_wire, self._args, want, block=block)
        self._parked = asyncio.create_task(parking, name="streamq-parked")
        self._parked.add_done_callback(self._parked_ended)

    def _parked_ended(self, parked: asyncio.Task[TickReply]) -> None:
        """Start what a parked tick has claimed in this very moment: waiting for the next turn would cost two more."""
        try:
            if parked is self._parked and not self._stopping and not parked.cancelled() and parked.exception() is None:
                self._unpark()
        finally:
            self._changed.set()

    def _unpark(self) -> None:
        """Take the reply of the parked tick."""
        parked, want = self._parked, self._parked_want
        self._parked, self._parked_want = None, 0
        self._holdings.release_parked(want)
        assert parked is not None  # noqa: S101 - the caller looked
        try:
            reply = parked.result()
        except StoreError as error:
            self._list_held = True
            self._parking_pauses.failed()
            self._failed(error)
            return
        self._parking_pauses.worked()
        observer = self._store.observer
        tell(observer, observer.ticked, self._store.queue, 0, len(reply.claimed))
        self._take(reply, want)

    # Stopping ---------------------------------------------------------------------------------------------------------

    async def stop(self, grace: float, hurry: asyncio.Event) -> None:
        """After `run`: settle what ends within `grace` seconds or until `hurry`, hand back the rest, sign off.

        Raises:
            StoreError: Redis was away to the end: what is left is requeued when the lease lapses.
        """
        self.quit()
        await self._end_parking()
        self._give_back_idle_claims()
        end = time.monotonic() + grace
        hurried = asyncio.ensure_future(hurry.wait())
        while self.running and not hurry.is_set() and (left := end - time.monotonic()) > 0:
            self._changed.clear()
            if (self._holdings.outcomes or self._list_held) and not self._ticks:
                self._start_tick(0, [])
            changed = asyncio.ensure_future(self._changed.wait())
            timeout = min(left, self._settings.lease / 3)
            await asyncio.wait({changed, hurried}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
        hurried.cancel()
        await self._hand_back()
        await self._settle_all()
        held = await self._store.leave(self.worker)
        if held:
            log.warning("queue %s: %d jobs go to other workers at once", self._store.queue, held)

    def _give_back_idle_claims(self) -> None:
        for attempt in self._holdings.idle_claims():
            self.finished(attempt, self._runner.verdicts.returned(attempt.claim))

    async def _end_parking(self) -> None:
        """Unblock the parked tick and take what it claims in its last moment, to hand it back."""
        parked = self._parked
        if parked is None:
            return
        parked.remove_done_callback(self._parked_ended)  # from here on its reply is taken below
        try:
            for _ in range(20):  # more than once only if it has not reached the server yet
                if parked.done():
                    break
                await self._store.unblock(self._parked_wire)
                await asyncio.wait((parked,), timeout=0.1)
        except StoreError as error:
            log.debug("the parked tick could not be unblocked: %s", error)
        if not parked.done():
            self._parked_wire.drop("the worker stops")
            await asyncio.wait((parked,))
        if parked is self._parked:
            self._unpark()

    async def _hand_back(self) -> None:
        """Cancel what still runs and give it back to its lane; no attempt is used."""
        left = [attempt for attempt in self._holdings.mine.values() if not attempt.ended]
        for attempt in left:
            attempt.released = True
            if attempt.task is not None:
                attempt.task.cancel()
        if left:
            log.warning("queue %s: %d jobs did not end in time and are handed back", self._store.queue, len(left))
            await asyncio.wait([a.task for a in left if a.task is not None], timeout=1.0)
        verdicts = self._runner.verdicts
        for attempt in left:
            reason = attempt.cancelled
            outcome = verdicts.released(attempt.claim) if reason is None else verdicts.cancelled(attempt.claim, reason)
            self.finished(attempt, outcome)

    async def _settle_all(self) -> None:
        end = time.monotonic() + self._settings.timeout
        while self._ticks or self._holdings.outcomes or self._list_held:
            if not self._ticks and time.monotonic() >= self._pauses.until:
                self._start_tick(0, [])
            await asyncio.wait(self._ticks, timeout=1.0) if self._ticks else await asyncio.sleep(FIRST_PAUSE)
            if time.monotonic() > end and (self._holdings.outcomes or self._list_held):
                raise StoreError(f"{len(self._holdings.outcomes)} outcomes could not be settled before the end")
