"""What a running handler can ask of its worker: progress, log lines, steps, children, more time.

One per attempt. Asked on the loop it gives awaitables; asked in a thread it blocks and gives what they would. Progress
and log lines are best effort: no outage fails a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, NoReturn, Protocol

from streamq._engine import codec
from streamq._engine.store import Store
from streamq._engine.transitions import Claim
from streamq.errors import HandlerTimeout, StoreError
from streamq.flow import ChildEnd, FlowJob
from streamq.settings import Settings
from streamq.worker.done import Answer, Done
from streamq.worker.family import read_children, stage_children
from streamq.worker.steps import Steps, StoredMemory, waits_for

log = logging.getLogger("streamq.worker")

LOG_LINE_LIMIT = 4_000
"""Characters of one line of a job's log."""


class Limit(Protocol):
    """When an attempt's time is up, by the loop's clock; `asyncio.Timeout` is one."""

    def when(self) -> float | None: ...
    def reschedule(self, when: float | None) -> None: ...


class Control:
    """What a handler's job can ask of its worker. Progress and logs are best effort: no outage fails a job."""

    __slots__ = ("_claim", "_loop", "_settings", "_steps", "_store", "extended", "limit", "timeout")

    def __init__(self, store: Store, settings: Settings, claim: Claim, loop: asyncio.AbstractEventLoop) -> None:
        self._store, self._settings, self._claim, self._loop = store, settings, claim, loop
        self.limit: Limit | None = None
        """The attempt's timeout, if it has one: `timeout` seconds, `extended` by the handler or not."""
        self.timeout = 0.0
        self.extended = False
        self._steps: Steps | None = None

    def progress(self, value: Any) -> Awaitable[None]:
        body = codec.encode_data("progress", value, self._settings.max_payload)
        claim = self._claim
        return self._do(self._store.progress(claim.lane, claim.entry, claim.job_id, body))

    def log(self, line: str) -> Awaitable[None]:
        claim = self._claim
        line = str(line).encode("utf-8", "replace").decode()[:LOG_LINE_LIMIT]
        return self._do(self._store.log(claim.lane, claim.entry, claim.job_id, line))

    def started(self) -> None:
        """The handler begins only now, in its process: so does its time."""
        if self.limit is not None:
            with contextlib.suppress(RuntimeError):  # its time is up
                self.limit.reschedule(self._loop.time() + self.timeout)

    def extend_timeout(self, seconds: float) -> None:
        if self.limit is None:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._loop.call_soon_threadsafe(self._extend, self.limit, seconds)  # in a thread
        else:
            self._extend(self.limit, seconds)

    def _extend(self, limit: Limit, seconds: float) -> None:
        until = self._loop.time() + seconds
        if (before := limit.when()) is None or before >= until:
            return
        with contextlib.suppress(RuntimeError):  # its time is up
            limit.reschedule(until)
            self.extended = True

    def timed_out(self, ran: float) -> HandlerTimeout:
        """Return what the attempt fails with if its time is up after so many seconds."""
        extended = f", which was extended, after {ran:.3g} s" if self.extended else ""
        return HandlerTimeout(f"it ran longer than its timeout of {self.timeout:g} s{extended}")

    def add_children(self, children: Iterable[FlowJob]) -> Awaitable[NoReturn]:
        found: Awaitable[NoReturn] = self._ask(stage_children(self._store, self._settings, self._claim, children))
        return found

    def child_ends(self) -> Awaitable[list[ChildEnd]]:
        found: Awaitable[list[ChildEnd]] = self._ask(read_children(self._store, self._claim.job_id))
        return found

    def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return self._known_steps().step(name, fn, args, kwargs)

    def save_cursor(self, value: Any) -> Awaitable[None]:
        return self._known_steps().save_cursor(value)

    @property
    def memory(self) -> StoredMemory:
        """What the job's attempts remember."""
        return StoredMemory(self._store, self._claim)

    def _known_steps(self) -> Steps:
        if self._steps is None:
            self._steps = Steps(self.memory, self._settings.max_payload, waits_for(self._loop))
        return self._steps

    def _ask(self, call: Any) -> Any:
        """Return an awaitable of what `call` gives; in a thread, that itself."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asked: Future[Any] = asyncio.run_coroutine_threadsafe(call, self._loop)
            return Answer(asked.result())
        return call

    def _do(self, call: Any) -> Awaitable[None]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass  # in a thread: block until it is done
        else:
            return self._best_effort(call)
        done: Future[None] = asyncio.run_coroutine_threadsafe(self._best_effort(call), self._loop)
        done.result()
        return Done()

    async def _best_effort(self, call: Awaitable[bool]) -> None:
        try:
            if not await call:
                log.warning("job %s: the lease moved on; its progress was not stored", self._claim.job_id)
        except StoreError as error:
            log.warning("job %s: progress or log line not stored: %s", self._claim.job_id, error)
