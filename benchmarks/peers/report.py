"""The comparison as Markdown, and its place in README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- peers: written by python -m benchmarks.peers -->", "<!-- end of the peers -->"
NOT_PYTHON = {"streamq", "bullmq-node"}
COLUMNS = {
    "add, one by one /s": "one_by_one",
    "add, 100 at once /s": "concurrently",
    "add, bulk /s": "bulk",
    "drain, 1 worker /s": "drain",
    "pinned /s": "drain_pinned",
    "concurrency 5 /s": "drain_5",
    "5, pinned /s": "drain_5_pinned",
    "2 workers /s": "drain_2",
    "10 ms sleeps /s": "sleeping",
    "latency p50 ms": "p50",
    "p95": "p95",
    "p99": "p99",
    "bytes per waiting job": "waiting",
    "delayed": "delayed",
    "server's CPU µs/job": "redis_cpu_us",
    "commands/job": "commands",
    "worker MB": "worker_mb",
}
PYTHON, ALL = "the best in Python", "the best of all"
SHIPPED, PINNED = ("{}",), ("{}", "{}_pinned")
REACH: tuple[tuple[str, str, str, tuple[str, ...], float], ...] = (
    ("drain, concurrency 100", "drain", PYTHON, SHIPPED, 10),
    ("drain, concurrency 100, each pinned or not", "drain", PYTHON, PINNED, 5),
    ("drain, concurrency 100", "drain", "bullmq-node", SHIPPED, 3),
    ("drain, concurrency 5, each pinned or not", "drain_5", PYTHON, PINNED, 5),
    ("drain, concurrency 5", "drain_5", "bullmq-node", SHIPPED, 1.5),
    ("add, bulk", "bulk", ALL, SHIPPED, 5),
    ("add, one by one", "one_by_one", ALL, SHIPPED, 1.3),
    ("latency, p50", "p50", ALL, SHIPPED, 1),
    ("bytes per waiting job", "waiting", ALL, SHIPPED, 0.55),
    ("bytes per delayed job", "delayed", ALL, SHIPPED, 1),
    ("the server's CPU per job", "redis_cpu_us", ALL, SHIPPED, 0.4),
)
"""What is compared: title, figure, with whom, which of its variants count, and the goal for streamq's share of it."""
LESS_IS_BETTER = {"p50", "waiting", "delayed", "redis_cpu_us"}


def reach(result: dict[str, Any]) -> str:
    """Return how far streamq is ahead, a line per goal."""
    rows = {row["name"]: row for row in result["peers"]}
    lines = ["| | streamq | beside | who | ratio | goal | reached |", "|---|---|---|---|---|---|---|"]
    for title, figure, rivals, variants, goal in REACH:
        less = figure in LESS_IS_BETTER
        others = [
            (row[variant.format(figure)], name + (", pinned" if variant.endswith("pinned") else ""))
            for name, row in rows.items()
            for variant in variants
            if name == rivals or (name != "streamq" and rivals == ALL) or (rivals == PYTHON and name not in NOT_PYTHON)
            if row.get(variant.format(figure)) is not None
        ]
        if not others:
            continue
        best, who = min(others) if less else max(others)
        ours = rows["streamq"][figure]
        ratio = ours / best
        reached = ratio <= goal if less else ratio >= goal
        lines.append(
            f"| {title} | {ours:,} | {best:,} | {who} | {ratio:.2f} | {'≤' if less else '≥'} {goal} "
            f"| {'yes' if reached else 'no'} |"
        )
    return "\n".join(lines)


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
    README.write_text(f"{before}{BEGIN}\n\n{table(result)}\n\n{reach(result)}\n\n{END}{rest.partition(END)[2]}")
