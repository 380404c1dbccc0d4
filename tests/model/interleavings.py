"""Every order in which two workers, a sweep, the clock and a client can act on two jobs, on the plain model.

Each actor has a short program: a worker claims, perhaps starts a suspect, and settles; in between it may die, or its
replies may be lost, and its lease may lapse. The sweep is a third worker that wants nothing. The client removes,
cancels and retries. `explore` goes through all states that come of it, breadth first; a state is met
once, whatever its numbers and its time of day (`World.key`). `World.faults` tells what no state may be.
"""

from __future__ import annotations

import pickle
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from tests.model.model import Found, Model

START = 1_790_000_000_000
LEASE_MS, STEP_MS = 1_000, 600
"""Two steps of the clock, and a lease that was not renewed in between has lapsed."""
MAX_STALLS, ATTEMPTS = 2, 2
KEPT = {"keep": 100, "age": 86_400_000}
CANCELLED_KEPT = 2, 60_000
SWEEP = "sam"
WORKERS = ("ann", "bob")
JOBS: list[Found] = [
    {"lane": 3, "start": "0", "id": "", "what": ("report", 1)},
    {"lane": 3, "start": "0", "id": "own", "what": ("mail", 2)},
]
SEEN = ("id", "attempts", "stalls", "started")
"""What a worker knows of what it claimed."""
IDS = ("1", "own")
ENDED = ("completed", "failed", "cancelled")

Action = tuple[str, ...]
"""Who, what, and of which job or how."""


class World:
    """The queue, and how far each actor has come. Copied by pickling it."""

    def __init__(
        self, model: type[Model], *, claims: tuple[int, int], lapses: int, calls: int, lose_replies: bool
    ) -> None:
        self.model = model(START)
        self.model.add("n", 1, JOBS)
        self.model.tick(SWEEP, 0, lease=LEASE_MS, max_stalls=MAX_STALLS)
        self.model.events.clear()
        self.lose_replies = lose_replies
        self.claims_left = dict(zip(WORKERS, claims, strict=True))
        self.claims: dict[str, Found | None] = dict.fromkeys(WORKERS)
        self.sent: dict[str, str] = dict.fromkeys(WORKERS, "")
        self.is_unsure = dict.fromkeys(WORKERS, False)
        self.dead: set[str] = set()
        self.lapses_left, self.calls_left = lapses, calls
        self.newest: dict[str, tuple[str, int]] = {}
        self.ends = Counter[str]()
        self.broken: list[str] = []

    def actions(self) -> Iterator[Action]:
        """Each thing that somebody may do next."""
        if self.lapses_left:
            yield from (("clock", "lapse", whose) for whose in (*WORKERS, "both"))
        yield SWEEP, "sweep"
        if self.calls_left:
            for job_id in IDS:
                for what in ("remove", "force", "cancel", "retry"):
                    yield "client", what, job_id
        for worker in WORKERS:
            if worker not in self.dead:
                yield from self._worker_actions(worker)

    def _worker_actions(self, worker: str) -> Iterator[Action]:
        claim = self.claims[worker]
        if self.is_unsure[worker]:
            yield worker, "look"
        elif claim is None:
            if self.claims_left[worker]:
                yield worker, "claim"
                if self.lose_replies:
                    yield worker, "claim", "reply lost"
        else:
            yield worker, "die"
            if claim["stalls"] and not claim["started"]:
                yield worker, "start"
            elif self.sent[worker]:  # what is sent again is what was sent before
                yield worker, "settle", self.sent[worker]
            else:
                for how in ("done", "fail", *(["retry"] if claim["attempts"] + 1 < ATTEMPTS else [])):
                    yield worker, "settle", how
                if self.lose_replies:
                    yield worker, "settle", "done", "reply lost"

    def step(self, action: Action, real: Any = None) -> World:
        """Return the world after an action. What `real` answers to the same, if given, is compared."""
        after: World = pickle.loads(pickle.dumps(self, pickle.HIGHEST_PROTOCOL))  # noqa: S301 - our own
        after.model.events.clear()
        who, what, *more = action
        if who == "clock":
            after._lapse(WORKERS if more == ["both"] else more, real)
        elif who == "client":
            after._call(what, more[0], real)
        elif what == "die":
            after.dead.add(who)
            after.claims[who] = None
        else:
            after._turn(who, what, more, real)
        after._watch()
        return after

    def _lapse(self, whose: Sequence[str], real: Any) -> None:
        """Time goes by; the others renew their leases."""
        self.lapses_left -= 1
        for _ in range(2):
            self.model.now += STEP_MS
            if real:
                real.move(self.model.now)
            for name in sorted(self.model.leases.keys() - {*whose, *self.dead}):
                _same(self.model.renew(name, LEASE_MS), real and real.renew(name, LEASE_MS))

    def _call(self, what: str, job_id: str, real: Any) -> None:
        self.calls_left -= 1
        if what == "cancel":
            answer = self.model.cancel(job_id, *CANCELLED_KEPT)
        elif what == "retry":
            answer = self.model.retry(job_id)
            if answer == "retried":
                self.ends[job_id] = 0
        else:
            answer = self.model.remove(job_id, what == "force")
        _same(answer, real and real.call(what, job_id))

    def _turn(self, who: str, what: str, more: list[str], real: Any) -> None:
        is_lost = more[-1:] == ["reply lost"]
        claim = self.claims.get(who)
        outcomes = [self._outcome(claim, more[0])] if claim and what == "settle" else []
        marks = [claim["id"]] if claim and what == "start" else []
        want = 1 if what == "claim" else 0
        said = {"lease": LEASE_MS, "max_stalls": MAX_STALLS, "marks": marks, "list_held": what == "look"}
        told = self.model.tick(who, want, outcomes, **said)
        _same(told, real and real.tick(who, want, outcomes, **said))
        for got in told["claimed"]:
            self.newest[got["id"]] = who, got["n"]
        if who == SWEEP:
            return
        if is_lost:
            self.is_unsure[who] = what == "claim"
            self.sent[who] = more[0] if what == "settle" else ""
            self.claims_left[who] -= len(told["claimed"])
        elif what in ("claim", "look"):
            for got in told["claimed"] + told["held"]:
                self.claims[who] = {**got, "who": who, "started": False}
            self.claims_left[who] -= len(told["claimed"])
            self.is_unsure[who] = False
        elif claim and what == "start":
            claim["started"] = True
        elif told["stale"] == [-1]:  # it had no lease, so nothing was settled: it says so again
            self.sent[who] = more[0]
        else:
            self.claims[who], self.sent[who] = None, ""
        if claim and outcomes and not told["stale"] and not self._is_newest(claim):
            self.broken.append(f"an outcome of {claim['id']} counts that is not its newest attempt's")

    def _outcome(self, claim: Found, kind: str) -> Found:
        return {
            **{"kind": kind, "lane": claim["lane"], "n": claim["n"], "id": claim["id"], "delay": 0, "result": 7},
            **{"attempts": claim["attempts"] + 1, "started": START, "error": ("ValueError", "bad"), "counter": ""},
            **KEPT,
        }

    def _watch(self) -> None:
        for kind, job_id in self.model.events:
            if kind in ENDED:
                self.ends[job_id] += 1
            elif kind == "removed":
                self.ends.pop(job_id, None)

    def key(self) -> tuple[Any, ...]:
        """All that what happens next depends on: times as they are from now, entries by their place."""
        model = self.model
        place = {entry["n"]: at for at, entry in enumerate(model.lanes[3])}
        return (
            tuple(
                (e["id"], e["who"], e["has_envelope"], e["n"] == model.jobs[e["id"]]["mark"]) for e in model.lanes[3]
            ),
            tuple(
                (i, j["state"], j["attempts"], j["stalls"], j["letter"] is not None)
                for i, j in sorted(model.jobs.items())
            ),
            tuple((name, until - model.now) for name, until in sorted(model.leases.items())),
            tuple(sorted((place.get(n, -1), asked["worker"]) for n, asked in model.cancels.items())),
            tuple(c and (place.get(c["n"], -1), self._is_newest(c), *map(c.get, SEEN)) for c in self.claims.values()),
            *(*self.claims_left.values(), *self.sent.values(), *self.is_unsure.values(), *sorted(self.dead)),
            *(self.lapses_left, self.calls_left, tuple(sorted(self.ends.items())), *self.broken),
        )

    def _is_newest(self, claim: Found) -> bool:
        return self.newest.get(claim["id"]) == (claim["who"], claim["n"])

    def faults(self) -> list[str]:
        """What contradicts itself."""
        model, found = self.model, list(self.broken)
        entries = [entry for lane in model.lanes.values() for entry in lane]
        places = Counter(entry["id"] for entry in entries)
        places.update(job_id for job_id, job in model.jobs.items() if job["state"] != "lane")
        found += [
            f"job {job_id} is in {places[job_id]} places" for job_id in {*model.jobs, *places} if places[job_id] != 1
        ]
        if found:
            return found
        counts = {state: model.in_state(state) for state in ("waiting", "active", "delayed", *ENDED)}
        if sorted(job_id for ids in counts.values() for job_id in ids) != sorted(model.jobs):
            found.append(f"the states hold {counts}, and there are {sorted(model.jobs)}")
        for state, ids in counts.items():
            found += [f"job {i} is counted as {state} and is {model.state(i)}" for i in ids if model.state(i) != state]
            found += [
                f"job {i} is {state} and has ended {self.ends[i]} times"
                for i in ids
                if self.ends[i] != (state in ENDED)
            ]
        if model.size() != len(entries):
            found.append(f"the size is {model.size()}, and there are {len(entries)} entries")
        letters = sorted(letter["id"] for letter in model.letters)
        if letters != sorted(counts["failed"]):
            found.append(f"there are letters of {letters}, and {counts['failed']} have failed")
        held = {(entry["n"], entry["who"]) for entry in model.active()}
        for entry in model.active():
            who, job = entry["who"], model.jobs[entry["id"]]
            claim = self.claims[who]
            if who not in model.leases:
                found.append(f"job {entry['id']} is held by {who}, whom no lease speaks for")
            if who not in self.dead and not self.is_unsure[who] and (claim is None or claim["n"] != entry["n"]):
                found.append(f"job {entry['id']} is held by {who}, who does not know of it")
            if job["mark"] == entry["n"] and who not in self.dead and not (claim and claim["started"]):
                found.append(f"job {entry['id']} is marked as started, and {who} has not started it")
        waiting = {entry["n"] for entry in entries} - {n for n, _ in held}
        found += [
            f"job {i} waits and is marked as started" for i in counts["waiting"] if model.jobs[i]["mark"] in waiting
        ]
        if not {(n, asked["worker"]) for n, asked in model.cancels.items()} <= held:
            found.append("somebody is asked to cancel what he does not hold")
        return found


class Fault(AssertionError):
    """A state that must not be, and the way to it."""

    def __init__(self, faults: list[str], way: list[Action]) -> None:
        super().__init__("\n".join([*faults, "after", *map(" ".join, way)]))


class Explored:
    """The states that were met, each with the first way to it."""

    def __init__(self, start: World) -> None:
        self.start = start
        self.came: dict[tuple[Any, ...], tuple[tuple[Any, ...], Action] | None] = {start.key(): None}
        self.steps = 0

    def way_to(self, key: tuple[Any, ...]) -> list[Action]:
        """The actions that lead to a state: no other way is shorter."""
        way: list[Action] = []
        while (came := self.came[key]) is not None:
            key, action = came
            way.append(action)
        return way[::-1]


def explore(start: World) -> Explored:
    """Go through all states.

    Raises:
        Fault: One of them must not be; the way to it is one of the shortest.
    """
    explored, todo = Explored(start), deque([(start, start.key())])
    while todo:
        world, key = todo.popleft()
        for action in world.actions():
            after = world.step(action)
            explored.steps += 1
            reached = after.key()
            if reached not in explored.came:
                if faults := after.faults():
                    raise Fault(faults, [*explored.way_to(key), action])
                explored.came[reached] = key, action
                todo.append((after, reached))
    return explored


def _same(told: Any, real: Any) -> None:
    assert real is None or told == real, f"{real} is told, not {told}"
