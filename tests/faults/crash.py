"""Lives of producers and workers that end before or after their n-th call to Redis.

A process forks a child for each life that it is told to live on its standard input, a JSON list per line, and says on
its standard output how each ended: forking is quicker by far than starting Python anew. The child kills itself, as a
power cut would, at the call that it was told; a life that makes fewer calls than that ends with exit code 0.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import redis

from streamq import ActiveJob, FlowJob, JobOptions, Queue, Settings, Unique, Unrecoverable, Worker
from streamq._engine.wire import Wire
from tests.faults.ledger import Ledger
from tests.faults.scene import KEEP
from tests.faults.state import base_of, connect, is_idle

LEASE = 0.6
BATCH = 1_200
"""Jobs of a batch that is staged."""
LONGEST_LIFE = 20
SCHEDULE = "s"
KEEP_ALL = JobOptions(keep_completed=KEEP, keep_failed=KEEP)


def settings_for(url: str) -> Settings:
    """Return the settings of all lives, and of those who clear up after them."""
    return Settings(redis_url=url, lease=LEASE, timeout=2.0, concurrency=10, max_stalls=1_000, events_cap=1_000_000)


def processor(ledger: Ledger) -> Callable[[ActiveJob[Any]], Awaitable[Any]]:
    """Return a processor for all jobs: by name it works, reports, waits for children, fails once, or fails for good."""

    async def run(job: ActiveJob[Any]) -> Any:
        known = f"{job.queue}/{job.id}"
        ledger.start(known, job.attempt)
        try:
            match job.name:
                case "reports":
                    await job.progress(50)
                    await job.log("half way")
                case "fails once" if job.attempt == 1:
                    raise ValueError("the first time")
                case "parent":
                    return sum(await job.children_results())
                case "grows":
                    if not job.children:
                        await job.add_children([FlowJob("works", 3), FlowJob("works", 4)])
                    return sum(await job.children_results())
                case "fails":
                    raise Unrecoverable("for good")
        finally:
            ledger.end(known, job.attempt, "ended")
        return job.data

    return run


def is_done(client: redis.Redis, queue: str) -> bool:
    """Whether nothing waits, runs, is delayed or staged, and each schedule has fired."""
    base = base_of(queue)
    fired = client.hget(f"{base}:schedule:{SCHEDULE}", "fired")
    return is_idle(client, queue) and not client.exists(f"{base}:batches") and fired != b"0"


class Life:
    """What one process does, from its start to its end."""

    def __init__(self, url: str, queue: str, ledger: Ledger) -> None:
        self.url, self.queue, self.ledger = url, queue, ledger
        self.settings = settings_for(url)

    async def produce(self, act: Callable[[Queue], Awaitable[Any]]) -> None:
        """Act on the queue, note it when the act has returned, and close."""
        async with Queue(self.queue, settings=self.settings, defaults=KEEP_ALL) as queue:
            await act(queue)
            self.ledger.note("acted", queue=self.queue)

    async def work(self) -> None:
        """Run jobs until none is left; then stop."""
        with connect(self.url) as client:  # looking must not count as a call
            async with Worker(self.queue, processor(self.ledger), settings=self.settings):
                while not is_done(client, self.queue):  # noqa: ASYNC110 - Redis is looked at from outside
                    await asyncio.sleep(0.01)


async def add(life: Life) -> None:
    await life.produce(lambda queue: queue.add("works", 1, job_id="j"))


async def add_unique(life: Life) -> None:
    await life.produce(lambda queue: queue.add("works", 1, unique=Unique("key")))


async def add_batch(life: Life) -> None:
    await life.produce(lambda queue: queue.add_many([("works", n) for n in range(BATCH)]))


def a_flow() -> FlowJob:
    """Return a parent of two children, all under ids of their own."""
    children = [FlowJob("works", n, job_id=f"child-{n}") for n in (3, 4)]
    return FlowJob("parent", job_id="j", children=children)


async def add_flow(life: Life) -> None:
    await life.produce(lambda queue: queue.add_flow(a_flow()))


async def cancel(life: Life) -> None:
    await life.produce(lambda queue: queue.cancel("j"))


async def redrive(life: Life) -> None:
    await life.produce(lambda queue: queue.redrive(everything=True))


async def work(life: Life) -> None:
    await life.work()


LIVES = {
    "add": add,
    "unique": add_unique,
    "batch": add_batch,
    "flow": add_flow,
    "cancel": cancel,
    "redrive": redrive,
    "work": work,
}


class Fate:
    """Kills the process before or after its n-th call to Redis, whichever of its connections that goes over."""

    def __init__(self, at: int, when: str) -> None:
        self._at, self._when, self._calls, self._lock = at, when, 0, threading.Lock()

    def rule(self) -> None:
        """Take hold of this process."""
        Wire.call = self._doomed(Wire.call)  # type: ignore[method-assign]
        Wire.pipeline = self._doomed(Wire.pipeline)  # type: ignore[method-assign]

    def _doomed(self, call: Callable[..., Awaitable[Any]]) -> Any:
        async def doomed(*args: Any, **more: Any) -> Any:
            with self._lock:
                self._calls += 1
                mine = self._calls == self._at
            if mine and self._when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            reply = await call(*args, **more)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return reply

        return doomed


def live(name: str, url: str, queue: str, at: int, when: str, path: str) -> None:
    """Live one life in this process."""
    signal.alarm(LONGEST_LIFE)
    Fate(at, when).rule()
    asyncio.run(LIVES[name](Life(url, queue, Ledger(path))))


def main() -> None:
    """Fork a child per line until the input ends; report each child's end as its line's first word and its status."""
    children: dict[int, str] = {}
    unread = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.01)
        if ready:
            chunk = os.read(0, 65_536)
            if not chunk:
                return
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                label, *rest = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    code = 1
                    try:
                        live(*rest)
                        code = 0
                    finally:
                        sys.stderr.flush()
                        os._exit(code)
                children[pid] = label
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            print(children.pop(pid), os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
