"""The processors of the fault tests. Each notes its start and its end in the ledger, whatever happens between.

Loaded by worker processes (`--processors tests.faults.jobs`); the ledger's file comes from the environment.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from streamq import ActiveJob, Batch, BatchJob, FlowJob, Processors, Queue, Retention, RetryAfter, Snooze, Unrecoverable
from tests.faults.ledger import Ledger

F = TypeVar("F", bound=Callable[..., Any])

NAME = "FAULTS_WORKER"
"""The environment variable that names a worker process, so that a job can say who ran it."""

processors = Processors()


@functools.cache
def ledger() -> Ledger:
    """Return this process's ledger."""
    return Ledger.from_environment()


def recorded(handler: F) -> F:
    """Have a handler's start and end noted."""

    def start(job: ActiveJob[Any]) -> None:
        ledger().start(job.id, job.attempt, data=repr(job.data)[:2000], name=job.name, stalls=job.stalls)

    def end(job: ActiveJob[Any], outcome: str) -> None:
        ledger().end(job.id, job.attempt, outcome)

    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def run_async(job: ActiveJob[Any]) -> Any:
            start(job)
            try:
                result = await handler(job)
            except BaseException as error:
                end(job, type(error).__name__)
                raise
            end(job, "returned")
            return result

        return run_async  # type: ignore[return-value]

    @functools.wraps(handler)
    def run(job: ActiveJob[Any]) -> Any:
        start(job)
        try:
            result = handler(job)
        except BaseException as error:
            end(job, type(error).__name__)
            raise
        end(job, "returned")
        return result

    return run  # type: ignore[return-value]


# Work of every kind ------------------------------------------------------------------------------------------------


@processors.register("noop")
@recorded
async def noop(job: ActiveJob[Any]) -> None:
    """End at once."""


@processors.register("unrecorded")
async def unrecorded(job: ActiveJob[Any]) -> None:
    """End at once, without a line in the ledger: for counts so large that the ledger would be the test."""


@processors.register("unrecorded-result")
async def unrecorded_result(job: ActiveJob[Any]) -> str:
    """Return so many characters, without a line in the ledger."""
    return "x" * int(job.data)


@processors.register("echo")
@recorded
async def echo(job: ActiveJob[Any]) -> Any:
    """Return the data as the handler saw it."""
    return job.data


@processors.register("count-tree")
@recorded
async def count_tree(job: ActiveJob[Any]) -> int:
    """Add so many levels of three children each, and return how many jobs that makes."""
    await asyncio.sleep(0.02)
    if job.data and not job.children:
        keep = Retention(count=1_000_000)
        await job.add_children([FlowJob("count-tree", job.data - 1, keep_completed=keep) for _ in range(3)])
    return 1 + sum(await job.children_results())


@processors.register("sum-up")
@recorded
async def sum_up(job: ActiveJob[Any]) -> int:
    """Return the sum of the children's results."""
    await asyncio.sleep(0.02)
    return sum(await job.children_results())


@processors.register("echo-later")
@recorded
async def echo_later(job: ActiveJob[Any]) -> Any:
    """Fail `failures` times, then return `value`."""
    if job.attempt <= job.data["failures"]:
        raise ValueError("not yet")
    return job.data["value"]


@processors.register("who")
@recorded
async def who(job: ActiveJob[Any]) -> str:
    """Sleep `seconds` and return the name of the worker process."""
    await asyncio.sleep(job.data["seconds"])
    return os.environ[NAME]


@processors.register("slow-echo")
@recorded
async def slow_echo(job: ActiveJob[Any]) -> Any:
    """Sleep `seconds` and return `value`."""
    await asyncio.sleep(job.data["seconds"])
    return job.data["value"]


@processors.register("sleep")
@recorded
async def sleep(job: ActiveJob[float]) -> float:
    """Wait, and leave the loop free."""
    await asyncio.sleep(job.data)
    return job.data


@processors.register("block")
@recorded
async def block(job: ActiveJob[float]) -> None:
    """Block the event loop, as careless async code does."""
    time.sleep(job.data)  # noqa: ASYNC251 - blocking the loop is what this job is for


@processors.register("thread-sleep")
@recorded
def thread_sleep(job: ActiveJob[float]) -> None:
    """Block a worker thread."""
    time.sleep(job.data)


@processors.register("burn")
@recorded
async def burn(job: ActiveJob[float]) -> int:
    """Compute in pure Python on the event loop."""
    upto, turns = time.monotonic() + job.data, 0
    while time.monotonic() < upto:
        turns += sum(range(100))
    return turns


@processors.register("gate")
@recorded
async def gate(job: ActiveJob[Any]) -> Any:
    """Wait until the file `path` exists, then fail if `fails` says so, or return `value`."""
    path = Path(job.data["path"])
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - the gate is a file: the test is another process
        await asyncio.sleep(0.01)
    if job.attempt <= job.data.get("fails", 0):
        raise ValueError("the gate opened on a failure")
    return job.data.get("value")


@processors.register("retry-after")
@recorded
async def retry_after(job: ActiveJob[list[float]]) -> None:
    """Ask for the retry after attempt n in `data[n - 1]` seconds."""
    if job.attempt <= len(job.data):
        raise RetryAfter(job.data[job.attempt - 1])


@processors.register("add-up")
@recorded
async def add_up(job: ActiveJob[list[Any]]) -> None:
    """Fail for good unless the children have handed over just these results."""
    found = await job.children_results()
    if sorted(found) != sorted(job.data):
        raise Unrecoverable(f"the children's results are {found}, not {job.data}")


@processors.register("remove-itself")
@recorded
async def remove_itself(job: ActiveJob[Any]) -> str:
    """Remove the job that is running, through a client of its own; then return, or raise if `fails`."""
    async with Queue(job.queue) as queue:
        await queue.remove(job.id, force=True)
    if job.data["fails"]:
        raise ValueError("removed, and failed")
    return "removed, and done"


# Failures of every kind --------------------------------------------------------------------------------------------


class OddError(BaseException):
    """Outside the Exception tree, as few plugins dare."""


class NeedsTwoArguments(Exception):
    """Can't be made again from its message: pickling it fails."""

    def __init__(self, one: str, two: str, *, three: int) -> None:
        super().__init__(f"{one} {two} {three}")


class HoldsALock(Exception):
    """Can't be pickled."""

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class CannotBeTold(Exception):
    """Its text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def misbehave(kind: str) -> None:
    """Raise the exception that `kind` names."""
    match kind:
        case "SystemExit":
            raise SystemExit(3)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt
        case "CancelledError":
            raise asyncio.CancelledError
        case "GeneratorExit":
            raise GeneratorExit
        case "OddError":
            raise OddError("odd")
        case "ValueError":
            raise ValueError("an ordinary failure")
        case "NeedsTwoArguments":
            raise NeedsTwoArguments("a", "b", three=3)
        case "HoldsALock":
            raise HoldsALock
        case "CannotBeTold":
            raise CannotBeTold
        case "Chain":
            try:
                raise HoldsALock
            except HoldsALock as error:
                raise ValueError("the outer one") from error
        case "ExceptionGroup":
            raise ExceptionGroup("several", [ValueError("one"), HoldsALock()])
        case "Huge":
            raise ValueError("x" * 5_000_000)
        case "Surrogate":
            raise ValueError("lone \ud800 surrogate")
        case "StopIteration":
            raise StopIteration("stop")
        case "Unrecoverable":
            raise Unrecoverable("for good")
        case "RetryAfter":
            raise RetryAfter(0.2, "a little later")
        case "Snooze":
            raise Snooze(0.2)
        case _:
            raise AssertionError(f"no such misbehaviour: {kind}")


@processors.register("raise")
@recorded
async def raises(job: ActiveJob[Any]) -> str:
    """Raise `kind` in the first `times` attempts (always, by default)."""
    if job.attempt <= job.data.get("times", 1000):
        misbehave(job.data["kind"])
    return "recovered"


@processors.register("raise-in-thread")
@recorded
def raises_in_thread(job: ActiveJob[Any]) -> str:
    """Do the same in a thread."""
    if job.attempt <= job.data.get("times", 1000):
        misbehave(job.data["kind"])
    return "recovered"


@processors.register("suicide")
@recorded
async def suicide(job: ActiveJob[Any]) -> str:
    """Kill the worker process, as the kernel does when memory runs out; `times` limits how often."""
    if job.stalls < job.data.get("times", 1000):
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@processors.register("charge-and-ship")
async def charge_and_ship(job: ActiveJob[dict[str, str]]) -> list[str]:
    """Two steps that note themselves in the file `notes`; the first run is killed at `die`: within one, or after it."""
    killing = job.data["die"] if job.stalls == 0 else ""

    def note(what: str) -> str:
        with Path(job.data["notes"]).open("a") as notes:
            notes.write(f"{what}\n")
        if killing == f"in {what}":
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{what} in run {job.stalls + 1}"

    done = []
    for what in ("charge", "ship"):
        done.append(await job.step(what, note, what))
        if killing == f"after {what}":
            os.kill(os.getpid(), signal.SIGKILL)
    return done


@processors.register("sleep-together", batch=Batch(20, 60))
async def sleep_together(jobs: list[BatchJob[float]]) -> list[float]:
    """Wait as long as the first job says, all in one call; what had stalled before does not wait again."""
    for job in jobs:
        ledger().start(job.id, job.attempt, together=[other.id for other in jobs], stalls=job.stalls)
    await asyncio.sleep(0 if jobs[0].stalls else jobs[0].data)
    for job in jobs:
        ledger().end(job.id, job.attempt, "returned")
    return [job.data for job in jobs]


@processors.register("suicide-together", batch=Batch(20, 60))
async def suicide_together(jobs: list[BatchJob[bool]]) -> str | None:
    """Kill the worker process if one of the jobs says so."""
    for job in jobs:
        ledger().start(job.id, job.attempt, together=[other.id for other in jobs], stalls=job.stalls)
    if any(job.data for job in jobs):
        os.kill(os.getpid(), signal.SIGKILL)
    for job in jobs:
        ledger().end(job.id, job.attempt, "returned")
    return None


@processors.register("gathered", batch=Batch(1_000, 3_600))
async def gathered(jobs: list[BatchJob[Any]]) -> None:
    """Run none in time, since the batch does not fill up, but for what had stalled before: that runs alone."""
    for job in jobs:
        ledger().start(job.id, job.attempt)
        ledger().end(job.id, job.attempt, "returned")


@processors.register("unserialisable")
@recorded
async def unserialisable(job: ActiveJob[str]) -> Any:
    """Return something that no queue can store."""
    loop: list[Any] = []
    loop.append(loop)
    with socket.socket() as closed:
        kinds: dict[str, Any] = {
            "lock": threading.Lock(),
            "socket": closed,
            "generator": (x for x in "abc"),
            "future": asyncio.get_running_loop().create_future(),
            "loop": loop,
            "lambda": lambda: None,
            "surrogate": "\ud800",
        }
        return kinds[job.data]


@processors.register("result-of-size")
@recorded
async def result_of_size(job: ActiveJob[int]) -> str:
    """Return so many characters."""
    return "x" * job.data
