"""Limits for each key of jobs, in plain Python; written from docs/fairness.md.

A job with a key waits in its lane if the key has a place for it there, and else it is parked. A key has as many places
in a lane as it weighs; what is idle beyond that goes to the keys in turn: who has least for its weight, and of equals
the one whose places changed longest ago.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.model.model import Model

Found = dict[str, Any]
LANES = (1, 2, 3, 4)
NOTHING: Found = {"active": None, "rate": None, "weight": None}


class Places:
    """The keys of one queue's jobs."""

    def __init__(self, queue: Model) -> None:
        self.queue = queue
        self.common: Found = dict(NOTHING)
        self.own: dict[str, Found] = {}
        self.paused: set[str] = set()
        self.placed: dict[str, dict[str, Found]] = defaultdict(dict)
        """Key -> its jobs that stand in a lane, run, or wait for a retry in order."""
        self.parked: dict[tuple[int, str], list[Found]] = defaultdict(list)
        self.turns: dict[int, dict[str, float]] = {lane: {} for lane in LANES}
        self.looks: dict[str, int] = {}
        self.starts: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.taken: Counter[str] = Counter()
        """Starts of the claim that is going on."""
        self.touched: dict[str, None] = {}
        self.moved: set[str] = set()

    # What is set ------------------------------------------------------------------------------------------------------

    def said(self, key: str, what: str) -> Any:
        own = self.own.get(key, NOTHING)[what]
        return self.common[what] if own is None else own

    def most(self, key: str) -> float:
        return self.said(key, "active") or math.inf

    def weight(self, key: str) -> int:
        return self.said(key, "weight") or 1

    def names(self) -> list[str]:
        """Those that have jobs or settings of their own, with most jobs first."""
        known = {*self.own, *self.paused, *(key for key in self.placed if self.count(key))}
        known |= {key for _, key in self.parked if self.count(key)}
        return sorted(known, key=lambda key: (self.count(key), key), reverse=True)

    def limit(self, key: str, changes: Found) -> None:
        """Of one key, or of all ("") that have none of their own."""
        if not key:
            self.common |= changes
            self.looks = dict.fromkeys(self.names(), 0)
            return
        self.own[key] = {**self.own.get(key, NOTHING), **changes}
        if self.own[key] == NOTHING:
            del self.own[key]
        self._changed(key)

    def pause(self, key: str, *, on: bool) -> bool:
        """Answers whether that is a change."""
        if (key in self.paused) == on:
            return False
        (self.paused.add if on else self.paused.discard)(key)
        self._changed(key)
        return True

    def _changed(self, key: str) -> None:
        self.moved.add(key)
        self.touched[key] = None
        self.settle()

    # Counting ---------------------------------------------------------------------------------------------------------

    def count(self, key: str) -> int:
        return len(self.placed[key]) + sum(len(self.parked[lane, key]) for lane in LANES)

    def parked_jobs(self, lane: int | None = None) -> list[Found]:
        """In the order in which they are told."""
        lanes = LANES if lane is None else (lane,)
        return [job for key in self.names() for at in lanes for job in self.parked[at, key]]

    def _used(self, key: str, lane: int) -> int:
        return sum(job["lane"] == lane for job in self.placed[key].values())

    def _by_rate(self, key: str) -> tuple[float, int]:
        """How many more may start by the key's rate, and when the next one may."""
        rate = self.said(key, "rate")
        if rate is None:
            return math.inf, 0
        window, now = rate[1] + min(-(-rate[1] * 2 // 100), 50), self.queue.now
        self.starts[key] = within = [(at, n) for at, n in self.starts[key] if now - window < at <= now]
        room = max(rate[0] - sum(n for _, n in within), 0) - self.taken[key]
        return room, (within[0][0] if within else now) + window

    def _free(self, key: str) -> float:
        by_limit = self.most(key) - len(self.placed[key])
        return 0 if key in self.paused else max(min(by_limit, self._by_rate(key)[0]), 0)

    # Jobs come and go -------------------------------------------------------------------------------------------------

    def enter(self, job: Found, number: int, since: int) -> None:
        """A job comes into its lane; or is parked, since its key has no place there, or others of it were first."""
        key, lane = job["key"], job["lane"]
        if job["id"] not in self.placed[key]:
            if self._used(key, lane) >= self.weight(key) or self.parked[lane, key] or self._free(key) <= 0:
                job.update(state="parked", n=number, since=since, finished=None)
                self.parked[lane, key].append(job)
                self.touched[key] = None
                return
            self._give_place(job)
        self.queue._place(job, number=number, since=since)

    def _give_place(self, job: Found) -> None:
        self.placed[job["key"]][job["id"]] = job
        self.moved.add(job["key"])

    def leave(self, job: Found) -> None:
        """A job ends, goes, or waits for its time."""
        key = job["key"]
        if key is None:
            return
        if job["id"] in self.placed[key]:
            del self.placed[key][job["id"]]
            self.moved.add(key)
        elif job in self.parked[job["lane"], key]:
            self.parked[job["lane"], key].remove(job)
        else:
            return
        self.touched[key] = None

    def rest(self, job: Found) -> None:
        """An attempt has ended: where a key's jobs run one at a time, none overtakes the one that is to be retried."""
        if job["key"] is not None and self.most(job["key"]) != 1:
            self.leave(job)

    def changed_lane(self, job: Found) -> None:
        """One that waits for its retry in order keeps its place, and has it in another lane from now on."""
        if job["state"] == "delayed" and job["id"] in self.placed.get(job["key"], {}):
            self.moved.add(job["key"])
            self.touched[job["key"]] = None

    def _bring(self, key: str, lane: int) -> Found:
        job = self.parked[lane, key].pop(0)
        self.queue._place(job, since=job["since"])
        self._give_place(job)
        return job

    def settle(self) -> None:
        """All that follows from what has changed."""
        for key in self.touched:
            for lane in LANES:
                while self.parked[lane, key] and self._used(key, lane) < self.weight(key) and self._free(key) > 0:
                    self._bring(key, lane)
            self._queue_up(key)
        self.touched = {}

    def _queue_up(self, key: str) -> None:
        free, waits = self._free(key), False
        for lane in LANES:
            waits = waits or bool(self.parked[lane, key])
            if not self.parked[lane, key] or free <= 0:
                self.turns[lane].pop(key, None)
            elif key in self.moved or key not in self.turns[lane]:
                self.turns[lane][key] = self._turn(key)
        room, again = self._by_rate(key)
        if waits and key not in self.paused and room == 0:
            self.looks[key] = again
        self.moved.discard(key)

    def _turn(self, key: str) -> float:
        return len(self.placed[key]) / self.weight(key) + self.queue.now % 1_000_000 * 0.00000000001

    # Ticks ------------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """At keys whose rate may allow another start."""
        due = sorted((at, key) for key, at in self.looks.items() if at <= self.queue.now)
        for _, key in due:
            self.touched[key] = None
            del self.looks[key]

    def audit(self) -> None:
        """All keys are looked at, those with fewest jobs first."""
        self.touched |= dict.fromkeys(reversed(self.names()))

    def may_start(self, job: Found) -> bool:
        """Whether a job of a lane may start after all; it is counted if so."""
        key = job["key"]
        if key in self.paused or len(self.placed[key]) > self.most(key) or self._by_rate(key)[0] <= 0:
            return False
        self.taken[key] += 1
        return True

    def step_back(self, job: Found, since: int) -> None:
        """It may not: it is parked before all others, once the claim is over."""
        job.update(state="parked", since=since)
        self.leave(job)

    def top_up(self, lane: int, want: int) -> list[Found]:
        """Idle capacity goes to the keys in turn. Answers those that it brings, which start at once."""
        brought: list[Found] = []
        while len(brought) < want and self.turns[lane]:
            (_, key), *others = sorted((turn, key) for key, turn in self.turns[lane].items())
            upto = others[0][0] if others else math.inf
            while len(brought) < want and self._free(key) > 0 and self.parked[lane, key]:
                brought.append(self._bring(key, lane))
                self.taken[key] += 1
                if self._turn(key) > upto:
                    break
            self._queue_up(key)
        return brought

    def end_claim(self, stepped_back: list[Found]) -> None:
        for key, count in self.taken.items():
            if self.said(key, "rate") is not None and count:
                self.starts[key].append((self.queue.now, count))
        self.taken.clear()
        for job in reversed(stepped_back):
            self.parked[job["lane"], job["key"]].insert(0, job)
            self.touched[job["key"]] = None
        self.settle()
