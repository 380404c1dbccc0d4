"""Code around each add and each run of a handler: tenants' contexts, timing, whatever has to be open meanwhile.

A middleware is given to a `Queue` (for adds), a `Worker` or `Processors` (for runs). The first one given is the
outermost. It is part of the call: what it raises, the add raises, or is how the attempt failed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from streamq.errors import InvalidInput

if TYPE_CHECKING:
    from streamq.processor import ActiveJob


class Adding:
    """An add that is about to happen.

    Attributes:
        queue: Where to.
        name: The name of a lone job; "" for `add_many` and flows.
        jobs: How many.
        headers: Put in what is to travel with each job, as text; a job's own headers come first.
    """

    __slots__ = ("headers", "jobs", "name", "queue")

    def __init__(self, queue: str, name: str, jobs: int) -> None:
        self.queue, self.name, self.jobs = queue, name, jobs
        self.headers: dict[str, str] = {}


class Middleware:
    """Does nothing; override what you need, best with `contextlib.asynccontextmanager`."""

    def adding(self, adding: Adding) -> AbstractAsyncContextManager[object]:
        """Return what is entered before jobs are encoded and sent, and left when Redis has them, or has not."""
        return nullcontext()

    def running(self, job: ActiveJob[Any]) -> AbstractAsyncContextManager[object]:
        """Return what is entered before a job's handler is called, and left when it has ended, in whichever way."""
        return nullcontext()


def checked(middleware: Sequence[Middleware]) -> tuple[Middleware, ...]:
    """Return these; raise InvalidInput if one is none."""
    for one in middleware:
        if not isinstance(one, Middleware):
            raise InvalidInput(f"a middleware must be a Middleware, not {one!r:.100}")
    return tuple(middleware)


@asynccontextmanager
async def around_add(middleware: Sequence[Middleware], queue: str, name: str, jobs: int) -> AsyncIterator[Adding]:
    """Enter what is around an add."""
    adding = Adding(queue, name, jobs)
    async with AsyncExitStack() as stack:
        for one in middleware:
            await stack.enter_async_context(one.adding(adding))
        yield adding


@asynccontextmanager
async def around_run(middleware: Sequence[Middleware], job: ActiveJob[Any]) -> AsyncIterator[None]:
    """Enter what is around a run."""
    async with AsyncExitStack() as stack:
        for one in middleware:
            await stack.enter_async_context(one.running(job))
        yield
