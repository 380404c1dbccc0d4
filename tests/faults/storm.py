"""The kill storm: workers and the server die again and again under a mixed load, and the ledger has to come out right.

Judged from outside: by the ledger, which knows what was accepted and run, and by the raw keys and events of the queues.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from streamq import Queue, RateLimit
from tests.faults.checker import Run, Verdict, Window, check
from tests.faults.clocks import faketime
from tests.faults.figures import at_most, percentile
from tests.faults.ledger import ENVIRONMENT
from tests.faults.produce import CHILD, FAILS, LIMITED, ORDERED, PAIRED, QUEUE, UNIQUE
from tests.faults.scene import Scene
from tests.faults.state import base_of, clean_state, ended_ids, is_idle
from tests.faults.workers import ROOT, WorkerProcess, ends_with_us, eventually

TERMINAL = {b"completed", b"failed", b"cancelled"}
LIMIT_PER_SECOND = 100
CONCURRENCY = 25
"""Slots enough for all: what waits for a slot would count as a slow recovery."""
MANY = "100000000"


@dataclass(frozen=True)
class Plan:
    """How much of everything. Times are seconds, spans are drawn from evenly."""

    seed: int
    jobs: int
    least_kills: int
    least_server_kills: int
    per_second: float
    workers: int = 4
    producers: int = 2
    lease: float = 3.0
    sweep: float = 0.5
    kill_every: tuple[float, float] = (1.0, 3.0)
    server_every: tuple[float, float] = (15.0, 25.0)
    server_away: tuple[float, float] = (0.2, 1.0)
    drain_within: float = 120.0
    worker_clocks: tuple[str, ...] = ()
    """What libfaketime does to the clock of each worker, of each producer; nothing by default."""
    producer_clocks: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Kinds of jobs that the producers leave out."""

    @property
    def recovery_bound(self) -> float:
        """Within which a killed worker's job has to start elsewhere."""
        return self.lease + self.sweep + 1.0


@dataclass
class Outcome:
    """What the storm did and what came of it."""

    kills: int = 0
    server_kills: int = 0
    took: float = 0.0
    accepted: int = 0
    unsure: int = 0
    held_back: int = 0
    runs: int = 0
    lost: set[str] = field(default_factory=set)
    unfinished: set[str] = field(default_factory=set)
    unexplained: list[tuple[Run, Run]] = field(default_factory=list)
    overlapping: list[tuple[Run, Run]] = field(default_factory=list)
    of_one_key: list[tuple[Run, Run]] = field(default_factory=list)
    keyed: int = 0
    out_of_order: list[tuple[str, str]] = field(default_factory=list)
    of_one_place: list[tuple[Run, Run]] = field(default_factory=list)
    crowded: dict[str, int] = field(default_factory=dict)
    repeated_by_kills: int = 0
    early: dict[str, float] = field(default_factory=dict)
    children: int = 0
    before_their_children: set[str] = field(default_factory=set)
    wrong_ends: dict[str, list[str]] = field(default_factory=dict)
    recoveries: list[float] = field(default_factory=list)
    outages: list[Window] = field(default_factory=list)

    def faults(self) -> dict[str, int]:
        """What was broken, and how often."""
        return {"workers killed": self.kills, "server killed": self.server_kills}

    def found(self) -> dict[str, Any]:
        """What came of it, for people."""
        found: dict[str, Any] = {
            "jobs accepted": self.accepted,
            "runs": self.runs,
            "lost": at_most(len(self.lost), self.accepted),
            "unfinished": at_most(len(self.unfinished), self.accepted),
            "ended other than once": at_most(len(self.wrong_ends), self.accepted),
            "started before they were due": at_most(len(self.early), self.accepted),
            "repeated, their worker killed": self.repeated_by_kills,
            "repeated otherwise": at_most(len(self.unexplained), self.accepted),
            "runs of one unique key at once": len(self.of_one_key),
            "jobs with a key": self.keyed,
            "runs at once of a key that may run one": len(self.of_one_place),
            "keys that ran more at once than two, which they may": len(self.crowded),
            "jobs of a key that started out of order": len(self.out_of_order),
            "children of flows": self.children,
            "parents that ran before their children had": len(self.before_their_children),
            "adds held back by a unique key": self.held_back,
            "adds whose fate the producer does not know": self.unsure,
            "seconds": round(self.took, 1),
        }
        if self.outages:
            found["outage of the server, s: longest"] = round(max(until - since for since, until in self.outages), 2)
        if self.recoveries:
            found["recoveries"] = len(self.recoveries)
            for what, share in (("median", 0.5), ("p99", 0.99), ("longest", 1.0)):
                found[f"recovery, s: {what}"] = round(percentile(self.recoveries, share), 2)
        return found


class Storm:
    """Runs a plan on a scene's server."""

    def __init__(self, scene: Scene, plan: Plan) -> None:
        self.scene, self.plan, self.outcome = scene, plan, Outcome()
        self._chance = random.Random(plan.seed)  # noqa: S311
        self._environment = {
            "REDIS_URL": scene.server.url, "STREAMQ_EVENTS_CAP": MANY, "STREAMQ_LEASE": str(plan.lease),
            "STREAMQ_TIMEOUT": "5", "STREAMQ_MAX_STALLS": MANY, "STREAMQ_DEAD_CAP": MANY,
        }  # fmt: skip

    async def run(self) -> Outcome:
        """Let it rage until all jobs are in, let the queues drain, and judge."""
        plan, scene, since = self.plan, self.scene, time.monotonic()
        async with Queue(LIMITED, scene.server.url) as limited:
            await limited.set_rate_limit(RateLimit(LIMIT_PER_SECOND, per=1.0))
        async with Queue(QUEUE, scene.server.url) as queue:
            await queue.limit_key(concurrency=1)
            for letter in "ab":
                await queue.limit_key(f"{PAIRED}{letter}", concurrency=2)
        workers = [self._start_worker(number) for number in range(plan.workers)]
        await scene.workers_ready(workers)
        producers = [self._start_producer(number) for number in range(plan.producers)]
        faults = [asyncio.create_task(self._kill_workers(workers)), asyncio.create_task(self._kill_server())]
        try:
            await eventually(lambda: all(p.poll() is not None for p in producers), plan.jobs, "the producers end")
        finally:
            for task in faults:
                task.cancel()
            await asyncio.gather(*faults, return_exceptions=True)
            for producer in producers:
                producer.kill()
                producer.wait(10)
        assert [producer.returncode for producer in producers] == [0] * plan.producers
        for queue in (QUEUE, LIMITED):
            await eventually(lambda queue=queue: is_idle(scene.direct, queue), plan.drain_within, scene.remains)  # type: ignore[misc]
        self.outcome.took = time.monotonic() - since
        self._judge()
        return self.outcome

    def _start_worker(self, number: int) -> WorkerProcess:
        environment = {**self._environment, **clock_of(self.plan.worker_clocks, number)}
        return self.scene.fleet.start(
            f"{QUEUE},{LIMITED}", lease=self.plan.lease, concurrency=CONCURRENCY, retry_delay_ms=100, **environment
        )

    def _start_producer(self, number: int) -> subprocess.Popen[bytes]:
        plan = self.plan
        count, rate = plan.jobs // plan.producers, plan.per_second / plan.producers
        words = [str(number), str(count), str(rate), str(plan.seed + number), *plan.without]
        environment = {
            **os.environ, **self._environment, **clock_of(plan.producer_clocks, number),
            ENVIRONMENT: str(self.scene.ledger.path),
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "tests.faults.produce", *words], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
            preexec_fn=ends_with_us(),
        )  # fmt: skip

    async def _kill_workers(self, workers: list[WorkerProcess]) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(*self.plan.kill_every))
            victim = self._chance.choice(workers)
            victim.kill()
            victim.start()
            self.outcome.kills += 1

    async def _kill_server(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(*self.plan.server_every))
            since = time.monotonic()
            self.scene.server.kill()
            try:
                await asyncio.sleep(self._chance.uniform(*self.plan.server_away))
            finally:
                self.scene.server.start()
                self.outcome.outages.append((since, time.monotonic()))
                self.outcome.server_kills += 1

    def _judge(self) -> None:
        found, lines = self.outcome, self.scene.ledger.lines()
        verdict = check(lines)
        found.accepted, found.runs = len(verdict.accepted), verdict.total_runs
        notes = Counter(line.outcome for line in lines if line.kind == "note")
        found.unsure, found.held_back = notes["unsure"], notes["held back"]
        found.lost, found.unfinished, found.overlapping = verdict.lost, verdict.unfinished, verdict.overlapping
        found.early = verdict.early
        found.of_one_key = verdict.overlapping_by(key_of(UNIQUE))
        found.keyed = sum(job.startswith((ORDERED, PAIRED)) for job in verdict.accepted)
        found.of_one_place = verdict.overlapping_by(key_of(ORDERED))
        found.out_of_order = verdict.out_of_order(key_of(ORDERED))
        found.crowded = {key: n for key, n in verdict.most_at_once(key_of(PAIRED)).items() if n > 2}
        found.children = sum(job.startswith(CHILD) for job in verdict.accepted)
        found.before_their_children = verdict.too_soon(
            lambda job: job.split("-", 2)[2] if job.startswith(CHILD) else None
        )
        found.unexplained = verdict.duplicates_without_a_death
        found.repeated_by_kills = len(verdict.duplicates) - len(found.unexplained)
        found.recoveries = verdict.recoveries(found.outages)
        assert len(verdict.unknown) <= found.unsure, sorted(verdict.unknown)[:10]
        found.wrong_ends = self._wrong_ends(verdict)
        by_queue = {LIMITED: {job for job in verdict.accepted if job.startswith("limited-")}}
        by_queue[QUEUE] = verdict.accepted - by_queue[LIMITED]
        for queue, jobs in by_queue.items():
            clean_state(self.scene.server.url, queue, jobs)

    def _wrong_ends(self, verdict: Verdict) -> dict[str, list[str]]:
        """Return the jobs that did not end exactly once, by their events, or not in the state that they should."""
        told: Counter[tuple[str, str]] = Counter()
        wrong: dict[str, list[str]] = {}
        client = self.scene.direct
        for queue in (QUEUE, LIMITED):
            told += endings(client, queue)
            for state, ids in ended_ids(client, queue).items():
                for job in ids:
                    if (state == "failed") != job.startswith(FAILS):
                        wrong.setdefault(job, []).append(state)
        for job in verdict.accepted | verdict.unknown:
            ends = [state for state in ("completed", "failed") for _ in range(told[state, job])]
            if len(ends) != 1:
                wrong.setdefault(job, []).extend(ends or ["no end"])
        return wrong


def key_of(prefix: str) -> Callable[[str], str | None]:
    """Return what tells the key of jobs whose ids begin so: the letter behind it."""
    return lambda job: job[len(prefix)] if job.startswith(prefix) else None


def clock_of(clocks: tuple[str, ...], number: int) -> dict[str, str]:
    """Return the environment that sets the clock of one process."""
    return faketime(clocks[number]) if number < len(clocks) else {}


def endings(client: Any, queue: str) -> Counter[tuple[str, str]]:
    """Count the events of each end of each job."""
    found: Counter[tuple[str, str]] = Counter()
    after = "-"
    while entries := cast(
        "list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(f"{base_of(queue)}:events", after, "+", 10_000)
    ):
        for _, fields in entries:
            for kind in fields.keys() & TERMINAL:
                found.update((kind.decode(), job) for job in fields[kind].decode().split("\0"))
        after = "(" + entries[-1][0].decode()
    return found
