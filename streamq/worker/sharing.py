"""The slots of a worker that serves several shards: one number for all of them, shared out fairly.

Plain bookkeeping: it talks to nobody. Each shard has `Holdings` of its own, which count what all of them run. A shard
that finds no room is short of it, and is told when some comes free; whoever has less than another goes first, and takes
no more than its fair share while others are short. A shard that needs no room says so by finding some, and then the
next one's turn comes: no slot stays empty while a shard has work for it.
"""

from __future__ import annotations

from collections.abc import Callable

from streamq._engine.transitions import Outcome
from streamq.worker.attempt import Attempt
from streamq.worker.gathering import Gathering
from streamq.worker.holdings import Holdings

PARKED_WANT = 1
"""Jobs that a parked tick may bring: all shards park at once, so that they may bring more than there is room for."""


class Slots:
    """The slots of one worker."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.busy = 0
        self.sharers: list[SharedHoldings] = []
        self.short: dict[SharedHoldings, None] = {}
        """Those that found no room."""

    def ring(self) -> None:
        """Have those that are short look again."""
        if self.short:
            for sharer in list(self.short):
                sharer.on_change()

    def fair_share(self) -> int:
        """Return how many jobs one more shard may hold while others are short."""
        users = sum(1 for sharer in self.sharers if sharer in self.short or sharer.taken)
        return -(-self.number // (users + 1))


class SharedHoldings(Holdings):
    """The claims and outcomes of one shard."""

    _slots: Slots

    def __init__(self, slots: Slots, max_stalls: int, start: Callable[[Attempt], None], gathering: Gathering) -> None:
        self._slots = slots
        self._reserved = self._parked = 0
        super().__init__(slots.number, max_stalls, start, gathering)
        slots.sharers.append(self)

    @property
    def _busy(self) -> int:
        return self._slots.busy

    @_busy.setter
    def _busy(self, busy: int) -> None:
        self._slots.busy = busy

    @property
    def reserved(self) -> int:
        """Jobs that ticks which are under way may bring."""
        return self._reserved

    @reserved.setter
    def reserved(self, jobs: int) -> None:
        fewer = jobs < self._reserved
        self._reserved = jobs
        if fewer:
            self._slots.ring()

    @property
    def taken(self) -> int:
        """How many jobs it has or may get, those aside that a parked tick may bring."""
        return self.unfinished + self._reserved - self._parked

    def room(self) -> int:
        """Return how many more jobs may be claimed for this shard."""
        slots = self._slots
        others = [sharer for sharer in slots.sharers if sharer is not self]
        free = super().room() - sum(sharer._unstarted() for sharer in others)
        if free <= 0 or any(sharer.taken < self.taken for sharer in slots.short if sharer is not self):
            slots.short[self] = None
            return min(free, 0)
        was_short = slots.short.pop(self, self) is None
        if slots.short:
            if was_short:
                slots.ring()
            free = min(free, max(slots.fair_share() - self.taken, 1))
        return free

    def _unstarted(self) -> int:
        claimed = len(self.ready) + len(self.suspects) + len(self.gathering.due)
        return claimed + self._reserved - self._parked

    def reserve_parked(self, want: int) -> int:
        want = min(want, PARKED_WANT)
        self._parked = want
        return super().reserve_parked(want)

    def release_parked(self, want: int) -> None:
        self._parked = 0
        super().release_parked(want)

    def finished(self, attempt: Attempt, outcome: Outcome) -> bool:
        """Take the outcome of an attempt; its slot is anybody's."""
        ended = super().finished(attempt, outcome)
        self._slots.ring()
        return ended

    def _fill(self) -> None:
        waiting = [sharer for sharer in self._slots.sharers if sharer.waiting]
        for sharer in sorted(waiting, key=_since) if len(waiting) > 1 else waiting:
            super(SharedHoldings, sharer)._fill()


def _since(holdings: SharedHoldings) -> float:
    """Return since when the first claim waits that waits for a slot."""
    if holdings.gathering.due:
        return holdings.gathering.due[0].due_at
    return holdings.ready[0].claimed_at
