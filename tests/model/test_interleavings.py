"""In whichever order workers, a sweep and a client act: each job is in one place and ends once; and the scripts agree.

All states of three small programs are gone through on the model. Ways through them, drawn at random from a fixed seed,
are then gone on a real server too, and compared after each step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.model import clock, keyspace
from tests.model.clock import set_clock
from tests.model.interleavings import (
    IDS,
    JOBS,
    LEASE_MS,
    MAX_STALLS,
    START,
    SWEEP,
    Action,
    Explored,
    Fault,
    World,
    explore,
)
from tests.model.machine import difference, laid_out
from tests.model.model import Found, Model
from tests.model.real import Real, expected

WAYS = 70
"""Through each of the three."""
SEED = 7

PROGRAMS: dict[str, Found] = {
    "two lapses": {"claims": (1, 2), "lapses": 2, "calls": 0, "lose_replies": False},
    "a client": {"claims": (1, 1), "lapses": 1, "calls": 1, "lose_replies": False},
    "lost replies": {"claims": (1, 1), "lapses": 1, "calls": 0, "lose_replies": True},
}
STATES = {"two lapses": 4_000, "a client": 4_000, "lost replies": 1_000}
"""There are more than that."""


@cache
def _met(name: str) -> Explored:
    return explore(World(Model, **PROGRAMS[name]))


class Beside:
    """A real queue that does what the world does."""

    def __init__(self, real: Real) -> None:
        self.real = real
        self.tick = real.tick

    def renew(self, worker: str, lease: int) -> tuple[bool, list[int]]:
        holds, cancels = self.real.run(self.real.store.renew(worker, lease))
        return holds, sorted(int(entry.partition("-")[0]) for entry in cancels)

    def move(self, now: int) -> None:
        set_clock(self.real.client, now)

    def call(self, what: str, job_id: str) -> str:
        store = self.real.store
        if what == "cancel":
            return self.real.run(store.cancel(job_id, "unwanted"))
        if what == "retry":
            return self.real.run(store.retry(job_id))
        return self.real.run(store.remove(job_id, force=what == "force"))


@pytest.fixture
def real(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Real]:
    """A queue whose scripts read the test's clock."""
    clock.install(monkeypatch, tmp_path / "lua")
    real = Real(redis_url)
    yield real
    real.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_no_order_does_a_job_get_lost_or_end_twice(name: str) -> None:
    """`explore` looks at each state."""
    explored = _met(name)
    print(f"{name}: {len(explored.came):,} states, {explored.steps:,} steps")
    assert len(explored.came) > STATES[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_scripts_go_the_same_ways(real: Real, name: str) -> None:
    """Each way leads through a state that was drawn, on to where nobody can do anything more."""
    explored, chance = _met(name), random.Random(SEED)  # noqa: S311 - always the same ways
    for through in chance.sample(list(explored.came), WAYS):
        _go(explored, explored.way_to(through), chance, real)


def _go(explored: Explored, way: list[Action], chance: random.Random, real: Real) -> None:
    world, gone = _begin(explored.start, real), []
    while action := way[len(gone)] if len(gone) < len(way) else _next(world, chance):
        gone.append(action)
        try:
            world = world.step(action, Beside(real))
            told, wanted = real.run(real.view(list(IDS))), expected(world.model, list(IDS))
            assert told == wanted, difference(told, wanted)
            assert real.new_events() == world.model.events
        except AssertionError as error:
            raise Fault([str(error)], gone) from error
        assert world.key() in explored.came
    assert keyspace.faults(real.client, real.base) == []


def _begin(start: World, real: Real) -> World:
    real.begin(START)
    real.run(real.store.add("n", 1, laid_out(JOBS), within=5))
    real.tick(SWEEP, 0, [], lease=LEASE_MS, max_stalls=MAX_STALLS, marks=[], list_held=False)
    real.new_events()
    return start


def _next(world: World, chance: random.Random) -> Action | None:
    """One of the actions that change something."""
    able = list(world.actions())
    chance.shuffle(able)
    return next((action for action in able if world.step(action).key() != world.key()), None)


class RequeuesUnderTheSameNumber(Model):
    """So that the lease token of who was swept still counts."""

    def _place(self, job: Found, **how: Any) -> None:
        number, self.last[job["lane"]] = job["n"] or None, 0
        super()._place(job, **{"number": number, **how})


class ForgetsToTakeTheEntry(Model):
    """Of a job that completes."""

    def _settle_one(self, outcome: Found, entry: Found) -> None:
        if outcome["kind"] == "done":
            self.lanes[outcome["lane"]].append(entry)
        super()._settle_one(outcome, entry)


class CancelsWhatRuns(Model):
    """At once, instead of asking its worker."""

    def _begin_cancel(self, job_id: str, keep: int, age: int) -> str:
        for entry in self.active():
            if entry["id"] == job_id:
                self._told, self._keep = {}, {}
                self._cancel(self.jobs[job_id], keep, age)
                return "cancelled"
        return super()._begin_cancel(job_id, keep, age)


class ForgetsWhatTheDeadHold(Model):
    """When it sweeps."""

    def _sweep(self, max_stalls: int) -> int:
        for worker in [name for name, until in self.leases.items() if until <= self.now]:
            del self.leases[worker]
        return 0


class LetsAnybodyMark(Model):
    """A suspect, also one that others hold by now."""

    def tick(self, worker: str, want: int, outcomes: Any = (), *, marks: Any = (), **said: Any) -> Found:
        for job_id in marks:
            self.jobs[job_id]["mark"] = self.jobs[job_id]["n"]
        return super().tick(worker, want, outcomes, **said)


@pytest.mark.parametrize(
    ("model", "name", "said"),
    [
        (RequeuesUnderTheSameNumber, "a client", "not its newest attempt's"),
        (ForgetsToTakeTheEntry, "two lapses", "is in 2 places"),
        (CancelsWhatRuns, "a client", "is in 2 places"),
        (ForgetsWhatTheDeadHold, "two lapses", "whom no lease speaks for"),
        (LetsAnybodyMark, "two lapses", "marked as started"),
    ],
)
def test_a_fault_in_a_transition_is_found(model: type[Model], name: str, said: str) -> None:
    with pytest.raises(Fault, match=said):
        explore(World(model, **PROGRAMS[name]))
