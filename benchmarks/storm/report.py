"""The storm's figures: kept in docs/reliability-peers.json, shown in docs/reliability.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks.storm.judge import Outcome
from benchmarks.storm.roster import CONTENDERS
from tests.faults.figures import DOCS, PAGE, percentile

KEPT = DOCS / "reliability-peers.json"
BEGIN, END = "<!-- the storm against others -->", "<!-- end of the storm against others -->"
Entry = dict[str, Any]
COLUMNS = {
    "accepted": "accepted",
    "adds that raised": "refused",
    "**lost**": "lost",
    "of these never begun": "never run",
    "ran again, worker dead or frozen": "repeated",
    "ran again otherwise": "repeated otherwise",
    "recovery p50, s": "recovery p50",
    "p99, s": "recovery p99",
    "ended only after a restart of all": "stuck",
    "workers that ended by themselves": "ended by themselves",
}


def figures(outcome: Outcome) -> dict[str, float]:
    """Return what is kept of an outcome."""
    return {
        "accepted": outcome.accepted,
        "refused": outcome.refused,
        "refused and run": outcome.refused_and_run,
        "lost": outcome.lost,
        "never run": len(outcome.never_run),
        "never ended": len(outcome.never_ended),
        "repeated": outcome.repeated,
        "repeated otherwise": len(outcome.repeated_otherwise),
        "recoveries": len(outcome.recoveries),
        "recovery p50": round(percentile(outcome.recoveries, 0.5), 1),
        "recovery p99": round(percentile(outcome.recoveries, 0.99), 1),
        "stuck": outcome.stuck,
        "hung adds": outcome.hung,
        "ended by themselves": outcome.ended_by_themselves,
    }


def keep(name: str, entry: Mapping[str, Any]) -> None:
    """Replace a queue's entry, and bring the page up to date."""
    known = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    known[name] = entry
    known = {one.name: known[one.name] for one in CONTENDERS if one.name in known}
    KEPT.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{render(known)}\n{END}{rest.partition(END)[2]}")


def shown(page: str) -> str:
    """Return what a page shows."""
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def row(name: str, entry: Mapping[str, Any]) -> str:
    """Return a queue's line."""
    if "error" in entry:
        return f"| {name} | {entry['error']} |"
    found = entry["found"]
    return f"| {name} | " + " | ".join(f"{found[key]:,}" for key in COLUMNS.values()) + " |"


def render(kept: Mapping[str, Any]) -> str:
    """Return the figures as the page shows them."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [row(name, entry) for name, entry in kept.items()]
    lines += [
        "",
        "| | version | set up with | workers killed | server killed | frozen | when | load |",
        "|---" * 8 + "|",
    ]
    for name, entry in kept.items():
        faults = entry.get("faults", {})
        counts = " | ".join(str(faults.get(kind, 0)) for kind in ("workers killed", "server killed", "workers frozen"))
        versions = ", ".join(f"{package} {number}" for package, number in entry["versions"].items())
        lines.append(
            f"| {name} | {versions} | {entry['settings']} | {counts} "
            f"| {entry['machine']['at']} | {entry['machine']['load']} |"
        )
    machines = {
        f"{entry.get('server', '?')}, {entry['machine']['machine']}, Python {entry['machine']['python']}, "
        f"seed {entry['seed']}"
        for entry in kept.values()
    }
    return "\n".join([*lines, "", "Taken on: " + "; ".join(sorted(machines)) + "."])
