"""tick, settle, of random flows: what Redis holds is compared with a model after each step."""

from __future__ import annotations

import random
from typing import Any, cast, get_args

import pytest

from streamq import FlowJob
from streamq._engine.transitions import Claim
from streamq.flow import OnFailure, ordered
from tests.lua.conftest import Bench, done, fail, retry
from tests.lua.flows import add_flow

POLICIES = cast("tuple[OnFailure, ...]", get_args(OnFailure))


class Model:
    """What becomes of the jobs of flows, told in a few lines of Python."""

    def __init__(self, jobs: list[FlowJob]) -> None:
        self.by_id = {job.name: job for job in jobs}
        self.parents: dict[str, list[str]] = {job.name: [] for job in jobs}
        for job in jobs:
            for child in job.children:
                self.parents[child.name].append(job.name)
        self.open = {job.name: {child.name for child in job.children} for job in jobs}
        self.state = {job.name: "w" if job.children else "q" for job in jobs}
        self.starts = {job.name: 0 if job.children else 1 for job in jobs}

    def end(self, job_id: str, state: str) -> None:
        """A job has ended as completed (c), failed (f), cancelled (x) or removed (-)."""
        before, self.state[job_id] = self.state[job_id], state
        if before in "cfx":
            return
        for parent in self.parents[job_id]:
            if job_id not in self.open[parent]:
                continue
            self.open[parent].discard(job_id)
            if self.state[parent] != "w":
                continue
            policy = "" if state == "c" else self.by_id[job_id].on_failure
            if policy == "fail":
                self.end(parent, "f")
            elif policy == "continue" or not self.open[parent]:
                if self.by_id[parent].only_failed and policy != "continue":
                    self.end(parent, "c")
                else:
                    self.state[parent], self.starts[parent] = "q", self.starts[parent] + 1


def random_flow(chance: random.Random, size: int) -> FlowJob:
    """A graph without cycles: each job waits for some of those made before it; the last one for all that are left."""
    jobs: list[FlowJob] = []
    for n in range(size):
        children = chance.sample(jobs, min(len(jobs), chance.choice((0, 0, 1, 2, 3))))
        jobs.append(FlowJob(f"j{n}", children=children, job_id=f"j{n}", on_failure=chance.choice(POLICIES)))
        jobs[-1].only_failed = bool(children) and chance.random() < 0.1
    used = {child for job in jobs for child in job.children}
    left = [job for job in jobs if job not in used]
    return FlowJob("top", children=left, job_id="top", on_failure="fail")


def told(bench: Bench, job_id: str) -> str:
    return bench.record(job_id).get("s", b"-").decode()


@pytest.mark.parametrize("seed", range(40))
async def test_random_flows_end_as_the_model_says_and_each_parent_starts_once(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    flow = random_flow(chance, chance.randint(3, 25))
    jobs = ordered(flow)
    model = Model(jobs)
    await add_flow(bench, flow)
    held: dict[str, Claim] = {}
    past: list[Any] = []
    for _ in range(6 * len(jobs)):
        held |= {claim.job_id: claim for claim in await bench.claim(want=chance.randint(0, 3))}
        step = chance.choice(("end", "end", "end", "retry", "again", "cancel", "remove", "look"))
        unended = sorted(name for name, state in model.state.items() if state in "wq" and name not in held)
        if step == "end" and held:
            outcomes = []
            for job_id in chance.sample(sorted(held), min(len(held), chance.randint(1, 3))):
                ends, state = chance.choice(((done, "c"), (done, "c"), (fail, "f")))
                outcomes.append(ends(held.pop(job_id), keep=chance.choice((100, 100))))
                model.end(job_id, state)
            past += outcomes
            assert (await bench.tick(outcomes=outcomes)).stale == []
        elif step == "retry" and held:
            job_id = chance.choice(sorted(held))
            await bench.tick(outcomes=[retry(held.pop(job_id))])
        elif step == "again" and past:
            assert (await bench.tick(outcomes=[chance.choice(past)])).stale == [0]
        elif step == "cancel" and unended and chance.random() < 0.3:
            job_id = chance.choice(unended)
            assert await bench.store.cancel(job_id, "why not") == "cancelled"
            model.end(job_id, "x")
        elif step == "remove" and chance.random() < 0.3:
            job_id = chance.choice(sorted(set(model.state) - set(held)))
            await bench.store.remove(job_id, force=False)
            model.end(job_id, "-")
        assert {name: told(bench, name) for name in model.state} == model.state
        assert bench.disagreements() == []
    while True:
        held |= {claim.job_id: claim for claim in await bench.claim(want=100)}
        if not held:
            break
        job_id, claim = held.popitem()
        model.end(job_id, "c")
        await bench.tick(outcomes=[done(claim)])
    assert {name: told(bench, name) for name in model.state} == model.state
    assert set(model.state.values()) <= set("cfx-")
    for job in jobs:
        if job.children:
            assert bench.events_of(job.name).count("children_ended") == model.starts[job.name]
            assert model.starts[job.name] <= 1
