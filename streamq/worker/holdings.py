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

AHEAD = 0.003
"""Seconds of work that may be claimed ahead."""
MOST_AHEAD = 400
SAMPLES = 20
"""Jobs that must have ended before their length counts for anything."""
OVERDUE = 0.05
"""Seconds after which a claim that could not start is given back."""
COOL_DOWN = 1.0
"""Seconds without claiming ahead after something was given back."""


class Holdings:
    """The claims and outcomes of one worker. `start` is called with each attempt that may run now."""

    def __init__(self, concurrency: int, max_stalls: int, start: Callable[[Attempt], None]) -> None:
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
        return self._concurrency + self._ahead() - self.unfinished - self.reserved

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
        for claim in claims:
            if (held := self.mine.get(claim.entry)) is not None and held.claim.since_ms == claim.since_ms:
                continue
            if held is not None:
                self._lose(held)
                lost.append(held)
            attempt = Attempt(claim)
            self.mine[claim.entry] = attempt
            if claim.stalls:
                self.suspects.append(attempt)
            else:
                self.ready.append(attempt)
        self._fill()
        return lost

    def next_suspects(self) -> list[Attempt]:
        """Give slots to the suspects that may start next, and return them: `run` each once it is marked.

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

    def run(self, attempt: Attempt) -> None:
        """Start an attempt that has a slot."""
        attempt.started_at = time.monotonic()
        self._start(attempt)

    def unmarked(self, attempts: Iterable[Attempt]) -> None:
        """The mark of these suspects failed: they wait again, without a slot."""
        for attempt in attempts:
            self._busy -= 1
            if attempt is self.suspect:
                self.suspect = None
            self.suspects.appendleft(attempt)

    def idle_claims(self) -> list[Attempt]:
        """Take out all claims that have not started."""
        found = [*self.ready, *self.suspects]
        self.ready.clear()
        self.suspects.clear()
        return found

    def withdraw(self, attempt: Attempt) -> bool:
        """Take out a claim that has not started; False if it has, or is about to."""
        for waiting in (self.ready, self.suspects):
            if attempt in waiting:
                waiting.remove(attempt)
                return True
        return False

    def overdue(self) -> list[Attempt]:
        """Take out the claims that have waited for a slot for too long, and claim nothing ahead for a while."""
        if not self.ready or time.monotonic() - self.ready[0].claimed_at < OVERDUE:
            return []
        self._cool_until = time.monotonic() + COOL_DOWN
        found = list(self.ready)
        self.ready.clear()
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
        if attempt.started_at:
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
        try:
            while self.ready and self._busy < self._concurrency and not self.closed:
                self._busy += 1
                self.run(self.ready.popleft())
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
