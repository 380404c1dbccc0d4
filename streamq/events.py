"""What happened in a queue: the event stream as Python reads it, and those who wait for a job's end.

One stream entry names one kind of event of up to a hundred jobs; readers see them one by one. The stream is capped:
a reader that falls behind the cap is told so by an event of kind `gap`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from streamq._engine import keys
from streamq._engine.store import FIRST_PAUSE, LONGEST_PAUSE, Store, refusal
from streamq._engine.wire import Wire
from streamq.errors import InvalidInput, StoreError, StoreUnavailable

log = logging.getLogger("streamq.events")

T = TypeVar("T")

BLOCK = 5.0
"""Seconds that one read waits at the server."""
READ_ENTRIES = 200
LINGER = 1.0
"""Seconds that a process goes on reading a queue's events after nobody waits for a result any more."""
_ENDINGS = frozenset({"completed", "failed", "removed", "cancelled"})


class Event(msgspec.Struct, frozen=True):
    """One thing that happened.

    Attributes:
        id: Where it stands in the stream; give it to `events(after=…)` to go on behind it.
        kind: Of a job: `added` (it waits: new, or retried), `delayed`, `promoted`, `waiting_children`,
            `children_ended` (those that it waited for: it waits for a worker now), `active`, `progress`, `log` (only
            while somebody follows its log), `completed`, `failed`, `dead` (it has a dead letter), `retrying`, `stalled`
            (its worker was lost), `cancelled` (a running one once its handler has ended), `removed` (by anybody),
            `rescheduled`, `reprioritized`, `updated` (its data), `redriven` (out of a dead letter), `purged` (its dead
            letter). Of a schedule's slot that was not run, under the id that its job would have had: `missed`,
            `skipped`. Of the queue: `paused`, `resumed`, `cleaned`, `drained`, `obliterated`; each removed job has had
            its `removed` before, except for the last one. `gap` when the cap may have dropped events between the last
            one and the next before they were read.
        job_id: Which job; "" for events of the queue.
        at: When, by the server's clock.
    """

    id: str
    kind: str
    job_id: str
    at: datetime


class EventReader:
    """Reads a queue's events in order, over reconnects, on a connection of its own."""

    def __init__(self, store: Store, wire: Wire, after: str | None) -> None:
        self._store, self._wire = store, wire
        self._key = keys.events(store.base)
        self._entry, self._skip = _position(after) if after is not None else ("", 0)
        self._check_gap = after is not None

    @property
    def position(self) -> str:
        """The entry that was read last."""
        return self._entry

    def failed(self, error: Exception) -> None:
        """Tell the queue's `on_error`."""
        self._store.on_error(error)

    async def start(self) -> None:
        """Take the position from which to read: the end of the stream, if none was given."""
        if not self._entry:
            last = await self._store.command("XREVRANGE", self._key, "+", "-", "COUNT", 1)
            self._entry = last[0][0].decode() if last else "0-0"

    async def read(self) -> list[Event]:
        """Wait for events and return them; an empty list after some seconds without any.

        Raises:
            StoreError: Redis did not answer; call again to go on where this left off.
        """
        await self.start()
        if self._check_gap:
            gap = await self._gap()
            self._check_gap = False
            if gap:
                return [gap]
        # An entry that was read in part is read again, from the entry before it.
        after = _before(self._entry) if self._skip else self._entry
        command = ("XREAD", "BLOCK", int(BLOCK * 1000), "COUNT", READ_ENTRIES, "STREAMS", self._key, after)
        try:
            reply = await self._wire.call(*command, wait=BLOCK)
        except StoreError:
            self._check_gap = True
            raise
        if isinstance(reply, Exception):
            self._check_gap = True
            raise refusal(reply, self._wire)
        found: list[Event] = []
        for entry, fields in reply[0][1] if reply else []:
            self._entry, skip, self._skip = entry.decode(), self._skip, 0
            found.extend(unfold(self._entry, fields)[skip:])
        if len(found) >= READ_ENTRIES:
            self._check_gap = True  # busy enough that the cap may overtake this reader
        return found

    async def _gap(self) -> Event | None:
        """Say so if the cap has reached the entry that was read last: what stood behind it may be gone too."""
        oldest = await self._store.command("XRANGE", self._key, "-", "+", "COUNT", 1)
        if self._entry == "0-0" or not oldest or _key(oldest[0][0].decode()) <= _key(self._entry):
            return None
        first = oldest[0][0].decode()
        return Event(_before(first), "gap", "", _at(first))


def _position(after: str) -> tuple[str, int]:
    entry, _, index = after.partition("/")
    parts = entry.split("-")
    if len(parts) != 2 or not all(p.isdigit() for p in parts) or (index and not index.isdigit()):
        raise InvalidInput(f"after must be the id of an event, such as 1790000000000-0/3, not {after!r}")
    return entry, int(index) + 1 if index else 0


def check_position(after: str) -> None:
    """Raise InvalidInput if `after` is no id of an event."""
    _position(after)


def _key(entry: str) -> tuple[int, int]:
    ms, _, number = entry.partition("-")
    return int(ms), int(number)


def _before(entry: str) -> str:
    ms, number = _key(entry)
    return f"{ms}-{number - 1}" if number else f"{max(ms - 1, 0)}-18446744073709551615"


def _at(entry: str) -> datetime:
    return datetime.fromtimestamp(_key(entry)[0] / 1000, UTC)


def unfold(entry: str, fields: list[bytes]) -> list[Event]:
    """Return the events that one entry of the stream holds."""
    found: list[Event] = []
    at = _at(entry)
    for i in range(0, len(fields), 2):
        kind = fields[i].decode()
        for job_id in fields[i + 1].decode().split("\0"):
            found.append(Event(f"{entry}/{len(found)}", kind, job_id, at))
    return found


async def start_on(reader: EventReader) -> None:
    """Take the position from which to read, over reconnects: from here on no event is missed."""
    await _persist(reader.start, reader.failed)


async def read_on(reader: EventReader) -> list[Event]:
    """Read once, over reconnects: returns what came, or an empty list after some seconds without any event."""
    return await _persist(reader.read, reader.failed)


async def _persist(call: Callable[[], Awaitable[T]], failed: Callable[[Exception], None]) -> T:
    pause = FIRST_PAUSE
    while True:
        try:
            return await call()
        except StoreError as error:
            log.warning("reading events failed, going on in %.2f s: %s", pause, error)
            failed(error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def follow(reader: EventReader) -> AsyncIterator[Event]:
    """Yield events for ever, over reconnects."""
    while True:
        for event in await read_on(reader):
            yield event


class Endings:
    """Everybody in this process who waits for some job of a queue to end: one reader serves them all.

    Starts with the first waiter, and stops when nobody has waited for `LINGER` seconds: who waits for one job after the
    other shall not connect for each.
    """

    def __init__(self, store: Store, wire: Wire) -> None:
        self._store, self._wire = store, wire
        self._waiters: dict[str, set[asyncio.Future[str | None]]] = {}
        self._ready: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._closed = False

    async def watch(self, job_id: str) -> asyncio.Future[str | None]:
        """Return a future that is given the kind of event that ended the job, or None when it is time to look again.

        From the moment that this returns no ending is missed.

        Raises:
            StoreUnavailable: The queue was closed.
        """
        if self._closed:
            raise StoreUnavailable("the connection was closed by its owner")
        waiter: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(waiter)
        self._stay()
        try:
            if self._task is None or self._task.done():
                self._ready = asyncio.get_running_loop().create_future()
                self._task = asyncio.create_task(self._read(), name="streamq-endings")
            if self._ready is not None:
                await asyncio.shield(self._ready)
        except BaseException:
            self.forget(job_id, waiter)
            raise
        return waiter

    def forget(self, job_id: str, waiter: asyncio.Future[Any]) -> None:
        """End a watch."""
        waiters = self._waiters.get(job_id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[job_id]
        if not self._waiters and self._task is not None and self._leaving is None:
            self._leaving = asyncio.get_running_loop().call_later(LINGER, self._leave)

    def _leave(self) -> None:
        self._leaving = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._wire.drop("nobody waits any more")

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    async def _read(self) -> None:
        pause = FIRST_PAUSE
        reader = EventReader(self._store, self._wire, None)
        while True:
            try:
                await reader.start()
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
                for event in await reader.read():
                    if event.kind in _ENDINGS:
                        self._tell(event.job_id, event.kind)
                    elif event.kind == "gap":
                        self._look_again()
                    elif event.kind == "obliterated":
                        for job_id in list(self._waiters):
                            self._tell(job_id, "removed")
                pause = FIRST_PAUSE
            except StoreError as error:
                log.debug("waiting for results: %s", error)
                self._store.on_error(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                self._look_again()
            except Exception as error:
                log.exception("waiting for results failed; going on")
                self._store.on_error(error)
                await asyncio.sleep(LONGEST_PAUSE)
                self._look_again()

    def _tell(self, job_id: str, kind: str | None) -> None:
        for waiter in self._waiters.get(job_id, ()):
            if not waiter.done():
                waiter.set_result(kind)

    def _look_again(self) -> None:
        for job_id in list(self._waiters):
            self._tell(job_id, None)

    async def close(self) -> None:
        """End every wait with None, let no other begin, and stop reading."""
        self._closed = True
        self._stay()
        self._look_again()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
