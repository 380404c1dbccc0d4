"""The durable steps of one attempt: each runs once over all attempts of its job, which share what it returned.

Behind `ActiveJob.step` and `save_cursor`, on the loop, in a thread and in a process alike. What earlier attempts have
stored is read before the first step. A step is stored when its function has ended, so one that a crash falls between
runs again.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Protocol

from streamq._engine import codec
from streamq._engine.store import Store
from streamq._engine.transitions import Claim
from streamq.errors import InvalidInput, StaleLease, Unrecoverable
from streamq.job import MAX_NAME, check_text
from streamq.payload import Codec, aside
from streamq.worker.done import Done

MOST_STEPS = 1_000
"""Steps that a job may have."""
TIMES_PAYLOAD = 16
"""The results of all steps of a job may take so many times what one payload may."""
CURSOR, STEP = "c", "s"

Wait = Callable[[Coroutine[Any, Any, Any]], Any]
"""Blocks until a coroutine has ended and returns its result."""


class Memory(Protocol):
    """Where a job's attempts keep what those after them are to know. Both raise what ends the attempt."""

    async def recall(self) -> dict[str, bytes]: ...
    async def remember(self, field: str, value: bytes) -> None: ...


class StoredMemory:
    """The memory of a job that this worker holds, in Redis.

    Raises:
        StaleLease: By both: the job is somebody else's by now; nothing was written.
        StoreError: By both: Redis could not be reached.
    """

    __slots__ = ("_claim", "_store")

    def __init__(self, store: Store, claim: Claim) -> None:
        self._store, self._claim = store, claim

    async def recall(self) -> dict[str, bytes]:
        """Return all that was remembered, by field."""
        claim = self._claim
        found = await self._store.recall(claim.lane, claim.entry, claim.job_id)
        if found is None:
            raise StaleLease(claim.job_id, claim.entry)
        return await aside(self._store.codec, _opened, found, self._store.codec)

    async def remember(self, field: str, value: bytes) -> None:
        """Remember one value."""
        claim = self._claim
        sealed = await aside(self._store.codec, self._store.codec.seal, value) if value else value
        if not await self._store.remember(claim.lane, claim.entry, claim.job_id, field, sealed):
            raise StaleLease(claim.job_id, claim.entry)


def _opened(found: dict[str, bytes], opener: Codec) -> dict[str, bytes]:
    return {field: opener.open(value) if value else value for field, value in found.items()}


class Steps:
    """What one attempt knows of its job's steps. `wait` is how code without a loop waits for the memory."""

    __slots__ = ("_max_payload", "_memory", "_stored", "_used", "_wait")

    def __init__(self, memory: Memory, max_payload: int, wait: Wait) -> None:
        self._memory, self._max_payload, self._wait = memory, max_payload, wait
        self._stored: dict[str, bytes] | None = None
        self._used: set[str] = set()

    def step(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a step, or return what it has returned; on a loop an awaitable of that."""
        check_text("step name", name, MAX_NAME)
        if not callable(fn):
            raise InvalidInput(f"step {name!r} takes a function and its arguments, not {fn!r}")
        if _has_loop():
            return self._run(name, fn, args, kwargs)
        return self._run_blocking(name, fn, args, kwargs)

    def save_cursor(self, value: Any) -> Awaitable[None]:
        """Store how far the attempt is; on a loop to be awaited."""
        body = codec.encode_data("the cursor", value, self._max_payload)
        if _has_loop():
            return self._memory.remember(CURSOR, body)
        self._wait(self._memory.remember(CURSOR, body))
        return Done()

    async def _run(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._begin(name)
        try:
            if self._stored is None:
                found = await self._memory.recall()
                self._stored = found if self._stored is None else self._stored
            if not self._is_stored(name):
                result = fn(*args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
                body = self._encode(name, result)
                await self._memory.remember(STEP + name, body)
                self._stored[STEP + name] = body
        except BaseException:
            self._used.discard(name)  # it was not done: the handler may try again
            raise
        return codec.decode(self._stored[STEP + name])

    def _run_blocking(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._begin(name)
        try:
            if self._stored is None:
                self._stored = self._wait(self._memory.recall())
            if not self._is_stored(name):
                result = fn(*args, **kwargs)
                if inspect.isawaitable(result):
                    if inspect.iscoroutine(result):
                        result.close()
                    raise InvalidInput(f"step {name!r} is async: its handler has to be, too")
                body = self._encode(name, result)
                self._wait(self._memory.remember(STEP + name, body))
                self._stored[STEP + name] = body
        except BaseException:
            self._used.discard(name)
            raise
        return codec.decode(self._stored[STEP + name])

    def _begin(self, name: str) -> None:
        if name in self._used:
            raise InvalidInput(f"step {name!r} was used before in this attempt: each step needs a name of its own")
        self._used.add(name)

    def _is_stored(self, name: str) -> bool:
        """Whether the step has run; raise InvalidInput if it has not, and the job has as many as it may have."""
        assert self._stored is not None  # noqa: S101 - it was read just now
        if STEP + name in self._stored:
            return True
        names = {field for field in self._stored if field.startswith(STEP)} | {STEP + begun for begun in self._used}
        if len(names) > MOST_STEPS:
            raise InvalidInput(f"step {name!r} is one too many: a job may have {MOST_STEPS:,}; use a cursor for loops")
        return False

    def _encode(self, name: str, result: Any) -> bytes:
        """Encode what a step returned; raise Unrecoverable if that can't be stored, as it must not run again."""
        try:
            body = codec.encode_result(result, self._max_payload)
        except InvalidInput as error:
            raise Unrecoverable(f"step {name!r} has run, but can't be stored: {error}") from error
        stored, limit = self._stored or {}, TIMES_PAYLOAD * self._max_payload
        size = len(body) + sum(len(value) for field, value in stored.items() if field.startswith(STEP))
        if size > limit:
            raise Unrecoverable(
                f"step {name!r} has run, but can't be stored: the job's steps take {size:,} bytes, over {limit:,}"
            )
        return body


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def waits_for(loop: asyncio.AbstractEventLoop) -> Wait:
    """Return what a thread waits with for coroutines that run on the loop of another one."""

    def wait(call: Coroutine[Any, Any, Any]) -> Any:
        asked: Future[Any] = asyncio.run_coroutine_threadsafe(call, loop)
        return asked.result()

    return wait


def drive(call: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits for a loop, and return its result."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("it waited for a loop")
