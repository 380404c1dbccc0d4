"""Words that all benchmarks share: payloads, worker processes, interleaved repetitions, verdicts, the report.

Machines are shared and noisy, so no figure stands alone: streamq and the yardstick are measured in turn, over and
over, and the ratio is the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import psutil  # type: ignore[import-untyped]
import uvloop

from benchmarks import tally
from benchmarks.server import Server
from streamq import Queue
from streamq.embedded.supervisor import end_with_parent

ROOT = Path(__file__).parent.parent
QUEUE = "bench"
PAYLOAD = 93
"""Bytes of the usual payload, as msgpack: some numbers and 60 characters of text."""

T = TypeVar("T")
QUIET = 0.05
MOST_ROUNDS = 3
disturbances: list[float] = []
"""The share of the machine that others took, in each round that counted; the report says the median."""


def payload(size: int = PAYLOAD, number: int = 0) -> dict[str, Any]:
    """Return data that takes `size` bytes (at least 40) as msgpack."""
    data = {"t": time.monotonic(), "number": number + 100_000, "note": ""}
    room = size - len(msgspec.msgpack.encode(data))
    longer = len(msgspec.msgpack.encode({**data, "note": "x" * room})) - size  # what text of that length adds
    return {**data, "note": "x" * (room - longer)}


def body(size: int = PAYLOAD) -> bytes:
    """Return the same payload, encoded: what the yardstick sends."""
    return msgspec.msgpack.encode(payload(size))


async def fill(queue: Queue, jobs: int, *, name: str = "noop", size: int = PAYLOAD, options: Any = None) -> None:
    """Add `jobs` jobs, a thousand at a time, with the same options, or with what a function gives for each number."""
    data = payload(size)
    for at in range(0, jobs, 1000):
        numbers = range(at, min(at + 1000, jobs))
        chosen = [options(n) for n in numbers] if callable(options) else [options] * len(numbers)
        await queue.add_many([(name, data) if each is None else (name, data, each) for each in chosen])


class Neighbours:
    """How much of the machine others took since this was made."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = _busy_seconds(), _own_seconds(), time.perf_counter()

    def share(self) -> float:
        """Return their share of all cores' time."""
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        took = time.perf_counter() - self._start
        return max(0.0, others / took / (os.cpu_count() or 1))


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_seconds() -> float:
    times = os.times()
    live = 0.0
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            of_child = child.cpu_times()
            live += of_child.user + of_child.system
    return times.user + times.system + times.children_user + times.children_system + live


async def interleave(reps: int, measures: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, list[T]]:
    """Take every measure in turn, every other time in the opposite order, and return the `reps` quietest rounds.

    A round in which others took more than a twentieth of the machine is a disturbed one. It counts, but another one is
    taken, up to `MOST_ROUNDS` times as many as asked for.
    """
    order = list(measures)
    rounds: list[tuple[float, dict[str, T]]] = []
    while len(rounds) < reps * MOST_ROUNDS and sum(share <= QUIET for share, _ in rounds) < reps:
        taken: dict[str, T] = {}
        neighbours = Neighbours()
        for name in order if len(rounds) % 2 == 0 else order[::-1]:
            taken[name] = await measures[name]()
        rounds.append((neighbours.share(), taken))
    rounds.sort(key=lambda one: one[0])
    disturbances.extend(share for share, _ in rounds[:reps])
    return {name: [taken[name] for _, taken in rounds[:reps]] for name in order}


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median of the ratios of neighbours."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all are not above."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class Verdicts:
    """The figures of one script, each with its bar; printed as JSON."""

    def __init__(self, question: str) -> None:
        self.question = question
        self.figures: list[dict[str, Any]] = []
        self.more: dict[str, Any] = {}

    def add(
        self,
        what: str,
        value: float,
        unit: str,
        *,
        raw: float | None = None,
        ratio: float | None = None,
        least: float | None = None,
        most: float | None = None,
        of: str = "ratio",
    ) -> None:
        """Note a figure; `least` and `most` are the bar, on the ratio or, with `of="value"`, on the figure itself."""
        judged = ratio if of == "ratio" else value
        holds = None
        if judged is not None and (least is not None or most is not None):
            holds = (least is None or judged >= least) and (most is None or judged <= most)
        bar = None if holds is None else f"≥ {least:g}" if least is not None else f"≤ {most:g}"
        self.figures.append(
            {
                "what": what,
                "streamq": _round(value),
                "unit": unit,
                "raw": None if raw is None else _round(raw),
                "ratio": None if ratio is None else _round(ratio),
                "bar": bar,
                "holds": holds,
            }
        )

    def rates(self, what: str, over: Sequence[float], under: Sequence[float], **bar: Any) -> None:
        """Note the jobs per second beside the yardstick's."""
        self.add(what, statistics.median(over), "jobs/s", raw=statistics.median(under), ratio=ratio(over, under), **bar)

    def report(self, server: str) -> dict[str, Any]:
        """Return all of it, with the machine and the versions."""
        report = {"question": self.question, "server": server, **machine()}
        if disturbances:
            report["others_took"] = round(statistics.median(disturbances), 3)
        return {**report, "figures": self.figures, **self.more}


def _round(value: float) -> float:
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


def machine() -> dict[str, Any]:
    """Say what this ran on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else ""
    packages = ("streamq", "redis", "hiredis", "uvloop", "msgspec")
    return {
        "at": time.strftime("%Y-%m-%d %H:%M"),
        "machine": f"{model or platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "load": round(os.getloadavg()[0], 2),
    }


# Processes ------------------------------------------------------------------------------------------------------------


def environment(server: Server) -> dict[str, str]:
    """Return the environment of a process that is measured."""
    return {**os.environ, "PYTHONPATH": str(ROOT), tally.FOLDER: str(server.folder)}


class Workers:
    """Worker processes, as users start them. Ready when entered, and killed when left."""

    def __init__(
        self, server: Server, *, count: int = 1, concurrency: int = 100, queues: Sequence[str] = (QUEUE,),
        shards: int | None = None, **env: str,
    ) -> None:  # fmt: skip
        self._server, self._count, self._queues = server, count, queues
        self._command = [
            *(sys.executable, "-m", "streamq.worker", "--queues", ",".join(queues), "--processors", "benchmarks.jobs"),
            *("--concurrency", str(concurrency), "--redis", server.url, "--log-level", "error"),
            *(() if shards is None else ("--shards", str(shards))),
        ]
        self._env = {**environment(server), **env}
        self._processes: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> Workers:
        tally.clear(self._server.folder)
        await self.start(self._count)
        return self

    async def start(self, count: int = 1) -> list[int]:
        """Start so many more, wait until they tick, and return their ids."""
        prepare = end_with_parent(os.getpid()) if sys.platform == "linux" else None
        started = [subprocess.Popen(self._command, env=self._env, cwd=ROOT, preexec_fn=prepare) for _ in range(count)]
        self._processes += started
        for name in self._queues:
            async with Queue(name, self._server.url) as queue:
                await until(lambda: _has_workers(queue, len(self._processes)), 60, "the workers' first tick")
        return [process.pid for process in started]

    async def stop(self, pid: int, sign: signal.Signals = signal.SIGTERM) -> None:
        """Send one of them a signal that ends it, and wait until it has."""
        process = next(one for one in self._processes if one.pid == pid)
        process.send_signal(sign)
        await asyncio.to_thread(process.wait, 60)
        self._processes.remove(process)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        for process in self._processes:
            process.wait(10)

    @property
    def pids(self) -> list[int]:
        """The processes' ids."""
        return [process.pid for process in self._processes]

    @property
    def peak_memory(self) -> int:
        """Bytes that the largest of them had resident at most."""
        peaks = []
        for pid in self.pids:
            status = Path(f"/proc/{pid}/status").read_text()
            peaks += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")]
        return max(peaks)

    @property
    def cpu_seconds(self) -> float:
        """CPU time that they have used, all together."""
        total = 0.0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total


async def _has_workers(queue: Queue, count: int) -> bool:
    return (await queue.stats()).workers >= count


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str, every: float = 0.002) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: It took longer than `seconds`.
    """
    end = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        await asyncio.sleep(every)


async def drained(queue: Queue, server: Server, jobs: int, seconds: float = 300) -> None:
    """Wait until `jobs` handlers have run and all of them are settled."""

    async def ran() -> bool:
        return tally.counted(server.folder) >= jobs

    async def settled() -> bool:
        stats = await queue.stats()
        return not (stats.waiting or stats.active or stats.delayed or stats.waiting_children)

    await until(ran, seconds, f"{jobs} handlers")
    await until(settled, 10, "the last outcomes")
    if (count := tally.counted(server.folder)) != jobs:
        raise RuntimeError(f"{count} runs of {jobs} jobs")


async def run_raw(server: Server, what: str, *numbers: int) -> dict[str, float]:
    """Run one of the yardstick's processes to its end and return what it printed."""
    command = [sys.executable, "-m", "benchmarks.raw", what, server.url, *map(str, numbers)]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(server), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    found: dict[str, float] = json.loads(out)
    return found


# The command ----------------------------------------------------------------------------------------------------------


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return the options that all scripts have."""
    found = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--reps", type=int, default=5, help="repetitions, interleaved with the yardstick's")
    found.add_argument("--binary", type=Path, help="the server's program (default: as `streamq.embedded` finds it)")
    found.add_argument("--out", type=Path, help="also write the JSON here")
    return found


def main(measure: Callable[[argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]], options: Any) -> None:
    """Run a script and print its report."""
    report = uvloop.run(measure(options))
    text = json.dumps(report, indent=1, ensure_ascii=False)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
