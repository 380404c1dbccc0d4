"""A real Redis Cluster on this machine: three primaries, each with a replica, from the program that all tests use.

with Cluster() as cluster:
    queue = Queue("reports", redis=cluster.client())
    cluster.owner(slot_of("sq:{reports}:id")).kill()
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

import redis
import redis.asyncio
from redis.crc import key_slot

from tests.faults.sentinels import replication_of, text_of, wait_until
from tests.servers import RedisServer, _free_port

SLOTS = 16_384
PRIMARIES = 3
NODE_TIMEOUT_MS = 1_000
"""After how long without a word the others call a node lost; its replica takes over a moment later."""


class Node(RedisServer):
    """One server of a cluster."""

    def __init__(self) -> None:
        self.bus = _free_port()
        super().__init__(
            port=0,
            arguments=[
                *("--cluster-enabled", "yes", "--cluster-port", str(self.bus)),
                *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--repl-diskless-sync-delay", "0"),
            ],
        )

    @property
    def id(self) -> str:
        """Its name in the cluster."""
        return text_of(self.call("CLUSTER", "MYID"))

    @property
    def is_primary(self) -> bool:
        """Whether it takes writes."""
        return b"role:master" in replication_of(self)

    def connect(self) -> redis.Redis:
        """Return a client of this node alone; the caller closes it."""
        return redis.Redis.from_url(self.unix_url, socket_timeout=5)

    def info(self) -> str:
        """What it says of the cluster."""
        with self.connect() as client:
            client.set_response_callback("CLUSTER INFO", lambda reply: reply)
            return text_of(client.execute_command("CLUSTER INFO"))


class Cluster:
    """Six servers that are one cluster for as long as the block runs."""

    def __init__(self) -> None:
        self.nodes = [Node() for _ in range(2 * PRIMARIES)]
        self._clients: list[redis.asyncio.RedisCluster] = []

    def __enter__(self) -> Self:
        try:
            for epoch, node in enumerate(self.nodes, 1):
                node.start()
                node.call("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            share = -(-SLOTS // PRIMARIES)
            for number, node in enumerate(self.nodes[:PRIMARIES]):
                node.call("CLUSTER", "ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
            first, *others = self.nodes
            for node in others:
                first.call("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
            known = f"cluster_known_nodes:{len(self.nodes)}"
            wait_until(lambda: all(known in node.info() for node in self.nodes), "all nodes know one another")
            for primary, replica in zip(self.nodes, self.nodes[PRIMARIES:], strict=False):
                wait_until(lambda p=primary, r=replica: self._replicate(r, p), "a replica knows its primary")  # type: ignore[misc]
            self.wait_until_whole()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for node in self.nodes:
            node.close()

    @property
    def url(self) -> str:
        """The address of one of the nodes."""
        return self.nodes[0].url

    @property
    def cluster_url(self) -> str:
        """The address of the cluster: all nodes that were primaries at first."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:PRIMARIES])

    def client(self) -> redis.asyncio.RedisCluster:
        """Return a client that knows the whole cluster; `close_clients` closes it."""
        client = redis.asyncio.RedisCluster.from_url(self.url)
        self._clients.append(client)
        return client

    async def close_clients(self) -> None:
        """Close what `client` opened; call it in the loop that used them."""
        for client in self._clients:
            await client.aclose()

    def running(self) -> list[Node]:
        """Return the nodes that answer."""
        return [node for node in self.nodes if node.answers()]

    def owner(self, slot: int) -> Node:
        """Return the node that serves a slot now."""
        return next(node for node in self.running() if node.is_primary and slot in self._slots_of(node))

    def replica_of(self, primary: Node) -> Node:
        """Return a primary's replica, one that runs."""
        port = f"master_port:{primary.port}".encode()
        return next(node for node in self.running() if port in replication_of(node))

    def whole(self) -> bool:
        """Whether all slots are served, by the word of all nodes that run, and all replicas follow."""
        return all(
            "cluster_state:ok" in node.info() and (node.is_primary or b"master_link_status:up" in replication_of(node))
            for node in self.running()
        )

    def wait_until_whole(self) -> None:
        """Wait until all slots are served and all replicas follow."""
        wait_until(self.whole, "the cluster is whole")

    def fail_over(self, primary: Node) -> Node:
        """Have a primary's replica take its place in good order; return it when all know."""
        replica = self.replica_of(primary)
        replica.call("CLUSTER", "FAILOVER")
        wait_until(lambda: replica.is_primary and not primary.is_primary, "the replica takes over")
        self.wait_until_whole()
        return replica

    def move(self, slot: int, target: Node, *, between: Callable[[], None] = lambda: None) -> None:
        """Move a slot with all that it holds to another primary; `between` runs when half of the keys have moved."""
        source = self.owner(slot)
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, 100_000)
        for at, key in enumerate(keys):
            if at == len(keys) // 2:
                between()
            source.call("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
        for node in (target, source, *(node for node in self.running() if node.is_primary)):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def move_at_once(self, slot: int, target: Node) -> None:
        """Move a slot as Valkey 9 can: a copy that is kept up to date, and then a switch."""
        self.owner(slot).call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        wait_until(lambda: self.owner(slot) is target, "the slot has moved")

    def _replicate(self, replica: Node, primary: Node) -> bool:
        replica.call("CLUSTER", "REPLICATE", primary.id)
        return True

    def _slots_of(self, node: Node) -> set[int]:
        """Return the slots that a node says it serves."""
        found: set[int] = set()
        with redis.Redis.from_url(node.unix_url, socket_timeout=5) as client:
            client.set_response_callback("CLUSTER SLOTS", lambda reply: reply)
            for first, last, served_by, *_ in client.execute_command("CLUSTER SLOTS"):
                if int(served_by[1]) == node.port:
                    found.update(range(int(first), int(last) + 1))
        return found


def slot_of(key: str) -> int:
    """Return the slot of a key."""
    return int(key_slot(key.encode()))
