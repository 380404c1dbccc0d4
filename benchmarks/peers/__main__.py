"""How does streamq stand beside other queues? Measures all of them in one run, in turn, on one server.

Every queue gets the same: one producer process; one or two worker processes at concurrency 100 (or what its adapter
says), at liberty and pinned to one core; jobs that do nothing, jobs that sleep 10 ms, and a job every 10 ms to an idle
worker. A drain counts from the first handler's end until the server holds nothing that waits or runs. The environments
are made in the folder that `--cache` names, once. Results go into results.json and README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import redis

from benchmarks import harness, plots, tally
from benchmarks.drain import drain_raw
from benchmarks.peers import environments, report
from benchmarks.peers.roster import PEERS, STREAMQ, Peer
from benchmarks.server import Server
from benchmarks.suite import RESULTS

LIMIT = 180.0
"""Seconds after which one step is given up."""


class Run(NamedTuple):
    """How workers are run. `concurrency` 0 is the one that the command line names."""

    workers: int = 1
    kind: str = "noop"
    concurrency: int = 0
    pinned: bool = False
    """Each worker on one and the same core: threads that contend for the interpreter's lock are quicker there."""


USUAL = Run()


class Bench:
    """Measures one peer after the other on one server."""

    def __init__(self, server: Server, options: argparse.Namespace) -> None:
        self.server, self.cache = server, options.cache
        self.jobs, self.concurrency = options.jobs, options.concurrency

    def start(self, peer: Peer, mode: str, *more: str, pinned: bool = False, **env: str) -> subprocess.Popen[bytes]:
        """Start a peer's adapter in a process group of its own, `pinned` to the last core if asked for."""
        pin = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))] if pinned else []
        command = [*pin, *environments.command(peer, self.cache), mode, "--url", self.server.tcp_url, *more]
        environment = {**environments.environment(peer, self.cache), tally.FOLDER: str(self.server.folder), **env}
        with (self.server.folder / f"{peer.name}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment, cwd=self.server.folder, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def finish(self, peer: Peer, process: subprocess.Popen[bytes]) -> bytes:
        """Wait for a producer's end and return what it printed."""
        try:
            out, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            end(process)
            raise
        if process.returncode:
            raise RuntimeError((self.server.folder / f"{peer.name}.log").read_text()[-1500:])
        return out

    def empty(self) -> None:
        """Make the server and the tally's folder as new."""
        self.server.empty()
        self.server.client.script_flush()
        for pattern in ("tally.*", "ready.*", "go"):
            for path in self.server.folder.glob(pattern):
                path.unlink()

    def enqueue(self, peer: Peer, how: str, jobs: int) -> float:
        """Return the jobs per second that one process adds."""
        out = self.finish(peer, self.start(peer, "enqueue", "--how", how, "--jobs", str(jobs)))
        return float(json.loads(out.splitlines()[-1])["rate"])

    def workers(self, peer: Peer, how: Run) -> list[subprocess.Popen[bytes]]:
        """Start workers and return when all have imported what they need."""
        more = ("--concurrency", str(how.concurrency or self.concurrency))
        count = how.workers
        found = [self.start(peer, "worker", *more, pinned=how.pinned, BENCH_KIND=how.kind) for _ in range(count)]
        self.wait(lambda: len(list(self.server.folder.glob("ready.*"))) >= count, "the workers", found)
        return found

    def wait(self, condition: Callable[[], bool], what: str, workers: list[subprocess.Popen[bytes]]) -> None:
        """Wait until `condition` holds."""
        until = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > until or any(worker.poll() is not None for worker in workers):
                raise TimeoutError(f"{what}: {tally.counted(self.server.folder)} ran")
            time.sleep(0.002)

    def settled(self, peer: Peer) -> bool:
        """Say whether nothing waits and nothing runs."""
        if peer is STREAMQ:
            lanes = [f"sq:{{bench}}:lane:{lane}" for lane in range(1, 5)]
            return not any(self.server.client.xlen(lane) for lane in lanes)
        for command in peer.settled:
            try:
                answer: Any = self.server.client.execute_command(*command)  # type: ignore[no-untyped-call]
            except redis.ResponseError:  # another type, or no group yet: nothing of this kind is there
                continue
            if isinstance(answer, dict):
                answer = answer.get("pending", 0)
            elif isinstance(answer, list):
                answer = answer[0]
            if int(answer or 0):
                return False
        return True

    def memory(self, peer: Peer, how: str, jobs: int) -> float:
        """Return the bytes that a job takes once it is added, which is left in place."""
        self.empty()
        before = self.server.memory()
        self.enqueue(peer, how, jobs)
        return (self.server.memory() - before) / (jobs + 1)

    def drain(self, peer: Peer, jobs: int, how: Run = USUAL) -> dict[str, float]:
        """Add jobs, drain them, and return the rate and what it cost."""
        quickest = "bulk" if peer.bulk else "concurrently" if peer.concurrent else "one by one"
        waiting = self.memory(peer, quickest, jobs)
        jobs += 1  # the one that opened the producer's connection
        running = self.workers(peer, how)
        try:
            before = self.server.work()
            (self.server.folder / "go").touch()
            self.wait(lambda: tally.counted(self.server.folder) >= jobs, f"{jobs} jobs", running)
            self.wait(lambda: self.settled(peer), "the last outcomes", running)
            took = time.monotonic() - tally.first(self.server.folder)
            after = self.server.work()
            if (count := tally.counted(self.server.folder)) != jobs:
                print(f"   {peer.name}: {count} runs of {jobs} jobs", file=sys.stderr)
            return {
                "rate": jobs / took,
                "waiting": waiting,
                "redis_cpu_us": (after["cpu"] - before["cpu"]) / jobs * 1e6,
                "commands": (after["commands"] - before["commands"]) / jobs,
                "worker_mb": sum(resident_mb(worker) for worker in running) / how.workers,
            }
        finally:
            for worker in running:
                end(worker)

    def latency(self, peer: Peer, jobs: int) -> list[float]:
        """Return the milliseconds from add to the handler, on an idle worker."""
        self.empty()
        running = self.workers(peer, Run(kind="stamp"))
        try:
            (self.server.folder / "go").touch()
            time.sleep(2.0)  # some workers tell nobody when they have begun to listen
            self.finish(peer, self.start(peer, "produce", "--jobs", str(jobs)))
            self.wait(lambda: tally.counted(self.server.folder) >= jobs, f"{jobs} hand-overs", running)
            return [age * 1000 for age in tally.samples(self.server.folder)]
        finally:
            for worker in running:
                end(worker)

    def all_of(self, peer: Peer) -> dict[str, Any]:
        """Take every figure of a peer once."""
        jobs = min(self.jobs, peer.most_jobs)
        found: dict[str, Any] = {}
        self.empty()
        found["one_by_one"] = self.enqueue(peer, "one by one", jobs // 10)
        if peer.concurrent:
            found["concurrently"] = self.enqueue(peer, "concurrently", jobs // 4)
        if peer.bulk:
            found["bulk"] = self.enqueue(peer, "bulk", jobs)
        one = self.drain(peer, jobs)
        found["drain"] = one.pop("rate")
        found.update(one)
        found["drain_pinned"] = self.drain(peer, jobs, Run(pinned=True))["rate"]
        found["drain_5"] = self.drain(peer, jobs // 2, Run(concurrency=5))["rate"]
        found["drain_5_pinned"] = self.drain(peer, jobs // 2, Run(concurrency=5, pinned=True))["rate"]
        found["drain_2"] = self.drain(peer, jobs, Run(workers=2))["rate"]
        sleeping = 500 if peer.most_jobs < self.jobs else max(jobs // 5, 500)
        found["sleeping"] = self.drain(peer, sleeping, Run(kind="sleep"))["rate"]
        if peer.delays:
            found["delayed"] = self.memory(peer, "delayed", jobs // 4)
        ages = self.latency(peer, 300)
        for share in (0.5, 0.95, 0.99):
            found[f"p{share * 100:.0f}"] = harness.percentile(ages, share)
        return found


def resident_mb(worker: subprocess.Popen[bytes]) -> float:
    """Return the largest resident size that a worker and the processes it forked reached, together."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getpgid(int(status.parent.name)) == worker.pid:
                lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
                total += int(lines[0].split()[1]) if lines else 0
        except (OSError, ValueError):
            continue
    return total / 1000


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group that a peer's adapter started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _without_folder(arguments: list[str]) -> list[str]:
    """Return the arguments as they are told: whose folder it was is of no interest."""
    return ["FOLDER" if before == "--cache" else now for before, now in zip(["", *arguments], arguments, strict=False)]


async def raw_rate(server: Server, jobs: int) -> dict[str, float]:
    """Return the yardstick's drain."""
    found = await drain_raw(server, jobs)
    return {"drain": found["rate"], "redis_cpu_us": found["redis_cpu_us"], "commands": found["commands"]}


def main() -> int:
    """Run the command."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where the peers' environments are, or are made")
    parser.add_argument("--only", help=f"some of {', '.join(peer.name for peer in PEERS)}; streamq always runs")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--binary", type=Path, help="the server's program")
    options = parser.parse_args()
    options.cache = options.cache.resolve()
    chosen = [peer for peer in PEERS if not options.only or peer.name in options.only.split(",")]
    for peer in chosen:
        environments.prepare(peer, options.cache)
    found: dict[str, list[dict[str, Any]]] = {}
    errors: dict[str, str] = {}
    neighbours = harness.Neighbours()
    with Server(options.binary) as server:
        bench = Bench(server, options)
        for rep in range(options.reps):
            for peer in [STREAMQ, *chosen]:
                start = time.monotonic()
                try:
                    found.setdefault(peer.name, []).append(bench.all_of(peer))
                except Exception as error:
                    errors[peer.name] = f"{type(error).__name__}: {error}"[-600:]
                    print(f"   {peer.name} failed: {errors[peer.name]}", file=sys.stderr)
                else:
                    rate = found[peer.name][-1]["drain"]
                    took = time.monotonic() - start
                    print(f"{rep + 1} {peer.name}: {rate:,.0f} jobs/s ({took:.0f} s)", file=sys.stderr, flush=True)
            found.setdefault("raw", []).append(uvloop.run(raw_rate(server, options.jobs * 2)))
        rows = []
        for peer in [STREAMQ, *chosen]:
            runs = found.get(peer.name)
            row: dict[str, Any] = {"name": peer.name, "versions": environments.versions(peer, options.cache)}
            if runs:
                row |= {key: harness._round(statistics.median(run[key] for run in runs)) for key in runs[0]}
            if peer.name in errors:
                row["error"] = errors[peer.name]
            rows.append(row)
        raw = {key: harness._round(statistics.median(run[key] for run in found["raw"])) for key in found["raw"][0]}
        result = {
            **harness.machine(), "server": server.version, "others_took": round(neighbours.share(), 3),
            "command": " ".join(["python -m benchmarks.peers", *_without_folder(sys.argv[1:])]),
            "raw": raw, "peers": rows,
        }  # fmt: skip
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["peers"] = result
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    report.write(result)
    print(report.table(result), report.reach(result), sep="\n\n")
    plots.draw({"peers": result})
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
