"""A TCP proxy between streamq and Redis that breaks the connection in every way a network can.

It runs in a thread with an event loop of its own, so that a test that blocks or is blocked can't stop it, and is
steered synchronously: when a method returns, the new mode holds, for the open connections as well as for new ones.
Bytes that a mode holds back are delivered when it ends, as a healed network partition does.

    with FaultProxy(("127.0.0.1", 6379)) as proxy:
        queue = Queue("reports", redis=proxy.url)
        proxy.black_hole()
        ...
        proxy.heal()
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import hiredis

T = TypeVar("T")

_CHUNK = 65_536
_ABORT_ON_CLOSE = struct.pack("ii", 1, 0)
_WHILE_LOADING = frozenset({b"HELLO", b"AUTH", b"CLIENT", b"SELECT", b"INFO"})


@dataclass(frozen=True)
class Mode:
    """What happens to the bytes. The default changes nothing."""

    latency: float = 0.0
    """Seconds that each direction takes."""
    hold_requests: bool = False
    hold_replies: bool = False
    drop_replies: float = 0.0
    """The share of replies that never arrive: Redis has done the work, and the connection breaks."""
    drip: tuple[int, float] | None = None
    """Replies come in pieces of so many bytes, so many seconds apart."""
    answer: bytes | None = None
    """Said to every command instead of asking Redis."""
    answer_spares: frozenset[bytes] = frozenset()
    """Commands that reach Redis all the same."""


PASS = Mode()


class _Connection:
    """One client's connection, its twin to the server, and the two pumps between them."""

    def __init__(self, proxy: FaultProxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy, self._client, self._server = proxy, client, server

    async def run(self, from_client: asyncio.StreamReader, from_server: asyncio.StreamReader) -> None:
        """Forward both ways until either side ends."""
        lines = [asyncio.Queue[tuple[float, bytes]](64), asyncio.Queue[tuple[float, bytes]](64)]
        pumps = [
            asyncio.ensure_future(self._read(from_client, lines[0])),
            asyncio.ensure_future(self._requests(lines[0])),
            asyncio.ensure_future(self._read(from_server, lines[1])),
            asyncio.ensure_future(self._replies(lines[1])),
        ]
        try:
            await asyncio.wait(pumps[1::2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._client.close()
            self._server.close()
            with contextlib.suppress(OSError):
                await self._client.wait_closed()

    def reset(self) -> None:
        """Break the connection with an RST to both sides; what was under way is lost."""
        for writer in (self._client, self._server):
            raw = writer.get_extra_info("socket")
            if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT_ON_CLOSE)
            writer.transport.abort()

    async def _read(self, source: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            try:
                chunk = await source.read(_CHUNK)
            except OSError:
                chunk = b""
            await line.put((clock(), chunk))
            if not chunk:
                return

    async def _arrive(self, line: asyncio.Queue[tuple[float, bytes]], *, held: Callable[[Mode], bool]) -> bytes:
        """Return the next bytes once they have travelled long enough and no mode holds them back."""
        since, chunk = await line.get()
        await self._proxy.until(lambda mode: not held(mode))
        wait = since + self._proxy.mode.latency - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)
            await self._proxy.until(lambda mode: not held(mode))
        return chunk

    async def _requests(self, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        commands = hiredis.Reader(encoding=None)
        answering = False
        while chunk := await self._arrive(line, held=lambda mode: mode.hold_requests):
            self._proxy.count_requests(len(chunk))
            if self._proxy.mode.answer is None:
                answering = False
                await _send(self._server, chunk)
                continue
            if not answering:
                commands, answering = hiredis.Reader(encoding=None), True
            commands.feed(chunk)
            while (command := commands.gets()) is not False:
                self._proxy.count_answered()
                if bytes(command[0]).upper() in self._proxy.mode.answer_spares:
                    await _send(self._server, _pack(command))
                else:
                    await _send(self._client, self._proxy.mode.answer)

    async def _replies(self, line: asyncio.Queue[tuple[float, bytes]]) -> None:
        while chunk := await self._arrive(line, held=lambda mode: mode.hold_replies):
            if self._proxy.loses_reply():
                self.reset()
                return
            if self._proxy.mode.drip is None:
                await _send(self._client, chunk)
                continue
            while chunk:
                size, pause = self._proxy.mode.drip or (len(chunk), 0.0)
                await _send(self._client, chunk[:size])
                chunk = chunk[size:]
                await asyncio.sleep(pause)


class FaultProxy:
    """The proxy: `start` it or use it as a context manager, point clients at `url`, then call the faults.

    Attributes:
        accepted: Connections accepted so far.
        refused_replies: Replies dropped so far.
        answered: Commands seen while `reply_with` was on.
        request_bytes: Bytes that clients sent.
    """

    def __init__(self, upstream: tuple[str, int] | str, *, db: int = 0, seed: int = 1) -> None:
        self._upstream, self._db = upstream, db
        self._chance = random.Random(seed)  # noqa: S311 - faults that can be repeated, not secrets
        self.mode = PASS
        self.accepted = self.refused_replies = self.answered = self.request_bytes = 0
        self.host, self.port = "127.0.0.1", 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address that clients connect to."""
        return f"redis://{self.host}:{self.port}/{self._db}"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._open)

    def start(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        self._do(self._listen())
        return self

    def stop(self) -> None:
        """Break what is open and stop listening; the thread has ended when this returns."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def heal(self) -> None:
        """Forward everything at once, what was held back too; listen again."""
        self._set(PASS)
        self._do(self._listen())

    def latency(self, ms: float) -> None:
        """Delay each direction by `ms`."""
        self._set(Mode(latency=ms / 1000))

    def refuse(self) -> None:
        """Answer new connections with "connection refused"; open ones go on."""
        self._do(self._unlisten())

    def reset_all(self) -> None:
        """Break every open connection with an RST. New ones are accepted."""
        self._do(self._reset())

    def cut(self) -> None:
        """Break every open connection and refuse new ones: the server's machine is gone."""
        self._do(self._cut())

    def black_hole(self) -> None:
        """Accept, and forward nothing in either direction."""
        self._set(Mode(hold_requests=True, hold_replies=True))

    def one_way(self) -> None:
        """Forward requests and hold every reply: Redis works, and nobody hears of it."""
        self._set(Mode(hold_replies=True))

    def drop_replies(self, share: float) -> None:
        """Break the connection instead of delivering a reply, for that share of them: Redis has done the work."""
        self._set(Mode(drop_replies=share))

    def drip(self, size: int = 1, every_ms: float = 1.0) -> None:
        """Deliver replies `size` bytes at a time, `every_ms` apart."""
        self._set(Mode(drip=(size, every_ms / 1000)))

    def reply_with(self, error: str, *, spare: frozenset[bytes] = _WHILE_LOADING) -> None:
        """Answer each command with `error` (such as "LOADING Redis is loading") instead of asking Redis.

        `spare` names the commands that Redis itself takes in that state.
        """
        self._set(Mode(answer=f"-{error}\r\n".encode(), answer_spares=spare))

    def talk_nonsense(self) -> None:
        """Answer each command with what is no Redis protocol, as a web server on the port would."""
        self._set(Mode(answer=b"HTTP/1.1 400 Bad Request\r\n\r\n"))

    # For the connections; on the proxy's own loop.

    async def until(self, wanted: Callable[[Mode], bool]) -> None:
        """Wait for a mode that `wanted` accepts."""
        while not wanted(self.mode):
            await self._changed.wait()

    def loses_reply(self) -> bool:
        """Whether this reply is one of those that never arrive."""
        lost = self.mode.drop_replies > 0 and self._chance.random() < self.mode.drop_replies
        self.refused_replies += lost
        return lost

    def count_requests(self, size: int) -> None:
        """Note that a client sent so many bytes."""
        self.request_bytes += size

    def count_answered(self) -> None:
        """Note that a command was seen while `reply_with` was on."""
        self.answered += 1

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def _set(self, mode: Mode) -> None:
        async def change() -> None:
            self.mode = mode
            self._changed.set()
            self._changed = asyncio.Event()

        self._do(change())

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port), backlog=1024)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _unlisten(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _reset(self) -> None:
        for connection in list(self._open):
            connection.reset()

    async def _cut(self) -> None:
        await self._unlisten()
        await self._reset()

    async def _close(self) -> None:
        await self._unlisten()
        while self._tasks:
            await asyncio.sleep(0)  # those accepted just now have yet to start: cancelled before, they would leak
            await self._reset()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(3):  # asyncio closes sockets in callbacks
            await asyncio.sleep(0)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = listener.accept()
            client.setblocking(False)
            self.accepted += 1
            task = self._loop.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, raw: socket.socket) -> None:
        from_client, client = await asyncio.open_connection(sock=raw)
        try:
            if isinstance(self._upstream, str):
                from_server, server = await asyncio.open_unix_connection(self._upstream)
            else:
                from_server, server = await asyncio.open_connection(*self._upstream)
            connection = _Connection(self, client, server)
            self._open.add(connection)
            try:
                await connection.run(from_client, from_server)
            finally:
                self._open.discard(connection)
        except OSError:
            return  # the server is away: so is the connection
        finally:
            client.transport.abort()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError):
        writer.write(data)
        await writer.drain()


def _pack(command: list[bytes]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)
