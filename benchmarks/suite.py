"""All questions in one run: prints a table of the figures, keeps them in results.json, draws the plots.

`--only drain,latency` runs a part and keeps the rest of results.json. `--write` puts the table into README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import (
    batches,
    drain,
    enqueue,
    flows,
    growth,
    harness,
    idle,
    keys,
    latency,
    listing,
    memory,
    options,
    plots,
    script_time,
    waits,
)

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.json", HERE / "README.md"
BEGIN, END = "<!-- figures: written by python -m benchmarks.suite --write -->", "<!-- end of the figures -->"

Measure = Callable[[argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]]
QUESTIONS: dict[str, tuple[Measure, dict[str, Any]]] = {
    "memory": (memory.measure, {"jobs": 100_000, "all": True}),
    "enqueue": (enqueue.measure, {"jobs": 50_000, "size": harness.PAYLOAD}),
    "drain": (drain.measure, {"jobs": 40_000, "all": True}),
    "latency": (latency.measure, {"jobs": 300}),
    "idle": (idle.measure, {"seconds": 15.0}),
    "script_time": (script_time.measure, {}),
    "waits": (waits.measure, {}),
    "options": (options.measure, {"jobs": 20_000}),
    "batches": (batches.measure, {"jobs": 40_000}),
    "keys": (keys.measure, {"jobs": 20_000, "backlog": 100_000}),
    "flows": (flows.measure, {"flows": 2_000}),
    "listing": (listing.measure, {"jobs": 1_000_000, "foreign": 1_000_000}),
    "growth": (growth.measure, {"jobs": 20_000}),
}


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = []
    for name, report in results.items():
        if name not in QUESTIONS:
            continue
        lines += [f"### {report['question']}", ""]
        versions = ", ".join(f"{package} {number}" for package, number in report["versions"].items())
        disturbed = report.get("others_took")
        noise = f"; others took {disturbed:.0%} of the machine meanwhile" if disturbed is not None else ""
        lines += [f"`python -m benchmarks.{name}`, {report['at']}, {report['server']}, {report['machine']}, "
                  f"Python {report['python']}, {versions}{noise}.", ""]  # fmt: skip
        lines += ["| | streamq | beside | ratio | bar | holds |", "|---|---|---|---|---|---|"]
        for figure in report["figures"]:
            beside = "" if figure["raw"] is None else f"{figure['raw']:,}"
            ratio = "" if figure["ratio"] is None else f"{figure['ratio']:.2f}"
            holds = {None: "", True: "yes", False: "**no**"}[figure["holds"]]
            what, value = figure["what"], f"{figure['streamq']:,} {figure['unit']}"
            lines.append(f"| {what} | {value} | {beside} | {ratio} | {figure['bar'] or ''} | {holds} |")
        lines.append("")
    return "\n".join(lines)


async def run(chosen: argparse.Namespace) -> int:
    """Ask the questions and return the exit code: 1 if a bar does not hold."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    names = chosen.only.split(",") if chosen.only else list(QUESTIONS)
    for name in names:
        measure, fixed = QUESTIONS[name]
        harness.disturbances.clear()
        start = time.perf_counter()
        print(f"== {name}", file=sys.stderr, flush=True)
        asked = argparse.Namespace(binary=chosen.binary, reps=chosen.reps, huge=chosen.huge, **fixed)
        results[name] = await measure(asked)
        print(f"   {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        await asyncio.sleep(0)
    print(table({name: results[name] for name in names}))
    return 0 if all(figure["holds"] is not False for name in names for figure in results[name]["figures"]) else 1


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"some of {', '.join(QUESTIONS)}; `plots` alone draws what results.json holds")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--binary", type=Path, help="the server's program")
    parser.add_argument("--huge", action="store_true", help="also 10,000,000 waiting jobs and 1,000 queues")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    chosen = parser.parse_args()
    code = 0 if chosen.only == "plots" else uvloop.run(run(chosen))
    results = json.loads(RESULTS.read_text())
    results = {name: results[name] for name in (*QUESTIONS, "peers") if name in results}
    if chosen.write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n\n{table(results)}\n{END}{rest.partition(END)[2]}")
    plots.draw(results)
    return code


if __name__ == "__main__":
    sys.exit(main())
