"""What a worker holds: claims that run, claims that are ready to, suspects, and outcomes that wait for a tick.

Plain bookkeeping: it talks to nobody. `room` is how many more jobs may be claimed: the free slots, and, while jobs
are short, a few milliseconds of work ahead, so that no slot idles for a round trip. Work ahead that turns out to wait
longer is given back (`overdue`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable

from streamq._engine.transitions import Claim, Outcome
from streamq.worker.attempt import Attempt
from streamq.worker.gathering import Gathering, JobBatch

AHEAD = 0.003
"""Seconds of work that may be claimed ahead."""
MOST_AHEAD = 400
SAMPLES = 20
"""Jobs that must have ended before their length counts for anything."""
OVERDUE = 0.05
"""Seconds after which a claim that could not start is given back."""
COOL_DOWN = 1.0
"""Seconds without claiming ahead after something was given back."""
FIRST_INVITED, MOST_INVITED = 16, 1_000
"""Jobs that may be claimed for batches: doubled while none of another name has to wait, and halved when one does."""


class Holdings:
    """The claims and outcomes of one worker. `start` is called with each attempt that may run now."""

    def __init__(
        self, concurrency: int, max_stalls: int, start: Callable[[Attempt], None], gathering: Gathering
    ) -> None:
        self.gathering = gathering
        gathering.on_joined, gathering.on_due, gathering.on_ended = self._joined, self._due, self._batch_ended
        self.on_change: Callable[[], None] = lambda: None
        """Told when a batch has come to wait for a slot, or one was given back: by what is gathered, or by others."""
        self._invited = FIRST_INVITED
        self._concurrency, self._max_stalls, self._start = concurrency, max_stalls, start
        self.mine: dict[str, Attempt] = {}
        self.outcomes: list[Outcome] = []
        self.ready: deque[Attempt] = deque()
        self.suspects: deque[Attempt] = deque()
        self.suspect: Attempt | None = None
        self.reserved = 0
        """Jobs that ticks which are under way may bring."""
        self.limited = False
        """Whether the queue has a limit of its own; then nothing is claimed ahead, as it would count as running."""
        self.closed = False
        """Whether the worker stops; then nothing more is started."""
        self._settling = 0
        self._busy = 0
        self._filling = False
        self._mean = 0.0
        self.ended = 0
        """How many attempts have ended."""
        self._cool_until = 0.0

    @property
    def unfinished(self) -> int:
        """How many claims have not ended."""
        return len(self.mine) - len(self.outcomes) - self._settling

    def room(self) -> int:
        """Return how many more jobs may be claimed."""
        taken = self._busy + len(self.ready) + len(self.suspects) + len(self.gathering.due)
        invited = self._invitations() if self.gathering.filling else 0
        return self._concurrency + self._ahead() + invited - taken - self.reserved

    def reserve_parked(self, want: int) -> int:
        """Reserve room for what a parked tick may bring; return for how many jobs."""
        self.reserved += want
        return want

    def release_parked(self, want: int) -> None:
        """Undo `reserve_parked`."""
        self.reserved -= want

    def _invitations(self) -> int:
        """Return how many jobs may be claimed for the batches that fill up: none if what else comes would wait."""
        if self.limited or self.waiting or self._busy >= self._concurrency or time.monotonic() < self._cool_until:
            return 0
        return min(self.gathering.missing(), self._invited)

    @property
    def waiting(self) -> bool:
        """Whether something that could start waits for a slot."""
        return bool(self.ready or self.gathering.due)

    def _ahead(self) -> int:
        if self.limited or self.ended < SAMPLES or time.monotonic() < self._cool_until:
            return 0
        return min(int(self._concurrency * AHEAD / max(self._mean, 1e-6)), MOST_AHEAD)

    # Claims -----------------------------------------------------------------------------------------------------------

    def take(self, claims: Iterable[Claim]) -> list[Attempt]:
        """Start claims, as far as there are slots; one that is held already is nothing new.

        Returns the attempts whose entry's number is another job's by now, since Redis has lost data: they are let go.
        """
        lost: list[Attempt] = []
        now = time.monotonic()
        for claim in claims:
            if (held := self.mine.get(claim.entry)) is not None and held.claim.since_ms == claim.since_ms:
                continue
            if held is not None:
                self._lose(held)
                lost.append(held)
            attempt = Attempt(claim, now)
            self.mine[claim.entry] = attempt
            if claim.stalls:
                self.suspects.append(attempt)
            else:
                self.ready.append(attempt)
        self._fill()
        if self.gathering.filling:
            self._invited = max(self._invited // 2, 1) if self.ready else min(self._invited * 2, MOST_INVITED)
        return lost

    def next_suspects(self) -> list[Attempt]:
        """Give slots to the suspects that may start next, and return them: for `marked`, or else `unmarked`.

        Those that another stall would fail start alone, one after the other.
        """
        found: list[Attempt] = []
        waiting: deque[Attempt] = deque()
        for attempt in self.suspects:
            alone = attempt.claim.stalls + 1 >= self._max_stalls
            if self._busy >= self._concurrency or (alone and self.suspect is not None):
                waiting.append(attempt)
                continue
            if alone:
                self.suspect = attempt
            self._busy += 1
            found.append(attempt)
        self.suspects = waiting
        return found

    def marked(self, attempts: Iterable[Attempt]) -> None:
        """Start these suspects, but for those that were let go meanwhile."""
        for attempt in attempts:
            if self._holds(attempt):
                self._run(attempt)
            else:
                self._give_up_slot(attempt)

    def unmarked(self, attempts: Iterable[Attempt]) -> None:
        """The mark of these suspects failed: they wait again, without a slot, but for those that were let go."""
        for attempt in attempts:
            self._give_up_slot(attempt)
            if self._holds(attempt):
                self.suspects.appendleft(attempt)

    def _holds(self, attempt: Attempt) -> bool:
        return self.mine.get(attempt.claim.entry) is attempt

    def _give_up_slot(self, suspect: Attempt) -> None:
        self._busy -= 1
        if suspect is self.suspect:
            self.suspect = None

    def _run(self, attempt: Attempt) -> None:
        """Start an attempt that has a slot."""
        attempt.started_at = time.monotonic()
        self._start(attempt)

    def idle_claims(self) -> list[Attempt]:
        """Take out all claims that have not started."""
        found = [*self.ready, *self.suspects, *self.gathering.idle()]
        self.ready.clear()
        self.suspects.clear()
        return found

    def withdraw(self, attempt: Attempt) -> bool:
        """Take out a claim that has not started; False if it has, or is about to."""
        for waiting in (self.ready, self.suspects):
            if attempt in waiting:
                waiting.remove(attempt)
                return True
        return self.gathering.withdraw(attempt)

    def overdue(self) -> list[Attempt]:
        """Take out the claims that have waited for a slot for too long, and claim nothing ahead for a while."""
        if not self.waiting:
            return []
        now, found = time.monotonic(), list[Attempt]()
        if self.gathering.due and now - self.gathering.due[0].due_at >= OVERDUE:
            found += self.gathering.take_due()
        if self.ready and now - self.ready[0].claimed_at >= OVERDUE:
            found += self.ready
            self.ready.clear()
        if found:
            self._cool_until = now + COOL_DOWN
        return found

    def reconcile(self, held: Iterable[Claim]) -> list[Attempt]:
        """Let go of the claims that Redis does not list as held, and of their outcomes; return them."""
        known = {claim.entry: claim.since_ms for claim in held}
        lost = [a for a in self.mine.values() if known.get(a.claim.entry) != a.claim.since_ms]
        for attempt in lost:
            self._lose(attempt)
        return lost

    def _lose(self, attempt: Attempt) -> None:
        """Forget a claim. If it runs, it keeps its slot until it ends, and its outcome is dropped then."""
        entry = attempt.claim.entry
        del self.mine[entry]
        self.outcomes = [outcome for outcome in self.outcomes if outcome.entry != entry]
        for waiting in (self.ready, self.suspects):
            if attempt in waiting:
                waiting.remove(attempt)
        self.gathering.withdraw(attempt)

    # Batches ----------------------------------------------------------------------------------------------------------

    def _joined(self, attempt: Attempt) -> None:
        attempt.started_at = 0.0
        self._busy -= 1
        if not self._filling:  # its data had to be fetched first
            self._fill()
            self.on_change()

    def _due(self) -> None:
        self._fill()
        if self.gathering.due:
            self.on_change()

    def _run_batch(self, batch: JobBatch) -> None:
        now = time.monotonic()
        for member in batch.members:
            member.attempt.started_at = now
        self.gathering.start(batch)

    def _batch_ended(self) -> None:
        self._busy -= 1
        self._fill()

    # Outcomes ---------------------------------------------------------------------------------------------------------

    def finished(self, attempt: Attempt, outcome: Outcome) -> bool:
        """Take the outcome of an attempt and give its slot to the next claim; False if it had ended before."""
        if attempt.ended:
            return False
        attempt.ended = True
        if self.mine.get(attempt.claim.entry) is attempt:
            self.outcomes.append(outcome)
        if attempt is self.suspect:
            self.suspect = None
        if attempt.batch is not None:  # its slot is the batch's
            self._note_length((time.monotonic() - attempt.started_at) / len(attempt.batch.members))
        elif attempt.started_at:
            self._busy -= 1
            if attempt.task is not None:
                self._note_length(time.monotonic() - attempt.started_at)
            self._fill()
        return True

    def _fill(self) -> None:
        """Start what is ready. Not by recursion: an attempt may end while it is being started."""
        if self._filling:
            return
        self._filling = True
        due = self.gathering.due
        try:
            while (self.ready or due) and self._busy < self._concurrency and not self.closed:
                self._busy += 1
                if due:
                    self._run_batch(due.popleft())
                else:
                    self._run(self.ready.popleft())
        finally:
            self._filling = False

    def _note_length(self, seconds: float) -> None:
        self.ended += 1
        self._mean += (seconds - self._mean) * (0.05 if self.ended > SAMPLES else 1 / self.ended)

    def take_outcomes(self, most: int) -> list[Outcome]:
        """Take outcomes for a tick; they count as ended until `settled` or `put_back`."""
        taken, self.outcomes = self.outcomes[:most], self.outcomes[most:]
        self._settling += len(taken)
        return taken

    def settled(self, outcomes: list[Outcome]) -> None:
        """The tick that took these outcomes went through."""
        self._settling -= len(outcomes)
        for outcome in outcomes:
            self.mine.pop(outcome.entry, None)

    def put_back(self, outcomes: list[Outcome]) -> None:
        """The tick that took these outcomes failed: they are for the next one."""
        self._settling -= len(outcomes)
        self.outcomes = outcomes + self.outcomes
