"""The real scripts, less the clock: `now_ms` of `lua/lib/clock.lua` asks the server for its time, and here reads a key.

That function is the one place in which the scripts read the time, so nothing else of them is changed. What Redis itself
times is still real: the lifetimes of keys, and since when an entry is pending.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
import redis

from streamq._engine import scripts

CLOCK_KEY = "test:clock"
_BODY = f"""local function now_ms()
  return tonumber(redis.call('GET', '{CLOCK_KEY}'))
end
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the engine load its scripts from `folder`, a copy in which the clock is the test's."""
    shutil.copytree(scripts.folder(), folder)
    clock = folder / "lib" / "clock.lua"
    text = clock.read_text()
    start = text.index("local function now_ms()")
    end = text.index("\nend\n", start) + len("\nend\n")
    clock.write_text(text[:start] + _BODY + text[end:])
    for path in folder.rglob("*.lua"):
        assert "'TIME'" not in path.read_text(), f"{path.name} reads the server's time elsewhere"
    monkeypatch.setattr(scripts, "folder", lambda: folder)
    monkeypatch.setattr(scripts, "load", cache(scripts.load.__wrapped__))


def set_clock(client: redis.Redis, now_ms: int) -> None:
    """Move the clock."""
    client.set(CLOCK_KEY, now_ms)
