"""One connection that any number of tasks share.

Commands are written the moment they are made and answered in order, so concurrent callers are pipelined by
themselves: there is no pool to run dry, and a caller that is cancelled leaves a reply that is dropped, never one that
reaches somebody else. redis-py opens the socket; from then on a hiredis parser on the transport does the work
(a fifth of redis-py's cost per command in concurrent use). A reply that does not come in time ends the connection:
what else waits on it fails too, and the next command opens a new one.

A `Wire` never repeats a command: whether that is safe is the store's knowledge.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis

from streamq._engine.endpoint import Endpoint
from streamq.errors import StoreUnavailable

Command = tuple[Any, ...]
"""A command's words: text, bytes or numbers."""

_NOTHING = object()


class Wire:
    """One lazily opened connection to an endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._protocol: _Replies | None = None
        self._opening: asyncio.Lock = asyncio.Lock()
        self._closed = False
        self.client_id: int | None = None
        """The server's number of the present connection, once somebody has asked for it."""
        self.place: tuple[Any, Any] | None = None
        """Host and port of the present connection, or of the last one."""
        self.connects = 0
        """How many connections were opened so far."""

    @property
    def is_open(self) -> bool:
        """Whether a connection stands (as far as this side knows)."""
        return self._protocol is not None and self._protocol.alive

    @property
    def closed(self) -> bool:
        """Whether its owner has closed it: it opens no connection any more."""
        return self._closed

    @property
    def in_cluster(self) -> bool:
        """Whether it leads to a cluster, to the owner of one slot."""
        return self._endpoint.in_cluster

    async def call(self, *command: Any, wait: float = 0.0) -> Any:
        """Send one command and return its reply: bytes, int, list, None, or a `hiredis.ReplyError` (not raised).

        `wait` is how long the command itself may block on the server, on top of the timeout.

        Raises:
            StoreUnavailable: No connection, or it was lost before the reply came: whether the command ran is unknown.
        """
        protocol = self._protocol
        if protocol is None or not protocol.alive:
            protocol = await self._open()
        return await protocol.send(hiredis.pack_command(command), self._endpoint.timeout + wait)

    async def pipeline(self, *commands: Command, wait: float = 0.0) -> list[Any]:
        """Send several commands in one write and return their replies, as `call` does each."""
        protocol = self._protocol
        if protocol is None or not protocol.alive:
            protocol = await self._open()
        within = self._endpoint.timeout + wait
        replies = [protocol.expect(within) for _ in commands]
        protocol.write(b"".join([hiredis.pack_command(command) for command in commands]))
        try:
            return [await reply for reply in replies]
        finally:
            for reply in replies:
                reply.cancel()

    async def _open(self) -> _Replies:
        async with self._opening:
            if self._closed:
                raise StoreUnavailable("the connection was closed by its owner")
            if self._protocol is not None and self._protocol.alive:
                return self._protocol
            connection = await self._endpoint.connect()
            self._protocol = _Replies(connection)
            self.place = getattr(connection, "host", None), getattr(connection, "port", None)
            self.connects += 1
            self.client_id = None
            if self._closed:
                self._protocol.end("the connection was closed by its owner")
                raise StoreUnavailable("the connection was closed by its owner while it was being opened")
            return self._protocol

    def doubt(self, why: str) -> None:
        """End the present connection, and look for the slot's owner by other nodes first."""
        if self.place is not None:
            self._endpoint.doubt(self.place)
        self.drop(why)

    def drop(self, why: str) -> None:
        """End the present connection; the next command opens a new one."""
        if self._protocol is not None:
            self._protocol.end(why)

    async def close(self) -> None:
        """End the connection for good. Whatever waits on it fails."""
        self._closed = True
        if self._protocol is not None:
            await self._protocol.close()


class _Replies(asyncio.Protocol):
    """Takes over a transport that redis-py has connected, and hands each reply to the oldest command that waits."""

    def __init__(self, connection: Any) -> None:
        # redis-py closes the socket when the connection is collected, so it is kept. These two private names are why
        # pyproject.toml pins redis-py's major version; tests/unit/engine/test_wire.py holds them.
        self._connection = connection
        self._transport: asyncio.Transport = connection._writer.transport
        self._loop = asyncio.get_running_loop()
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self.alive = not self._transport.is_closing()
        self._transport.set_protocol(self)

    def expect(self, within: float) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = self._loop.create_future()
        deadline = self._loop.time() + within
        self._waiting.append((reply, deadline))
        if self._watch is None:
            self._watch = self._loop.call_at(deadline, self._check)
        return reply

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def send(self, data: bytes, within: float) -> asyncio.Future[Any]:
        reply = self.expect(within)
        self._transport.write(data)
        return reply

    def data_received(self, data: bytes) -> None:
        parser, waiting = self._parser, self._waiting
        parser.feed(data)
        try:
            while (reply := parser.gets()) is not _NOTHING:
                if not waiting:
                    self.end("Redis sent a reply that nobody asked for")
                    return
                future, _ = waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except hiredis.ProtocolError as error:
            self.end(f"Redis sent what is no reply: {error}")

    def _check(self) -> None:
        """Runs when the oldest command's time might be up."""
        self._watch = None
        if not self._waiting:
            return
        _, deadline = self._waiting[0]
        if deadline <= self._loop.time():
            self.end("Redis did not answer in time")
        else:
            self._watch = self._loop.call_at(deadline, self._check)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"the connection to Redis was lost: {exc}" if exc else "Redis closed the connection")
        if not self._gone.done():
            self._gone.set_result(None)

    def end(self, why: str) -> None:
        if not self.alive:
            return
        self.alive = False
        if self._watch is not None:
            self._watch.cancel()
        self._transport.abort()
        self._connection._reader = self._connection._writer = None  # or redis-py warns of a connection left open
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(StoreUnavailable(why))

    async def close(self) -> None:
        self.end("the connection was closed by its owner")
        await self._gone
