"""What a fault run measured: printed with its seed, its faults and the versions, and kept if a file is named for it.

`STREAMQ_FIGURES` names a JSON file; each run replaces its own entry there. `STREAMQ_SEED` repeats a run's faults.
`python -m tests.faults.figures` writes what docs/reliability-figures.json holds into docs/reliability.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import random
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from streamq.embedded import find_server
from tests.faults.scene import LONG
from tests.servers import RedisServer

DOCS = Path(__file__).resolve().parents[2] / "docs"
KEPT, PAGE = DOCS / "reliability-figures.json", DOCS / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
FILE = "STREAMQ_FIGURES"
SEED = "STREAMQ_SEED"


def seed_of_this_run() -> int:
    """Return the seed that the environment names, else a new one for a long run and always the same for a short one."""
    named = os.environ.get(SEED)
    if named:
        return int(named)
    return random.SystemRandom().randrange(1_000_000) if LONG else 1


def versions(server: RedisServer | None = None) -> dict[str, str]:
    """Name everything that a figure depends on; the server is the one that all tests find, unless named."""
    program, release = (server.binary, server.version) if server else find_server()
    return {
        "server": f"{program.name} {'.'.join(map(str, release))}",
        "streamq": version("streamq"),
        "redis-py": version("redis"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
    }


def at_most(bad: int, tried: int) -> str:
    """Say what so few in so many bounds: none in n means at most 3/n, with a confidence of 95 %."""
    return f"{bad} in {tried:,}" + (f", at most {3 / tried:.2g}" if bad == 0 and tried else "")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def publish(
    name: str,
    seed: int | None,
    faults: Mapping[str, int],
    found: Mapping[str, Any],
    server: RedisServer | None = None,
) -> None:
    """Print a run's figures as a table, and keep them if the environment names a file."""
    entry = {"seed": seed, "faults": dict(faults), "found": dict(found), "versions": versions(server)}
    print(f"\n{name} (seed {seed})")
    for what, value in (*faults.items(), *found.items(), *entry["versions"].items()):
        print(f"  {what:<48} {value}")
    path = os.environ.get(FILE)
    if path:
        _keep(Path(path), name, entry)


def _keep(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = json.loads(file.read() or "{}")
        known[name] = entry
        file.truncate(0)
        file.write(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def render(kept: Mapping[str, Any]) -> str:
    """Return the figures as the page shows them."""
    rows = ["| run | faults | found |", "|---|---|---|"]
    for name, entry in sorted(kept.items()):
        seed = "" if entry["seed"] is None else f" (seed {entry['seed']})"
        faults, found = (
            "<br>".join(f"{what}: {value}" for what, value in entry[part].items()) for part in ("faults", "found")
        )
        rows.append(f"| {name}{seed} | {faults} | {found} |")
    known = {", ".join(f"{what} {value}" for what, value in entry["versions"].items()) for entry in kept.values()}
    return "\n".join([*rows, "", "Taken with: " + "; ".join(sorted(known)) + "."])


def figures_of(page: str) -> str:
    """Return what a page shows as figures."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    """Bring the page up to date."""
    page = PAGE.read_text()
    PAGE.write_text(page.replace(figures_of(page), render(json.loads(KEPT.read_text()))))


if __name__ == "__main__":
    main()
