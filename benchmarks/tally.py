"""What handlers report while they are measured: a count and samples, in shared memory.

That costs a job half a microsecond. Each worker process has a file of its own in the tally's folder; the benchmark
reads them all at any time.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

FOLDER = "STREAMQ_BENCH_TALLY"
"""The environment variable that tells a worker process where to report."""
SAMPLES = 1_000_000
_HEAD = struct.Struct("<Qd")
_COUNT = struct.Struct("<Q")
_SAMPLE = struct.Struct("<d")


class Tally:
    """One process's report, opened at the first use."""

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None
        self._count = 0

    def count(self, jobs: int = 1) -> None:
        """Note that a handler ran, for so many jobs."""
        self._count += jobs
        _COUNT.pack_into(self._map or self._open(), 0, self._count)

    def sample(self, value: float) -> None:
        """Note that a handler ran, and a figure with it."""
        _SAMPLE.pack_into(self._map or self._open(), _HEAD.size + _SAMPLE.size * (self._count % SAMPLES), value)
        self.count()

    def _open(self) -> mmap.mmap:
        path = Path(os.environ[FOLDER]) / f"tally.{os.getpid()}"
        with path.open("w+b") as file:
            file.truncate(_HEAD.size + _SAMPLE.size * SAMPLES)
            self._map = mmap.mmap(file.fileno(), 0)
        _HEAD.pack_into(self._map, 0, self._count, time.monotonic())
        return self._map


def counted(folder: Path, pid: int | None = None) -> int:
    """Return how many handlers have run, over all processes or in one."""
    total = 0
    for path in folder.glob("tally.*" if pid is None else f"tally.{pid}"):
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
        total += _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
    return total


def samples(folder: Path) -> list[float]:
    """Return all samples, over all processes."""
    found: list[float] = []
    for path in folder.glob("tally.*"):
        with path.open("rb") as file:
            count, _ = _HEAD.unpack(file.read(_HEAD.size))
            body = file.read(_SAMPLE.size * min(count, SAMPLES))
        found.extend(value for (value,) in _SAMPLE.iter_unpack(body))
    return found


def first(folder: Path) -> float:
    """Return when the first handler reported, by the monotonic clock."""
    times: list[float] = []
    for path in folder.glob("tally.*"):
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
        times += [_HEAD.unpack(head)[1]] if len(head) == _HEAD.size else []
    return min(at for at in times if at)


def clear(folder: Path) -> None:
    """Forget all reports."""
    for path in folder.glob("tally.*"):
        path.unlink()
