"""tick, and all else that touches keyed jobs, in random order: places, parked jobs and counts hold after every step."""

from __future__ import annotations

import os
import random

import pytest

from streamq._engine.operators import UNCHANGED, Unchanged
from streamq._engine.pages import Step
from streamq._engine.transitions import Claim
from tests.lua.conftest import Bench, done, fail, release, retry
from tests.lua.test_tick_return import give_back

STEPS = 2000 if os.environ.get("STREAMQ_LONG") == "1" else 150
KEYS = ("a", "b", "c", "strict")
WORKERS = ("ann", "bob")


class Model:
    """What a random run has done, and what must hold whatever that was."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.random = bench, random.Random(seed)  # noqa: S311
        self.running: dict[str, list[Claim]] = {worker: [] for worker in WORKERS}
        self.key_of: dict[str, str] = {}

    async def add(self) -> None:
        key, count = self.random.choice(KEYS), self.random.randint(1, 4)
        lane = 3 if key == "strict" else self.random.randint(1, 4)
        start = self.random.choice(["0", "0", "0", "+60000"]) if key != "strict" else "0"
        first = int(await self.bench.add(count=count, key=key, lane=lane, start=start))
        self.key_of |= {str(first + at): key for at in range(count)}

    async def plain(self) -> None:
        await self.bench.add(count=2, lane=self.random.randint(1, 4))

    async def claim(self) -> None:
        worker = self.random.choice(WORKERS)
        self._took(worker, (await self.bench.tick(worker, self.random.randint(1, 6))).claimed)

    async def settle(self) -> None:
        worker = self.random.choice(WORKERS)
        ends = self.random.sample(self.running[worker], self.random.randint(0, len(self.running[worker])))
        outcomes = []
        for claim in ends:
            strict = self.key_of.get(claim.job_id) == "strict"
            how = self.random.choice([done, fail, "gone", retry, "later", release, give_back])
            if how == "gone":
                outcomes.append(done(claim, keep=0))
            elif how == "later":
                outcomes.append(retry(claim, 60_000))
            elif strict and how is fail:
                outcomes.append(done(claim))
            else:
                outcomes.append(how(claim))  # type: ignore[operator]
        self.running[worker] = [claim for claim in self.running[worker] if claim not in ends]
        want = self.random.choice([0, 3])
        self._took(worker, (await self.bench.tick(worker, want, outcomes)).claimed)

    async def lose_a_worker(self) -> None:
        worker = self.random.choice(WORKERS)
        self.bench.lapse(worker)
        self.running[worker] = []
        other = WORKERS[1 - WORKERS.index(worker)]
        await self.bench.tick(other, max_stalls=100)

    async def let_time_pass(self) -> None:
        for job_id in self.bench.scores("delayed"):
            if self.random.random() < 0.5:
                self.bench.redis.zadd(self.bench.key("delayed"), {job_id: 1})
        await self.bench.tick("ann")

    async def take_one_out(self) -> None:
        job_id = self._some_job()
        if job_id is None:
            return
        if self.random.random() < 0.5:
            await self.bench.store.remove(job_id)
        else:
            await self.bench.store.cancel(job_id, "why not")

    async def move_one(self) -> None:
        job_id = self._some_job()
        if job_id is None or self.key_of[job_id] == "strict":
            return
        await self.random.choice([self.bench.store.retry, self.bench.store.promote])(job_id)
        await self.bench.store.change_priority(job_id, self.random.randint(1, 4))

    async def change_a_limit(self) -> None:
        key = self.random.choice(KEYS[:3])
        most = self.random.choice([None, 2, 5] if key == "c" else [None, 1, 2, 5])
        weight: int | Unchanged = self.random.choice([UNCHANGED, 1, 3])
        await self.bench.store.limit_key(key, UNCHANGED, most, weight)

    async def pause_or_resume(self) -> None:
        key = self.random.choice(KEYS[:3])
        await self.random.choice([self.bench.store.pause_key, self.bench.store.resume_key])(key)

    async def clean(self) -> None:
        if self.random.random() < 0.1:
            await self.bench.store.drain(self.random.random() < 0.5, Step(), 5)

    def _some_job(self) -> str | None:
        return self.random.choice(sorted(self.key_of)) if self.key_of else None

    def _took(self, worker: str, claims: list[Claim]) -> None:
        self.running[worker] += claims
        for claim in claims:
            if self.key_of.get(claim.job_id) == "strict":
                earlier = [j for j, key in self.key_of.items() if key == "strict" and int(j) < int(claim.job_id)]
                unended = [j for j in earlier if self.bench.record(j).get("s") in (b"q", b"p", b"d")]
                assert unended == [], f"{claim.job_id} starts before {unended} of its key have ended"

    def check(self) -> None:
        assert self.bench.disagreements() == []
        strict = [
            claim.job_id for held in self.running.values() for claim in held
            if self.key_of.get(claim.job_id) == "strict" and self.bench.record(claim.job_id).get("s") == b"q"
        ]  # fmt: skip
        assert len(strict) <= 1, f"two of a key that runs one at a time: {strict}"
        resting = [job_id for job_id in self.bench.scores("places:c") if self.bench.record(job_id)["s"] == b"d"]
        assert resting == [], f"{resting} wait for their time, and keep others of their key from running"

    async def finish(self) -> None:
        """Lift everything and run until nothing is left."""
        for key in KEYS[:3]:
            await self.bench.store.limit_key(key, None, None, None)
            await self.bench.store.resume_key(key)
        for worker in WORKERS:
            self.bench.lapse(worker)
        for _ in range(10_000):
            for job_id in self.bench.scores("delayed"):
                self.bench.redis.zadd(self.bench.key("delayed"), {job_id: 1})
            claims = (await self.bench.tick("cis", 50, max_stalls=100)).claimed
            if not claims and not self.bench.scores("delayed"):
                break
            self._took("ann", claims)
            await self.bench.tick("cis", 0, [done(claim) for claim in claims])
            self.running["ann"] = []
        counts = await self.bench.store.stats()
        assert (sum(counts.waiting.values()), counts.active, counts.delayed) == (0, 0, 0)
        assert self.bench.scores("keys") == {"strict": 0}


@pytest.mark.parametrize("seed", range(6))
async def test_places_hold_whatever_happens_to_jobs(bench: Bench, seed: int) -> None:
    """Of a key that runs one at a time each job has ended, its retries included, before the next one starts."""
    model = Model(bench, seed)
    await bench.store.limit_key("strict", UNCHANGED, 1, UNCHANGED)
    steps = (
        *(model.add, model.add, model.plain, model.claim, model.claim, model.settle, model.settle, model.settle),
        *(model.let_time_pass, model.take_one_out, model.move_one, model.change_a_limit, model.pause_or_resume),
        *(model.lose_a_worker, model.clean),
    )
    for _ in range(STEPS):
        await model.random.choice(steps)()
        model.check()
    await model.finish()
