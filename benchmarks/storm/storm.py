"""Runs one queue through the storm: its producers add, its workers run, and what the plan says is killed and frozen.

A worker or a producer that ends by itself is started again half a second later, as a process manager would; so is a
producer whose add does not come back. When the faults are over the queue has time to recover: until nothing has come
to an end for `patience` seconds. Then all workers are started anew, as an operator would, and it has that time again.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.storm.judge import RETURNED, Outcome, judge
from benchmarks.storm.plan import Fault, Plan
from benchmarks.storm.processes import Process, is_running
from tests.faults.checker import Window
from tests.faults.ledger import ENVIRONMENT, Ledger, Line
from tests.servers import RedisServer

READY_WITHIN = 60.0
HUNG_AFTER = 30.0
"""Seconds without a sign of a producer after which its add counts as hung."""
START_AGAIN_AFTER = 0.5
MOST_RECOVERY = 600.0
NAP, LOOK_EVERY = 0.02, 0.25

MakeCommand = Callable[[str], tuple[Sequence[str], Mapping[str, str]]]
"""Returns how an adapter is started, and its environment, from the server's URL."""


@dataclass
class Seen:
    """What the ledger has said so far."""

    accepted: set[str] = field(default_factory=set)
    returned: set[str] = field(default_factory=set)
    open_runs: Counter[int] = field(default_factory=Counter)
    next_job: Counter[str] = field(default_factory=Counter)
    """By producer, the number of the first job that it has not tried to add."""
    tried_at: dict[str, float] = field(default_factory=dict)
    ready: set[int] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    came_at: float = 0.0
    """When a job last began or ended."""
    read: int = 0

    def look(self, lines: Sequence[Line]) -> None:
        """Take in what is new."""
        for line in lines[self.read :]:
            if line.kind == "start":
                self.open_runs[line.pid] += 1
                self.came_at = line.at
            elif line.kind == "end":
                self.open_runs[line.pid] -= 1
                self.came_at = line.at
                if line.outcome == RETURNED:
                    self.returned.add(line.job)
            elif line.kind == "killed":
                del self.open_runs[line.pid]
            elif line.kind == "accepted" or (line.kind == "note" and line.outcome == "refused"):
                producer, _, number = line.job.partition("-")
                self.next_job[producer], self.tried_at[producer] = int(number) + 1, line.at
                if line.kind == "accepted":
                    self.accepted.add(line.job)
            elif line.outcome == "ready":
                self.ready.add(line.pid)
            elif line.outcome == "done":
                self.done.add(line.more["producer"])
        self.read = len(lines)

    @property
    def missing(self) -> set[str]:
        """What was accepted and has not come to its end."""
        return self.accepted - self.returned


class Storm:
    """One queue's storm. `run` it once."""

    def __init__(self, plan: Plan, make: MakeCommand, *, patience: float) -> None:
        self.plan, self._make, self._patience = plan, make, patience
        self.happened: Counter[str] = Counter()
        self.server = ""
        self._outages: list[Window] = []
        self._workers: list[Process] = []
        self._producers: dict[str, Process] = {}
        self._seen, self._look_at = Seen(), 0.0
        self._folder: Path
        self._ledger: Ledger

    def run(self) -> Outcome:
        """Let it rage, let the queue recover, and judge."""
        with (
            tempfile.TemporaryDirectory(prefix="streamq-storm-") as folder,
            RedisServer(port=0, always=True) as server,
        ):
            self._folder, self._ledger = Path(folder), Ledger(Path(folder) / "ledger")
            self.server = f"{server.binary.name} {'.'.join(map(str, server.version))}"
            try:
                self._rage(server)
                self._recover()
            finally:
                for process in (*self._producers.values(), *self._workers):
                    process.kill()
            found = judge(self._ledger.lines(), self._outages)
            self._ledger.close()
        return found

    def _rage(self, server: RedisServer) -> None:
        plan = self.plan
        command, environment = self._make(server.url)
        self._workers += [self._start(f"worker-{n}", command, ["worker"], environment) for n in range(plan.workers)]
        self._wait(lambda: len(self._seen.ready) >= plan.workers, READY_WITHIN, "the workers are ready")
        for number in range(plan.producers):
            words = ["produce", str(number), str(plan.jobs // plan.producers), str(plan.per_second), str(plan.seed)]
            self._producers[str(number)] = self._start(f"producer-{number}", command, words, environment)
        since = time.monotonic()
        self._seen.tried_at = dict.fromkeys(self._producers, since)
        for fault in plan.faults():
            self._until(since + fault.at)
            self._strike(fault, server)
        self._until(since + plan.seconds)
        over = time.monotonic()
        limit = over + plan.seconds + MOST_RECOVERY
        while len(self._seen.done) < plan.producers and time.monotonic() < limit:
            self._until(time.monotonic() + 0.5)
        self._thaw(everybody=True)

    def _recover(self) -> None:
        most = max(MOST_RECOVERY, self._patience + 30)
        if self._settles(time.monotonic() + most):
            return
        self._ledger.note("all restarted")
        for worker in self._workers:
            worker.kill()
            worker.start()
        self._settles(time.monotonic() + most)

    def _settles(self, limit: float) -> bool:
        """Wait until all has come to its end; say whether it did before patience was lost."""
        since = time.monotonic()
        while self._seen.missing:
            now = time.monotonic()
            if now > limit or now - max(since, self._seen.came_at) > self._patience:
                return False
            self._until(now + 0.25)
        return True

    def _strike(self, fault: Fault, server: RedisServer) -> None:
        if fault.kind == "server killed":
            since = time.monotonic()
            server.kill()
            self._until(since + fault.lasts)
            server.start()
            self._outages.append((since, time.monotonic()))
        else:
            order = self._workers[fault.victim :] + self._workers[: fault.victim]
            victim = next((worker for worker in order if worker.alive and not worker.frozen_until), None)
            if victim is None:
                return
            if fault.kind == "workers killed":
                victim.kill()
                victim.start()
            else:
                victim.frozen_until = time.monotonic() + fault.lasts
                self._ledger.note("frozen", pids=victim.signal(signal.SIGSTOP), lasts=fault.lasts)
        self.happened[fault.kind] += 1

    def _until(self, when: float) -> None:
        """Look after all processes until then."""
        while True:
            self._thaw()
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_EVERY
                self._look()
            if now >= when:
                return
            time.sleep(min(when - now, NAP))

    def _look(self) -> None:
        """Read on in the ledger, and start again what has ended by itself."""
        for worker in self._workers:
            self._revive(worker)
        for number, producer in self._producers.items():
            self._look_after(number, producer)
        self._seen.look(self._ledger.lines())
        ours = {worker.pid for worker in self._workers}
        gone = [
            pid for pid, runs in self._seen.open_runs.items() if runs > 0 and pid not in ours and not is_running(pid)
        ]
        if gone:  # what a worker had forked, unless it has noted its end meanwhile
            self._seen.look(self._ledger.lines())
        for pid in gone:
            if self._seen.open_runs[pid] > 0:
                self._ledger.killed(pid)
                self._ledger.note("ended by itself")

    def _revive(self, process: Process, what: str = "ended by itself") -> None:
        """Start a process again that has ended by itself, a moment later."""
        now = time.monotonic()
        if process.alive:
            return
        if not process.again_at:
            process.kill()  # what it forked
            self._ledger.note(what, code=process.exit_code, log=process.log.name)
            process.again_at = now + START_AGAIN_AFTER
        elif now >= process.again_at:
            process.start()

    def _look_after(self, number: str, producer: Process) -> None:
        """Have a producer that hangs, or has ended, go on with the job behind the one that it was adding."""
        silent = time.monotonic() - self._seen.tried_at[number] > HUNG_AFTER
        if silent and number not in self._seen.done and producer.alive:
            self._ledger.note("hung")
            producer.kill()
        if not producer.alive and not producer.again_at:
            self._seen.tried_at[number] = time.monotonic()
            producer.command[-1] = str(self._seen.next_job[number] + 1)
        self._revive(producer, "producer ended")

    def _thaw(self, *, everybody: bool = False) -> None:
        for worker in self._workers:
            if worker.frozen_until and (everybody or time.monotonic() >= worker.frozen_until):
                worker.signal(signal.SIGCONT)
                worker.frozen_until = 0.0

    def _start(
        self, name: str, command: Sequence[str], words: Sequence[str], environment: Mapping[str, str]
    ) -> Process:
        named = {**environment, ENVIRONMENT: str(self._ledger.path)}
        return Process([*command, *words, "0"], named, self._folder / f"{name}.log", self._ledger)

    def _wait(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        until = time.monotonic() + limit
        while not condition():
            if time.monotonic() > until or not all(worker.alive for worker in self._workers):
                logs = "\n".join(worker.log.read_text(errors="replace")[-1500:] for worker in self._workers[:1])
                raise TimeoutError(f"not within {limit:g} s: {what}\n{logs}")
            time.sleep(NAP)
            self._seen.look(self._ledger.lines())
