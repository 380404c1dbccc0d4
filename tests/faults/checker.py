"""Judges a ledger: was every accepted job run, run once, and by one worker at a time?

Knows nothing of streamq; its own test plants losses and duplicates.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.ledger import Line

Window = tuple[float, float]
"""A span of monotonic time in which a fault was on."""


@dataclass(frozen=True)
class Run:
    """One entry into a handler. `end` is infinite for a run that nobody saw end."""

    job: str
    attempt: int
    pid: int
    start: float
    end: float = math.inf
    outcome: str = ""


@dataclass
class Verdict:
    """What a ledger shows."""

    accepted: set[str]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    deaths: dict[int, float] = field(default_factory=dict)
    """When each process died that was killed."""
    due: dict[str, float] = field(default_factory=dict)
    """Before when a job must not start, where its producer said so."""
    accepted_at: dict[str, float] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    """When each producer first asked for a job, where it said so."""
    accepted_twice: set[str] = field(default_factory=set)

    @property
    def lost(self) -> set[str]:
        """Jobs that were accepted and never started."""
        return self.accepted - self.runs.keys()

    @property
    def unknown(self) -> set[str]:
        """Jobs that ran and that no producer was told of (its answer may have been lost)."""
        return self.runs.keys() - self.accepted

    @property
    def unfinished(self) -> set[str]:
        """Jobs of which no run came to its end."""
        return {job for job, runs in self.runs.items() if not any(run.outcome for run in runs)}

    @property
    def early(self) -> dict[str, float]:
        """Jobs that started before they were due, and by how many seconds."""
        starts = {job: min(run.start for run in runs) for job, runs in self.runs.items() if job in self.due}
        return {job: self.due[job] - start for job, start in starts.items() if start < self.due[job]}

    @property
    def total_runs(self) -> int:
        """All entries into handlers."""
        return sum(map(len, self.runs.values()))

    def runs_of(self, job: str) -> int:
        """Return how often a job ran."""
        return len(self.runs.get(job, ()))

    @property
    def repeated(self) -> dict[str, int]:
        """Jobs that ran more than once, retries included, and how often."""
        return {job: len(runs) for job, runs in self.runs.items() if len(runs) > 1}

    @property
    def overlapping(self) -> list[tuple[Run, Run]]:
        """Pairs of runs of one job that were under way at the same time."""
        return self.overlapping_by(lambda job: job)

    def overlapping_by(self, key_of: Callable[[str], str | None]) -> list[tuple[Run, Run]]:
        """Return the pairs of runs of jobs of one key that were under way at the same time; None is no key."""
        by_key: defaultdict[str, list[Run]] = defaultdict(list)
        for job, runs in self.runs.items():
            if (key := key_of(job)) is not None:
                by_key[key] += runs
        found = []
        for runs in by_key.values():
            open_runs: list[Run] = []
            for run in sorted(runs, key=lambda run: run.start):
                open_runs = [earlier for earlier in open_runs if earlier.end > run.start]
                found += [(earlier, run) for earlier in open_runs]
                open_runs.append(run)
        return found

    def most_at_once(self, key_of: Callable[[str], str | None]) -> dict[str, int]:
        """Return how many runs of jobs of each key were under way at the same time, at most; None is no key."""
        moments: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
        for job, runs in self.runs.items():
            if (key := key_of(job)) is not None:
                moments[key] += [moment for run in runs for moment in ((run.start, 1), (run.end, -1))]
        return {key: max(itertools.accumulate(change for _, change in sorted(found))) for key, found in moments.items()}

    def out_of_order(self, key_of: Callable[[str], str | None]) -> list[tuple[str, str]]:
        """Return pairs of jobs of one key that were to run one after the other: the later one began too early.

        A job comes before another one if it was accepted before that was asked for; then its last run, retries and
        repeats included, has to end before the other's first one starts. Jobs that were asked for at the same time have
        no order.
        """
        by_key: defaultdict[str, list[str]] = defaultdict(list)
        for job in self.runs.keys() & self.accepted_at.keys() & self.asked_at.keys():
            if (key := key_of(job)) is not None:
                by_key[key].append(job)
        found = []
        for jobs in by_key.values():
            jobs.sort(key=self.accepted_at.__getitem__)
            for later in jobs:
                for earlier in jobs:
                    if self.accepted_at[earlier] >= self.asked_at[later]:
                        break
                    if max(run.end for run in self.runs[earlier]) > self.runs[later][0].start:
                        found.append((earlier, later))
        return found

    def too_soon(self, parent_of: Callable[[str], str | None]) -> set[str]:
        """Return the parents that started before each of their children had come to an end once."""
        ended: dict[str, float] = {}
        for job, runs in self.runs.items():
            if (parent := parent_of(job)) is not None:
                first = min((run.end for run in runs if run.outcome), default=math.inf)
                ended[parent] = max(ended.get(parent, -math.inf), first)
        return {parent for parent, at in ended.items() if parent in self.runs and self.runs[parent][0].start < at}

    def recoveries(self, outages: Sequence[Window] = ()) -> list[float]:
        """Return how long each run that was killed waited for its job's next start.

        Counted from its process's death, or from the end of an outage of the server that was on meanwhile.
        """
        found = []
        for runs in self.runs.values():
            for run in runs:
                again = min((other.start for other in runs if other.start > run.end), default=math.inf)
                if not run.outcome and run.end < again < math.inf:
                    returns = [until for since, until in outages if since < again and until > run.end]
                    found.append(again - max(run.end, *returns, -math.inf))
        return found

    @property
    def duplicates(self) -> list[tuple[Run, Run]]:
        """Pairs of successive runs of the same attempt: repeats that are no retries."""
        return self.duplicates_outside(())

    @property
    def duplicates_without_a_death(self) -> list[tuple[Run, Run]]:
        """The duplicates that are not owed to the death of the first run's process between the two starts."""
        return [
            (first, second)
            for first, second in self.duplicates
            if not first.start <= self.deaths.get(first.pid, -math.inf) <= second.start
        ]

    def duplicates_outside(self, windows: Sequence[Window]) -> list[tuple[Run, Run]]:
        """Return the duplicates that no fault explains: none was on from the first run's start to the second's."""
        found = []
        for runs in self.runs.values():
            by_attempt: defaultdict[int, list[Run]] = defaultdict(list)
            for run in runs:
                by_attempt[run.attempt].append(run)
            for same in by_attempt.values():
                for first, second in itertools.pairwise(same):
                    if not any(since <= second.start and first.start <= until for since, until in windows):
                        found.append((first, second))
        return found


def check(lines: Iterable[Line]) -> Verdict:
    """Read a ledger's lines and return what they show."""
    verdict = Verdict(set())
    open_runs: dict[tuple[str, int, int], list[Run]] = defaultdict(list)
    done: list[Run] = []
    for line in lines:
        if line.kind == "accepted":
            if line.job in verdict.accepted:
                verdict.accepted_twice.add(line.job)
            verdict.accepted.add(line.job)
            verdict.accepted_at[line.job] = line.at
            if "asked" in line.more:
                verdict.asked_at[line.job] = line.more["asked"]
            if "due" in line.more:
                verdict.due[line.job] = line.more["due"]
        elif line.kind == "start":
            open_runs[line.job, line.attempt, line.pid].append(Run(line.job, line.attempt, line.pid, line.at))
        elif line.kind == "end":
            started = open_runs[line.job, line.attempt, line.pid]
            if not started:
                raise ValueError(f"the ledger ends a run that never started: {line}")
            run = started.pop(0)
            done.append(Run(run.job, run.attempt, run.pid, run.start, line.at, line.outcome))
        elif line.kind == "killed":
            verdict.deaths[line.pid] = line.at
            for started in open_runs.values():
                done += [Run(r.job, r.attempt, r.pid, r.start, line.at) for r in started if r.pid == line.pid]
                started[:] = [r for r in started if r.pid != line.pid]
    for started in open_runs.values():
        done += started
    for run in sorted(done, key=lambda run: run.start):
        verdict.runs.setdefault(run.job, []).append(run)
    return verdict
