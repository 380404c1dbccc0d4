"""What do other queues lose when workers and the server are killed? Puts each through the same storm, one by one.

Each gets a server of its own that writes every command to disk first, three worker processes, two producers, the same
jobs and, at the same moments, the same faults. Handlers write their runs into a ledger outside Redis, which the judge
reads. The environments are those of `benchmarks.peers`, made in the folder that `--cache` names. With `--write` the
figures are kept in docs/reliability-peers.json, queue by queue, and shown in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

from benchmarks import harness
from benchmarks.peers import environments
from benchmarks.storm import report
from benchmarks.storm.plan import Plan
from benchmarks.storm.roster import CONTENDERS, Contender
from benchmarks.storm.storm import Storm


def main() -> int:
    """Run the command; 1 if a run was void or could not be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where the queues' environments are, or are made")
    parser.add_argument("--only", help=f"some of {','.join(one.name for one in CONTENDERS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=Plan.jobs)
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="how long it rages")
    parser.add_argument("--write", action="store_true", help="keep the figures, and show them on the page")
    options = parser.parse_args()
    chosen = [one for one in CONTENDERS if not options.only or one.name in options.only.split(",")]
    failed = 0
    for contender in chosen:
        environments.prepare(contender.peer, options.cache.resolve())
        entry = run(contender, Plan(options.seed, options.jobs, options.seconds), options.cache.resolve())
        failed += "error" in entry
        print(report.row(contender.name, entry), file=sys.stderr, flush=True)
        if options.write:
            report.keep(contender.name, entry)
    return 1 if failed else 0


def run(contender: Contender, plan: Plan, cache: Path) -> report.Entry:
    """Put one queue through the storm and return what to keep of it."""
    plan = dataclasses.replace(plan, jobs=int(plan.jobs * contender.share))
    storm = Storm(plan, lambda url: contender.command(cache, url), patience=contender.patience)
    began = time.monotonic()
    entry: report.Entry = {
        "seed": plan.seed, "jobs": plan.jobs, "settings": contender.settings,
        "recovers_within": contender.recovers_within, "versions": environments.versions(contender.peer, cache),
        "machine": harness.machine(),
    }  # fmt: skip
    try:
        outcome = storm.run()
    except (TimeoutError, RuntimeError) as error:
        return {**entry, "error": f"{type(error).__name__}: {error}"[-600:]}
    entry |= {"faults": dict(storm.happened), "found": report.figures(outcome), "server": storm.server}
    entry["took"] = round(time.monotonic() - began, 1)
    if void := plan.shortfall(storm.happened):
        entry["error"] = f"void: too little happened: {void}"
    return entry


if __name__ == "__main__":
    sys.exit(main())
