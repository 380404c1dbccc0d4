"""What a storm's ledger says about the queue. Knows no queue: only what was accepted, refused, begun and ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.checker import Run, Window, check
from tests.faults.ledger import Line

RETURNED = "returned"
"""How a run ends that did its work. A run that was cancelled or raised has not."""


@dataclass
class Outcome:
    """What came of one queue's storm."""

    accepted: int = 0
    refused: int = 0
    """Adds that raised: not among the accepted, whatever became of them."""
    refused_and_run: int = 0
    never_run: set[str] = field(default_factory=set)
    never_ended: set[str] = field(default_factory=set)
    """Jobs that were begun and, run as often as they may, never came to their end."""
    repeated: int = 0
    """Jobs that ran again after a worker that had begun them was killed or frozen, or ended by itself."""
    repeated_otherwise: set[str] = field(default_factory=set)
    """Jobs that ran again although nothing had happened to the worker that ran them."""
    recoveries: list[float] = field(default_factory=list)
    ended_by_themselves: int = 0
    hung: int = 0
    """Adds that never came back, so that their producer was killed."""
    stuck: int = 0
    """Jobs that came to their end only when all workers had been started anew at the end."""

    @property
    def lost(self) -> int:
        """Jobs that `add` had accepted and that never came to their end."""
        return len(self.never_run) + len(self.never_ended)


def judge(lines: Iterable[Line], outages: Sequence[Window] = ()) -> Outcome:
    """Read the ledger of a storm and return what became of the jobs."""
    lines = list(lines)
    verdict = check(lines)
    notes = Counter(line.outcome for line in lines if line.kind == "note")
    refused = {line.job for line in lines if line.kind == "note" and line.outcome == "refused"}
    ended = {job for job, runs in verdict.runs.items() if any(run.outcome == RETURNED for run in runs)}
    found = Outcome(len(verdict.accepted), len(refused), len(refused & verdict.runs.keys()))
    found.never_run = verdict.accepted - verdict.runs.keys()
    found.never_ended = (verdict.accepted & verdict.runs.keys()) - ended
    found.ended_by_themselves, found.hung = notes["ended by itself"], notes["hung"]
    frozen = _spans(lines)
    for first, second in verdict.duplicates:
        if not _explained(first, second, verdict.deaths, frozen):
            found.repeated_otherwise.add(first.job)
    found.repeated = len(verdict.repeated.keys() - found.repeated_otherwise)
    found.recoveries = verdict.recoveries(outages)
    restarted = next((line.at for line in lines if line.kind == "note" and line.outcome == "all restarted"), None)
    if restarted is not None:
        late = [runs for job, runs in verdict.runs.items() if job in verdict.accepted and job in ended]
        found.stuck = sum(min(run.end for run in runs if run.outcome == RETURNED) > restarted for runs in late)
    return found


def _spans(lines: Iterable[Line]) -> dict[int, list[Window]]:
    """Return when each process was frozen."""
    found: defaultdict[int, list[Window]] = defaultdict(list)
    for line in lines:
        if line.kind == "note" and line.outcome == "frozen":
            for pid in line.more["pids"]:
                found[pid].append((line.at, line.at + line.more["lasts"]))
    return found


def _explained(first: Run, second: Run, deaths: dict[int, float], frozen: dict[int, list[Window]]) -> bool:
    died = deaths.get(first.pid, -1.0)
    if first.start <= died <= second.start:
        return True
    return any(since <= second.start and first.start <= until for since, until in frozen.get(first.pid, ()))
