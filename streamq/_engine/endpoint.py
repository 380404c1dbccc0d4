"""Where Redis is, and how a connected, authenticated socket to it is made.

redis-py knows URLs, TLS, ACLs and Sentinel; this module lets it connect and hands the transport on. It sends no command
of its own, except that it asks a cluster for a slot's owner (see `cluster`). redis-py takes longer to import than all
else together: that waits until an endpoint is made.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from streamq._engine import cluster
from streamq.errors import InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.connection import AbstractConnection

_SECRET = re.compile(r"(://[^:/@\s]*:)\S*@|([?&]password=)[^&\s]*")


class Endpoint:
    """One Redis, by URL or by the settings of a redis-py client that the caller made.

    Only settings are taken from such a client: its pool's connections stay its own, and `decode_responses` has no
    effect here, since streamq reads raw bytes. In a cluster it is the node that serves `key`, whichever that is when a
    connection is made.
    """

    def __init__(self, target: str | Redis | RedisCluster, timeout: float, key: str = "") -> None:
        from redis.asyncio import Redis, RedisCluster
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self.target, self.timeout = target, timeout
        self._sentinel_pool: Any = None
        self._nodes: cluster.Nodes | None = None
        if isinstance(target, str):
            try:
                if target.startswith(cluster.SCHEMES):
                    self._kind, self._options, places = _from_cluster_url(target)
                    self._nodes = cluster.Nodes(places, cluster.slot_of(key))
                else:
                    self._kind, self._options = _from_url(target)
            except ValueError as error:
                # With a password in it, what redis-py says may quote a piece of that.
                why = "percent-encode special characters in the password" if "@" in target else error
                raise InvalidInput(f"{hide_password(target)} is no Redis URL: {why}") from None
        elif isinstance(target, Redis):
            pool = target.connection_pool
            self._kind, self._options = pool.connection_class, dict(pool.connection_kwargs)
            if hasattr(pool, "sentinel_manager"):
                self._sentinel_pool = _own_sentinel_pool(pool)
        elif isinstance(target, RedisCluster):
            places, self._options, remap = cluster.of_client(target)
            self._kind = self._options.pop("connection_class", _plain_kind())
            self._nodes = cluster.Nodes(places, cluster.slot_of(key), remap)
        else:
            raise InvalidInput(f"redis must be a URL or a redis.asyncio client, not {type(target).__name__}")
        # RESP2 keeps replies plain lists; a retry inside redis-py would run a script twice.
        self._options.update(
            protocol=2, decode_responses=False, retry=Retry(NoBackoff(), 0), retry_on_error=[], health_check_interval=0,
            socket_connect_timeout=timeout, socket_timeout=timeout,
        )  # fmt: skip

    def __repr__(self) -> str:
        if self._nodes is not None:
            return f"<Endpoint {self._nodes!r} slot {self._nodes.slot}>"
        where = self._options.get("path") or f"{self._options.get('host')}:{self._options.get('port')}"
        return f"<Endpoint {where} db {self._options.get('db', 0)}>"

    @property
    def in_cluster(self) -> bool:
        """Whether this is a cluster, where a script reaches one slot only."""
        return self._nodes is not None

    def doubt(self, place: tuple[str, int]) -> None:
        """Look for the slot's owner elsewhere first: this node of the cluster is cut off from the others."""
        if self._nodes is not None:
            self._nodes.doubt(place)

    async def connect(self) -> AbstractConnection:
        """Return a new connection: open, authenticated, its database selected.

        Raises:
            StoreUnavailable: There was none to be had within the timeout.
            StoreRefused: It is no cluster, or does not tell this user about its slots.
        """
        if self._nodes is None:
            return await self._open(None, self.timeout)
        try:
            async with asyncio.timeout(self.timeout):
                return await self._nodes.connect(self._open, self.timeout)
        except TimeoutError:
            raise StoreUnavailable(f"no connection to Redis at {self!r} within {self.timeout:g} s") from None

    async def _open(self, place: tuple[str, int] | None, within: float) -> AbstractConnection:
        from redis.exceptions import RedisError

        options = dict(self._options)
        if place is not None:
            options["host"], options["port"] = place
        if self._sentinel_pool is not None:
            options["connection_pool"] = self._sentinel_pool
        connection: AbstractConnection = self._kind(**options)
        task = asyncio.current_task()
        cancels = task.cancelling() if task is not None else 0
        try:
            async with asyncio.timeout(within):
                await connection.connect()  # type: ignore[no-untyped-call]
            if task is not None and task.cancelling() > cancels:
                raise asyncio.CancelledError  # Python 3.11's wait_for, inside redis-py, can swallow it
        except (RedisError, OSError, TimeoutError, EOFError) as error:
            await _quietly_close(connection)
            where = repr(self) if place is None else f"{place[0]}:{place[1]}, a node of a cluster"
            raise StoreUnavailable(f"no connection to Redis at {where}: {hide_password(str(error))}") from None
        except BaseException:
            await _quietly_close(connection)
            raise
        finally:
            if self._sentinel_pool is not None:
                for sentinel in self._sentinel_pool.sentinel_manager.sentinels:  # they are asked once per connection
                    await sentinel.connection_pool.disconnect(inuse_connections=False)
        return connection


def _own_sentinel_pool(pool: Any) -> Any:
    """Return a pool that asks the same sentinels over connections of its own: the caller's belong to another loop."""
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

    theirs = pool.sentinel_manager
    places = [client.connection_pool.connection_kwargs for client in theirs.sentinels]
    asked = [(place["host"], place["port"]) for place in places]
    ours = Sentinel(asked, theirs.min_other_sentinels, theirs.sentinel_kwargs)  # type: ignore[no-untyped-call]
    return SentinelConnectionPool(pool.service_name, ours, is_master=pool.is_master)  # type: ignore[no-untyped-call]


async def _quietly_close(connection: AbstractConnection) -> None:
    from redis.exceptions import RedisError

    try:
        await connection.disconnect(nowait=True)
    except (RedisError, OSError, RuntimeError):
        return


def _from_url(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    from redis.asyncio.connection import Connection, parse_url

    options: dict[str, Any] = dict(parse_url(url))
    kind = options.pop("connection_class", Connection)
    for name in ("max_connections", "timeout"):
        options.pop(name, None)
    return kind, options


def _from_cluster_url(url: str) -> tuple[type[AbstractConnection], dict[str, Any], list[cluster.Place]]:
    found = [_from_url(one) for one in cluster.urls_of(url)]
    kind, options = found[0]
    if options.pop("db", 0):
        raise ValueError("a cluster has database 0 alone")
    return kind, options, [(said.get("host", "localhost"), said.get("port", 6379)) for _, said in found]


def _plain_kind() -> type[AbstractConnection]:
    from redis.asyncio.connection import Connection

    return Connection


def hide_password(text: str) -> str:
    """Return `text` with the passwords of all URLs in it replaced."""
    return _SECRET.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)
