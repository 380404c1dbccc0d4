"""Unique keys under random operations, beside a small model: at no time do the two say different things."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamq._engine.operators import UNCHANGED
from streamq._engine.transitions import Claim
from streamq.errors import DuplicateJob
from tests.lua.conftest import Bench, done, envelope, fail, release, retry
from tests.lua.unique import add, holder, next_one, unique_job

KEYS = "abc"
STEPS = 120


@dataclass
class Model:
    """What docs/unique.md says, over jobs of which each is `waiting` (delayed ones too), `next`, `active` or ended."""

    holders: dict[str, str] = field(default_factory=dict)
    nexts: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    data: dict[str, int] = field(default_factory=dict)
    about: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, key: str, mode: str, conflict: str, new_id: str, data: int) -> tuple[str, bool, str]:
        """Return the id, whether it is new, and what became of it."""
        there = self.holders.get(key)
        if there is None:
            self.holders[key] = new_id
            self.states[new_id] = "waiting"
        elif conflict in "ex":
            return there, False, "known" if conflict == "e" else "refused"
        else:
            older = self.nexts.get(key, there) if conflict == "l" else there
            if self.states[older] in ("waiting", "next"):
                self.data[older] = data
                return older, False, "replaced"
            if conflict == "r" or self.states[older] != "active":
                return there, False, "refused"
            self.nexts[key] = new_id
            self.states[new_id] = "next"
        self.data[new_id], self.about[new_id] = data, (key, mode)
        return new_id, True, ""

    def leaves(self, job_id: str, how: str) -> None:
        """A job starts, ends or goes."""
        key, mode = self.about[job_id]
        if self.nexts.get(key) == job_id and how != "started":
            del self.nexts[key]
        if self.holders.get(key) != job_id:
            return
        if how != "started" and key in self.nexts:
            self.holders[key] = self.nexts.pop(key)
            self.states[self.holders[key]] = "waiting"
        elif how == "removed" or (mode == "p") or (mode == "r" and how == "ended"):
            del self.holders[key]


class Run:
    """The model and the queue, moved by the same steps."""

    def __init__(self, bench: Bench, rand: random.Random, tenants: list[str | None]) -> None:
        self.bench, self.rand, self.model, self.tenants = bench, rand, Model(), tenants
        self.claims: dict[str, Claim] = {}

    def some(self, *states: str) -> str | None:
        found = sorted(job_id for job_id, state in self.model.states.items() if state in states)
        return self.rand.choice(found) if found else None

    async def add(self) -> None:
        key, mode, conflict = self.rand.choice(KEYS), self.rand.choice("prk"), self.rand.choice("exrl")
        data = self.rand.randrange(1_000_000)
        counter = int(self.bench.redis.get(self.bench.key("id")) or 0)
        start, tenant = self.rand.choice(["0", "@1", "+0"]), self.rand.choice(self.tenants)
        job = unique_job(conflict, mode, key=key, data=data, start=start, tenant=tenant)
        ((job_id, is_new, how, _),) = await add(self.bench, job)
        assert (job_id, is_new, how) == self.model.add(key, mode, conflict, str(counter + 1), data)

    async def claim(self) -> None:
        await self.bench.tick()  # what is due lines up
        for claim in await self.bench.claim(want=self.rand.randint(1, 3)):
            assert self.model.states[claim.job_id] == "waiting"
            assert claim.envelope == envelope(data=self.model.data[claim.job_id])
            self.claims[claim.job_id] = claim
            self.model.states[claim.job_id] = "active"
            self.model.leaves(claim.job_id, "started")

    async def end(self) -> None:
        job_id = self.some("active")
        if job_id is not None:
            how = self.rand.choice([done, fail])
            await self.bench.tick(outcomes=[how(self.claims.pop(job_id))])
            self.model.states[job_id] = "completed" if how is done else "failed"
            self.model.leaves(job_id, "ended")

    async def again(self) -> None:
        job_id = self.some("active")
        if job_id is not None:
            how: Any = self.rand.choice([retry, release])
            await self.bench.tick(outcomes=[how(self.claims.pop(job_id))])
            self.model.states[job_id] = "waiting"

    async def give_back(self) -> None:
        job_id = self.some("active")
        if job_id is not None:
            await self.bench.tick(outcomes=[done(self.claims.pop(job_id))._replace(kind="return")])
            self.model.states[job_id] = "waiting"
            self.model.holders.setdefault(self.model.about[job_id][0], job_id)

    async def lapse(self) -> None:
        self.bench.lapse()
        await self.bench.tick("bob", max_stalls=99)
        for job_id in self.claims:
            self.model.states[job_id] = "waiting"
        self.claims.clear()
        await self.bench.tick()

    async def remove(self) -> None:
        job_id = self.some("waiting", "next", "active", "completed", "failed")
        if job_id is not None:
            assert await self.bench.store.remove(job_id, force=True) == "removed"
            self.claims.pop(job_id, None)
            del self.model.states[job_id]
            self.model.leaves(job_id, "removed")

    async def cancel(self) -> None:
        job_id = self.some("waiting", "next", "active")
        if job_id is not None:
            word = await self.bench.store.cancel(job_id, "why not")
            if word == "asked":
                await self.bench.tick(outcomes=[done(self.claims.pop(job_id))])
            self.model.states[job_id] = "cancelled"
            self.model.leaves(job_id, "removed")

    async def retry(self) -> None:
        job_id = self.some("failed")
        if job_id is not None:
            key = self.model.about[job_id][0]
            there = self.model.holders.setdefault(key, job_id)
            if there == job_id:
                assert await self.bench.store.retry(job_id) == "retried"
                self.model.states[job_id] = "waiting"
            else:
                with pytest.raises(DuplicateJob) as caught:
                    await self.bench.store.retry(job_id)
                assert (caught.value.job_id, caught.value.key) == (there, key)

    def compare(self) -> None:
        assert {key: holder(self.bench, key) for key in KEYS} == {key: self.model.holders.get(key) for key in KEYS}
        assert {key: next_one(self.bench, key) for key in KEYS} == {key: self.model.nexts.get(key) for key in KEYS}


@pytest.mark.parametrize("tenants", [[None], [None, "x", "y"]], ids=["plain", "beside limits per key"])
@pytest.mark.parametrize("seed", range(10))
async def test_model_and_queue_agree_after_every_step(bench: Bench, seed: int, tenants: list[str | None]) -> None:
    run = Run(bench, random.Random(seed), tenants)  # noqa: S311 - repeatable, no secret
    await bench.store.limit_key("x", UNCHANGED, 1, UNCHANGED)
    await bench.store.limit_key("y", UNCHANGED, 2, UNCHANGED)
    often: list[Any] = [run.add, run.add, run.add, run.claim, run.claim, run.end, run.end]
    steps = [*often, run.again, run.give_back, run.remove, run.retry, run.cancel, run.lapse]
    for _ in range(STEPS):
        await run.rand.choice(steps)()
        run.compare()
    for job_id, state in run.model.states.items():
        stored = await bench.store.get(job_id)
        assert stored is not None
        assert stored.state in {"waiting": ("waiting", "delayed"), "next": ("delayed",)}.get(state, (state,))
