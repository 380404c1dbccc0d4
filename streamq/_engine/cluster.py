"""A Redis Cluster as one queue needs it: which node serves the queue's slot now.

That is asked anew for each connection, of whichever known node answers, since nodes fail over and slots move. While a
slot moves, its owner refuses every script with ASK. Following that with ASKING would start the queue's counter a second
time at the slot's next owner, so nothing here ever does: the store waits until the move is over, and is told MOVED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from streamq.errors import StoreRefused, StoreUnavailable

if TYPE_CHECKING:
    from redis.asyncio import RedisCluster
    from redis.asyncio.connection import AbstractConnection

Place = tuple[str, int]
"""A host and a port."""
Remap = Callable[[Place], Place]

SCHEMES = ("redis+cluster://", "rediss+cluster://")
SHARE = 3
"""A node may take this part of the timeout to say who serves a slot; then another one is asked."""


def slot_of(key: str) -> int:
    """Return the slot of a key, which its hash tag decides."""
    from redis.crc import key_slot

    return int(key_slot(key.encode()))


def urls_of(url: str) -> list[str]:
    """Return a plain URL for each node that a cluster's URL names.

    Raises:
        ValueError: It names a node without a host.
    """
    parts = urlsplit(url.replace("+cluster://", "://", 1))
    login, at, hosts = parts.netloc.rpartition("@")
    if not all(hosts.split(",")):
        raise ValueError("it names the nodes of a cluster, as in redis+cluster://host:port,host:port")
    return [parts._replace(netloc=f"{login}{at}{host}").geturl() for host in hosts.split(",")]


def of_client(client: RedisCluster) -> tuple[list[Place], dict[str, Any], Remap | None]:
    """Return what a redis-py client was told: nodes to ask, how to connect, and how addresses are translated."""
    options = dict(client.connection_kwargs)
    for name in ("response_callbacks", "redis_connect_func", "max_connections", "event_dispatcher"):
        options.pop(name, None)  # of its pool, or for reading from replicas
    known = [*client.startup_nodes, *client.nodes_manager.nodes_cache.values()]
    places = list(dict.fromkeys((str(node.host), int(node.port)) for node in known))
    return places, options, client.nodes_manager.address_remap


class Nodes:
    """The nodes of a cluster that are known by now, and the slot whose owner is wanted."""

    def __init__(self, places: Sequence[Place], slot: int, remap: Remap | None = None) -> None:
        self._places, self.slot, self._remap = list(dict.fromkeys(places)), slot, remap

    def __repr__(self) -> str:
        return f"cluster of {','.join(f'{host}:{port}' for host, port in sorted(self._places))}"

    async def connect(
        self, open_at: Callable[[Place, float], Awaitable[AbstractConnection]], timeout: float
    ) -> AbstractConnection:
        """Return a connection to the owner of the slot.

        Raises:
            StoreUnavailable: No node knew the owner in time, or the owner did not answer.
            StoreRefused: What answered is no cluster, or does not let this user ask.
        """
        last: StoreUnavailable | None = None
        for place in list(self._places):
            try:
                connection = await open_at(place, timeout / SHARE)
                owner = await self._ask(connection, place, timeout / SHARE)
            except StoreUnavailable as error:
                last = error
                self.doubt(place)
                continue
            if owner == place:
                return connection
            await connection.disconnect(nowait=True)
            try:
                return await open_at(owner, timeout)
            except StoreUnavailable:
                self.doubt(owner)
                raise
        raise last or StoreUnavailable("no node of the cluster is known")

    def doubt(self, place: Place) -> None:
        """Ask this node last: it did not answer, or is cut off from the others."""
        self._places.sort(key=lambda known: known == place)

    async def _ask(self, connection: AbstractConnection, place: Place, within: float) -> Place:
        from redis.exceptions import RedisError, ResponseError

        try:
            async with asyncio.timeout(within):
                await connection.send_command("CLUSTER", "SLOTS")
                ranges: Any = await connection.read_response()
            return self._owner(ranges, place)
        except ResponseError as error:
            await connection.disconnect(nowait=True)
            raise StoreRefused(
                f"the node at {place[0]}:{place[1]} does not tell the cluster's slots: {error}"
            ) from None
        except (RedisError, OSError, TimeoutError, EOFError) as error:
            await connection.disconnect(nowait=True)
            raise StoreUnavailable(f"the node at {place[0]}:{place[1]} did not tell the slots: {error}") from None
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    def _owner(self, ranges: list[Any], asked: Place) -> Place:
        """Take from a reply of CLUSTER SLOTS who serves the slot, and all nodes that it names, the owner first."""
        owner: Place | None = None
        named: list[Place] = []
        for first, last, *nodes in ranges:
            found = [self._place(node, asked) for node in nodes]
            named += found
            if first <= self.slot <= last:
                owner = found[0]
        if owner is None:
            raise StoreUnavailable(f"no node of the cluster serves slot {self.slot}")
        self._places = list(dict.fromkeys((owner, asked, *named, *self._places)))
        return owner

    def _place(self, node: list[Any], asked: Place) -> Place:
        host, port = node[0], int(node[1])
        # A node that does not know its own name leaves it out: it has the one by which it was reached.
        place = (host.decode() if host not in (None, b"", b"?") else asked[0], port)
        return place if self._remap is None else self._remap(place)
