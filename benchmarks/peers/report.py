"""The comparison as Markdown, and its place in README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- peers: written by python -m benchmarks.peers -->", "<!-- end of the peers -->"
COLUMNS = {
    "add, one by one /s": "one_by_one",
    "add, 100 at once /s": "concurrently",
    "add, bulk /s": "bulk",
    "drain, 1 worker /s": "drain",
    "2 workers /s": "drain_2",
    "10 ms sleeps /s": "sleeping",
    "latency p50 ms": "p50",
    "p95": "p95",
    "p99": "p99",
    "bytes per waiting job": "waiting",
    "server's CPU µs/job": "redis_cpu_us",
    "commands/job": "commands",
    "worker MB": "worker_mb",
}


def table(result: dict[str, Any]) -> str:
    """Return the comparison."""
    noise = f"other processes took {result['others_took']:.0%} of the machine meanwhile"
    lines = [f"`{result['command']}`, {result['at']}, {result['server']}, {result['machine']}, "
             f"Python {result['python']}; {noise}.", ""]  # fmt: skip
    lines += ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in result["peers"]:
        cells = [_cell(row.get(key)) for key in COLUMNS.values()]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    cells = [_cell(result["raw"].get(key)) for key in COLUMNS.values()]
    lines.append("| *redis-py alone* | " + " | ".join(cells) + " |")
    lines += ["", "Versions: " + "; ".join(_versions(row) for row in result["peers"]) + "."]
    lines += [f"\n{row['name']} failed: {row['error']}" for row in result["peers"] if "error" in row]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


def _versions(row: dict[str, Any]) -> str:
    return f"{row['name']}: " + ", ".join(f"{package} {number}" for package, number in row["versions"].items())


def write(result: dict[str, Any]) -> None:
    """Put the comparison into README.md."""
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n\n{table(result)}\n\n{END}{rest.partition(END)[2]}")
