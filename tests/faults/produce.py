"""A producer process of the kill storm: adds jobs of every kind, and notes in the ledger what was accepted.

    python -m tests.faults.produce NUMBER COUNT PER_SECOND SEED [KIND …]

The kinds are those to leave out. Its address comes from the environment. What Redis may or may not have taken (the
answer never came) is added again under the same id if it has one of its own, else noted as unsure. It waits while much
waits: the storm measures how fast lost work comes back, not how long a queue may grow.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from streamq import Backoff, FlowJob, JobOptions, Queue, Retention, Settings, Unique
from streamq.errors import StoreError
from tests.faults.ledger import Ledger

QUEUE, LIMITED = "faults", "limited"
FAILS = "fails-"
"""How the ids of jobs begin that are to fail in the end."""
UNIQUE = "unique-"
"""How the ids of jobs begin that have a unique key, which is the letter behind it."""
ORDERED, PAIRED = "ordered-", "paired-"
"""How the ids of jobs begin whose key, the letter behind it, may run one at a time; two at a time."""
FLOW, CHILD = "flow-", "child-"
"""How the ids of parents begin, and their children's: `child-0-<the parent's id>` and so on."""
MOST_WAITING = 150
LONGEST_DELAY = 3.0
AT_ONCE = 5

Making = tuple[str, str, Any, dict[str, Any]]
"""Queue, name, data and options of a job."""


class Mix:
    """Draws jobs of all kinds but those left out; `number` keeps the ids of several producers apart."""

    def __init__(self, number: str, chance: random.Random, without: Iterable[str] = ()) -> None:
        self._number, self._chance, self._made = number, chance, 0
        self.kinds: dict[Callable[[], Making], int] = {
            self.plain: 35, self.long: 10, self.thread: 8, self.delayed: 15, self.retried: 10, self.failing: 4,
            self.named: 10, self.limited: 8, self.unique: 8, self.flow: 3, self.ordered: 6, self.paired: 4,
        }  # fmt: skip
        for kind in without:
            del self.kinds[getattr(self, kind)]

    def draw(self) -> Making:
        """Return one job."""
        self._made += 1
        kinds = list(self.kinds)
        return self._chance.choices(kinds, [self.kinds[kind] for kind in kinds])[0]()

    def _own_id(self, prefix: str = "") -> str:
        return f"{prefix}{self._number}-{self._made}"

    def plain(self) -> Making:
        return QUEUE, "sleep", self._chance.uniform(0, 0.05), {}

    def long(self) -> Making:
        return QUEUE, "sleep", self._chance.uniform(0.2, 0.6), {"priority": self._chance.choice([1, 2, 3, 4])}

    def thread(self) -> Making:
        return QUEUE, "thread-sleep", self._chance.uniform(0, 0.05), {}

    def delayed(self) -> Making:
        return QUEUE, "noop", None, {"delay": self._chance.uniform(0.05, LONGEST_DELAY)}

    def retried(self) -> Making:
        failures = self._chance.choice([1, 2])
        data = {"failures": failures, "value": failures}
        return QUEUE, "echo-later", data, {"attempts": 3, "backoff": Backoff.fixed(self._chance.uniform(0, 0.5))}

    def failing(self) -> Making:
        options = {"attempts": 2, "backoff": Backoff.fixed(0.1), "job_id": self._own_id(FAILS)}
        return QUEUE, "raise", {"kind": "ValueError"}, options

    def named(self) -> Making:
        return QUEUE, "sleep", self._chance.uniform(0, 0.05), {"job_id": self._own_id("own-")}

    def limited(self) -> Making:
        return LIMITED, "sleep", self._chance.uniform(0, 0.02), {"job_id": self._own_id("limited-")}

    def unique(self) -> Making:
        key = self._chance.choice("abcdefghij")
        options = {"job_id": self._own_id(f"{UNIQUE}{key}-"), "unique": Unique(key)}
        return QUEUE, "sleep", self._chance.uniform(0.05, 0.3), options

    def ordered(self) -> Making:
        key, failures = self._chance.choice("abcd"), self._chance.choice([0, 0, 0, 1])
        options = {"job_id": self._own_id(f"{ORDERED}{key}-"), "key": f"{ORDERED}{key}", "attempts": 3}
        if failures:
            data = {"failures": failures, "value": failures}
            return QUEUE, "echo-later", data, {**options, "backoff": Backoff.fixed(self._chance.uniform(0, 0.2))}
        return QUEUE, "sleep", self._chance.uniform(0.05, 0.2), options

    def paired(self) -> Making:
        key = self._chance.choice("ab")
        options = {"job_id": self._own_id(f"{PAIRED}{key}-"), "key": f"{PAIRED}{key}"}
        return QUEUE, "sleep", self._chance.uniform(0.1, 0.3), options

    def flow(self) -> Making:
        naps = [self._chance.uniform(0, 0.1) for _ in range(3)]
        return QUEUE, FLOW, naps, {"job_id": self._own_id(FLOW)}


class Producer:
    """Adds a mix of jobs to the queues, several at once, at a steady rate."""

    def __init__(self, mix: Mix, ledger: Ledger) -> None:
        settings = Settings.from_env()
        keep = Retention(count=10_000_000, age=86_400)
        defaults = JobOptions(keep_completed=keep, keep_failed=keep)
        self._queues = {name: Queue(name, settings=settings, defaults=defaults) for name in (QUEUE, LIMITED)}
        self._mix, self._ledger = mix, ledger

    async def run(self, count: int, per_second: float) -> None:
        """Add so many jobs and return when each of them is known to be in, or noted as unsure."""
        start, left = time.monotonic(), count
        while left > 0:
            size = min(AT_ONCE, left)
            await asyncio.gather(*(self._add(*self._mix.draw()) for _ in range(size)))
            left -= size
            ahead = start + (count - left) / per_second - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            if (count - left) % 50 < AT_ONCE:
                await self._wait_for_room()
        for queue in self._queues.values():
            await queue.close()

    async def _add(self, queue: str, name: str, data: Any, options: dict[str, Any]) -> None:
        asked = time.monotonic()
        due = asked + options.get("delay", 0.0)
        while True:
            try:
                if name == FLOW:
                    await self._add_flow(data, options["job_id"])
                    return
                job = await self._queues[queue].add(name, data, **options)
            except StoreError as error:
                if "job_id" in options:
                    continue
                self._ledger.note("unsure", error=str(error))
                return
            if job.id == options.get("job_id", job.id):  # else another one held the unique key
                self._ledger.accept([job.id], due=due, asked=asked)
            else:
                self._ledger.note("held back")
            return

    async def _add_flow(self, naps: list[float], job_id: str) -> None:
        """Add a parent that wants its children's results."""
        children = [FlowJob("sleep", nap, job_id=f"{CHILD}{at}-{job_id}") for at, nap in enumerate(naps)]
        await self._queues[QUEUE].add_flow(FlowJob("add-up", naps, children=children, job_id=job_id))
        self._ledger.accept([job_id, *(f"{CHILD}{at}-{job_id}" for at in range(len(naps)))])

    async def _wait_for_room(self) -> None:
        for queue in self._queues.values():
            while True:
                try:
                    if (await queue.stats()).waiting < MOST_WAITING:
                        break
                except StoreError:
                    continue
                await asyncio.sleep(0.05)


def main() -> None:
    """Run one producer as its arguments say."""
    number, count, per_second, seed, *without = sys.argv[1:]
    ledger = Ledger.from_environment()
    mix = Mix(number, random.Random(int(seed)), without)  # noqa: S311
    asyncio.run(Producer(mix, ledger).run(int(count), float(per_second)))


if __name__ == "__main__":
    main()
