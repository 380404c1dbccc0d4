"""A primary, a replica and three sentinels that watch them: a small real deployment to fail over."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

import redis
import redis.asyncio
from redis.asyncio.sentinel import Sentinel

from streamq.embedded.supervisor import end_with_parent
from tests.servers import RedisServer

NAME = "mymaster"
DOWN_AFTER_MS = 1_500


class Deployment:
    """Two servers, three sentinels. Use it as a context manager; `client` gives what an application would use.

    The sentinels let twice `failover_timeout_ms` pass between two failovers that nobody asked for.
    """

    def __init__(self, *, failover_timeout_ms: int = 4_000) -> None:
        self._failover_timeout_ms = failover_timeout_ms
        self.servers = [RedisServer(port=0), RedisServer(port=0)]
        self._sentinels: list[subprocess.Popen[bytes]] = []
        self._ports: list[int] = []
        self._clients: list[Any] = []

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
            primary, replica = self.servers
            replica.call("CONFIG", "SET", "replica-serve-stale-data", "yes")
            self.follow(replica, primary)
            for _ in range(3):
                self._start_sentinel(primary)
            wait_until(self._all_see_each_other, "the sentinels know the replica and one another")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for sentinel in self._sentinels:
            sentinel.send_signal(signal.SIGKILL)
            sentinel.wait(10)
        for server in self.servers:
            server.close()

    def client(self) -> redis.asyncio.Redis:
        """Return a client that asks the sentinels where the primary is."""
        sentinel = Sentinel([("127.0.0.1", port) for port in self._ports], socket_timeout=1)
        client = sentinel.master_for(NAME)
        self._clients += [client, *sentinel.sentinels]
        return client

    async def close_clients(self) -> None:
        """Close what `client` opened; call it in the loop that used them."""
        for client in self._clients:
            await client.aclose()

    def primary(self) -> RedisServer:
        """Return the server that the sentinels call the primary."""
        answers = [self._ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME) for port in self._ports]
        ports = {int(answer[1]) for answer in answers}
        for server in self.servers:
            if ports == {server.port}:
                return server
        raise LookupError(f"the sentinels do not agree: {ports}")

    def other(self, server: RedisServer) -> RedisServer:
        """Return the other one of the two servers."""
        return next(one for one in self.servers if one is not server)

    def follow(self, replica: RedisServer, primary: RedisServer) -> None:
        """Make one server the other's replica; returns when it holds all that the other does."""
        for server in (replica, primary):
            server.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
        replica.call("REPLICAOF", "127.0.0.1", str(primary.port))
        wait_until(lambda: self.follows(replica), "the replica follows")

    def follows(self, replica: RedisServer) -> bool:
        """Whether a server is a replica and hears its primary."""
        return b"master_link_status:up" in replication_of(replica)

    def fail_over(self) -> None:
        """Ask for a planned failover; returns when it has been agreed to."""
        wait_until(self._failover_accepted, "a failover is accepted")

    def settled(self, primary: RedisServer) -> bool:
        """Whether all sentinels name this server and it takes writes."""
        with contextlib.suppress(LookupError):
            return self.primary() is primary and b"role:master" in replication_of(primary)
        return False

    def _failover_accepted(self) -> bool:
        try:
            self._ask(self._ports[0], "SENTINEL", "FAILOVER", NAME)
        except redis.ResponseError:
            return False
        return True

    def _start_sentinel(self, primary: RedisServer) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        config = primary.folder / f"sentinel-{port}.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {primary.folder}\nsentinel monitor {NAME} 127.0.0.1 {primary.port} 2\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {NAME} {self._failover_timeout_ms}\n"
        )
        prepare = end_with_parent(os.getpid()) if sys.platform == "linux" else None
        with (primary.folder / "sentinels.log").open("ab") as log:
            command = [str(primary.binary), str(config), "--sentinel"]
            self._sentinels.append(subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=prepare))
        self._ports.append(port)
        wait_until(lambda: self._ask(port, "PING"), "a sentinel answers")

    def _all_see_each_other(self) -> bool:
        for port in self._ports:
            flat = self._ask(port, "SENTINEL", "MASTER", NAME)
            known = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
            found = {text_of(key): text_of(value) for key, value in known.items()}
            if (found["num-slaves"], found["num-other-sentinels"]) != ("1", "2"):
                return False
        return True

    def _ask(self, port: int, *command: str) -> Any:
        with redis.Redis(port=port, socket_timeout=2) as client:
            return client.execute_command(*command)


def replication_of(server: RedisServer) -> bytes:
    """Return what a server says of its replication; nothing while it drops its clients (it is being demoted)."""
    with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(server.unix_url, socket_timeout=2) as client:
        client.set_response_callback("INFO", lambda reply: reply)
        return bytes(client.execute_command("INFO", "replication"))
    return b""


def text_of(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def wait_until(condition: Any, what: str, timeout: float = 20) -> None:
    until = time.monotonic() + timeout
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        if time.monotonic() > until:
            raise AssertionError(f"did not happen within {timeout:g} s: {what}")
        time.sleep(0.02)
