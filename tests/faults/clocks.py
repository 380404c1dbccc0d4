"""Clocks that are wrong: libfaketime (Debian's package `faketime`) shows a process another time of day.

What the monotonic clock tells stays true, so the ledger's times do too.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from streamq.embedded.binary import ServerBinary, _candidates, check
from streamq.errors import ServerNotFound

MISSING = "libfaketime is missing (Debian: apt install faketime)"


@cache
def library() -> Path | None:
    """Return the library that goes into LD_PRELOAD; None if it is not installed."""
    places = [Path("/usr/lib"), Path("/usr/local/lib")]
    found = [path for place in places for path in place.glob("**/faketime/libfaketimeMT.so.1")]
    return found[0] if found else None


needs_faketime = pytest.mark.skipif(library() is None, reason=MISSING)


def faketime(clock: str) -> dict[str, str]:
    """Return the environment of a process whose clock is off: "+3600" seconds ahead, "+0 x1.1" a tenth too fast."""
    return {
        "LD_PRELOAD": str(library()), "FAKETIME": clock,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


@cache
def server_that_bears_it() -> ServerBinary | None:
    """Return a server program that runs under libfaketime; those whose allocator asks for the time at start do not."""
    for candidate in _candidates(os.environ):
        with suppress(OSError, subprocess.SubprocessError, ServerNotFound):
            subprocess.run(
                [candidate, "--version"], env=os.environ | faketime("+60"), capture_output=True, timeout=2, check=True
            )
            return check(candidate)
    return None


class SteppedClock:
    """A clock that is set while its process runs."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        """What the process has to be started with."""
        without = {key: value for key, value in faketime("").items() if key != "FAKETIME"}
        return {**without, "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1"}

    def set(self, ahead: int, *, speed: float = 1.0) -> None:
        """Show a time that is so many seconds ahead of the true one, from now on; with `speed` it also drifts."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{ahead:+d}" + (f" x{speed}" if speed != 1 else "") + "\n")
        fresh.rename(self._file)  # never half written
