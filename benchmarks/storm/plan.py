"""How much is broken, when: drawn from a seed before anything starts, so that every queue gets the very same faults."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

Span = tuple[float, float]
Kind = Literal["workers killed", "server killed", "workers frozen"]
LEASE = 5
"""Seconds of silence after which a worker counts as dead, wherever a queue lets one say so."""
LEAST = 0.75
"""The share of the planned faults that must have happened; with fewer the run is void."""


@dataclass(frozen=True)
class Fault:
    """One blow, in seconds since the producers began. A server is away, and a worker frozen, for `lasts`."""

    at: float
    kind: Kind
    lasts: float = 0.0
    victim: int = 0


@dataclass(frozen=True)
class Plan:
    """How much of everything. Times are seconds, spans are drawn from evenly."""

    seed: int
    jobs: int = 4_800
    seconds: float = 120.0
    workers: int = 3
    producers: int = 2
    kill_every: Span = (1.0, 3.0)
    server_every: Span = (15.0, 25.0)
    server_away: Span = (0.2, 1.0)
    freeze_every: Span = (10.0, 14.0)
    freeze_for: Span = (LEASE + 2.0, LEASE + 4.0)

    @property
    def per_second(self) -> float:
        """How many jobs each producer adds in a second, so that the last one comes as the faults end."""
        return self.jobs / self.producers / self.seconds

    def faults(self) -> list[Fault]:
        """Return the faults in the order of time. Each kind is drawn on its own."""
        found = [
            Fault(at, "workers killed", victim=chance.randrange(self.workers))
            for at, chance in self._times("kills", self.kill_every)
        ]
        found += [
            Fault(at, "server killed", chance.uniform(*self.server_away))
            for at, chance in self._times("server", self.server_every)
        ]
        found += [
            Fault(at, "workers frozen", chance.uniform(*self.freeze_for), chance.randrange(self.workers))
            for at, chance in self._times("freezes", self.freeze_every)
        ]
        return sorted(found, key=lambda fault: fault.at)

    def shortfall(self, happened: Counter[str]) -> str:
        """Return why a run is void in which so much happened; empty if it counts."""
        planned = Counter[str](fault.kind for fault in self.faults())
        few = [
            f"{kind}: {happened[kind]} of {count}" for kind, count in planned.items() if happened[kind] < count * LEAST
        ]
        return ", ".join(few)

    def _times(self, what: str, every: Span) -> list[tuple[float, random.Random]]:
        chance = random.Random(f"{self.seed} {what}")  # noqa: S311
        times, at = [], chance.uniform(*every)
        while at < self.seconds:
            times.append((at, chance))
            at += chance.uniform(*every)
        return times
