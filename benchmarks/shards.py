"""What does a queue over shards gain from more servers, and what does it cost on one?

One cluster after the other of one, two and three primaries, without replicas, each with a queue of six shards, filled
by this process and drained by two workers; and a queue without shards on one primary beside them. Where the machine has
fewer cores than there are processes, jobs per second can't grow with the servers: they share the cores. What tells of
the gain is the CPU time of the busiest server per job: it is what a queue's rate ends at where each server has a core.
An idle worker of eight shards is watched beside one without.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from benchmarks import harness
from benchmarks.idle import watch
from benchmarks.server import Server
from streamq import Queue

SHARDS = 6
IDLE_SHARDS = 8
SLOTS = 16_384
WORKERS = 2


class Cluster(Server):
    """Primaries that share all slots. The first one's folder is where workers count."""

    def __init__(self, binary: Any, primaries: int) -> None:
        arguments = ("--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port", "0")
        self.nodes = [Server(binary, arguments=arguments) for _ in range(primaries)]
        first = self.nodes[0]
        self.binary, self.folder, self.client = first.binary, first.folder, first.client
        self.url = ",".join(f"redis+cluster://127.0.0.1:{node.port}" for node in self.nodes[:1])
        self._open = ExitStack()

    def __enter__(self) -> Cluster:
        for number, node in enumerate(self.nodes):
            # The bus has no default that is free for sure: it is ten thousand above the port unless it is said.
            node._command[node._command.index("--cluster-port") + 1] = str(_bus_of(node))
            self._open.enter_context(node)
            share = SLOTS * number // len(self.nodes), SLOTS * (number + 1) // len(self.nodes) - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", *share)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, _bus_of(node))
        until = time.monotonic() + 30
        while not all(self._agrees(node) for node in self.nodes):
            if time.monotonic() > until:
                raise RuntimeError("the cluster's nodes did not find each other")
            time.sleep(0.05)
        return self

    def _agrees(self, node: Server) -> bool:
        info = node.client.execute_command("CLUSTER", "INFO").decode()
        return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.nodes)}\r" in info

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def empty(self) -> None:
        """Remove all that is in it."""
        for node in self.nodes:
            node.client.flushall()

    def cpu(self) -> list[float]:
        """CPU seconds of each primary."""
        return [node.work()["cpu"] for node in self.nodes]


def _bus_of(node: Server) -> int:
    return node.port + 10_000 if node.port < 50_000 else node.port - 10_000


async def fill_and_drain(cluster: Cluster, jobs: int, shards: int | None) -> dict[str, float]:
    """Add jobs to a paused queue, then drain it; return the rates, and what the busiest server took per job."""
    cluster.empty()
    async with Queue(harness.QUEUE, cluster.url, shards=shards) as queue:
        await queue.pause()
        before, start = cluster.cpu(), time.perf_counter()
        await harness.fill(queue, jobs)
        added, after = time.perf_counter() - start, cluster.cpu()
        found = {"add": jobs / added, "add_us": _most(before, after) / jobs * 1e6}
        async with harness.Workers(cluster, count=WORKERS, shards=shards):
            before, start = cluster.cpu(), time.perf_counter()
            await queue.resume()
            await harness.drained(queue, cluster, jobs)
            took, after = time.perf_counter() - start, cluster.cpu()
    return {**found, "drain": jobs / took, "drain_us": _most(before, after) / jobs * 1e6}


def _most(before: list[float], after: list[float]) -> float:
    return max(b - a for a, b in zip(before, after, strict=True))


async def idle(binary: Any, seconds: float, shards: int | None) -> dict[str, float]:
    """Watch a worker that has nothing to do."""
    with Server(binary) as server:
        async with Queue(harness.QUEUE, server.url, shards=shards) as queue:
            await queue.stats()
        async with harness.Workers(server, shards=shards) as running:
            await asyncio.sleep(1)  # the start is no part of it
            return await watch(server, running, seconds)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Answer the question."""
    verdicts = harness.Verdicts(__doc__.split("\n")[0])
    cases: list[tuple[str, int, int | None]] = [("without shards, 1 primary", 1, None)]
    cases += [(f"{SHARDS} shards, {n} primar{'y' if n == 1 else 'ies'}", n, SHARDS) for n in (1, 2, 3)]

    def taking(primaries: int, shards: int | None) -> Any:
        async def take() -> dict[str, float]:
            with Cluster(options.binary, primaries) as cluster:
                return await fill_and_drain(cluster, options.jobs, shards)

        return take

    found = await harness.interleave(options.reps, {name: taking(n, shards) for name, n, shards in cases})
    base = found[cases[0][0]]
    for what, unit in (("add", "jobs/s"), ("drain", "jobs/s"), ("add_us", "µs"), ("drain_us", "µs")):
        words = {"add_us": "busiest server's CPU per job added", "drain_us": "busiest server's CPU per job drained"}
        for name, _, _ in cases:
            values = [run[what] for run in found[name]]
            ratio = harness.ratio(values, [run[what] for run in base])
            verdicts.add(f"{words.get(what, what)}, {name}", statistics.median(values), unit, ratio=ratio)
    for shards in (None, IDLE_SHARDS):
        quiet = await idle(options.binary, options.seconds, shards)
        name = f"{shards} shards" if shards else "no shards"
        verdicts.add(f"an idle worker's CPU, {name}", quiet["worker"], "% of a core")
        verdicts.add(f"the server's, {name}", quiet["server"], "% of a core")
        verdicts.add(f"it asks, {name}", quiet["received"], "times a second")
    with Server(options.binary) as server:
        return verdicts.report(server.version)


if __name__ == "__main__":
    parser = harness.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    harness.main(measure, parser.parse_args())
