"""How plugins say what they can do: a registry of processors, and the job as a running handler sees it.

A processor is an async function, a plain function (run in a thread) or a class with a `process` method,
registered under the job name that it handles. The registry holds functions only: it talks to nobody.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeVar, cast, overload

import msgspec

from streamq.errors import InvalidInput, JobCancelled
from streamq.flow import ChildEnd, FlowJob
from streamq.job import MAX_NAME, JobState, check_text, queue_name
from streamq.middleware import Middleware, checked
from streamq.payload import Codec
from streamq.policy import Backoff, Batch, Seconds, whole
from streamq.policy import seconds as span
from streamq.task import Task, TaskDecorator

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

BackoffFunction = Callable[[int, BaseException], float]
"""Given the number of the attempt that failed (1 is the first) and its exception: seconds until the next one."""

Place = Literal["loop", "thread", "process"]
"""Where a handler runs."""

ANY_NAME = "*"
"""The name of a processor that takes every job which no other one claims."""


class AttemptControl(Protocol):
    """What a running attempt can ask of its worker. The worker implements it."""

    def progress(self, value: Any) -> Awaitable[None]: ...
    def log(self, line: str) -> Awaitable[None]: ...
    def extend_timeout(self, seconds: float) -> None: ...
    def add_children(self, children: Iterable[FlowJob]) -> Awaitable[NoReturn]: ...
    def child_ends(self) -> Awaitable[list[ChildEnd]]: ...
    def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any: ...
    def save_cursor(self, value: Any) -> Awaitable[None]: ...


class ActiveJob(Generic[T]):
    """A job while its handler runs.

    Attributes:
        id, name, queue: Which job this is.
        data: Its data, as the type that the processor registered.
        attempt: The number of this attempt, from 1.
        attempts: How many it may have.
        stalls: How often a worker died or froze while running it.
        tags, headers, key: What it was added with.
        children: How many children it has had; 0 for a job that waits for none, or has not added any yet.
        cursor: What an earlier attempt, or this one, last gave to `save_cursor`; None at first.
        cancelled: Whether the handler is to end, since the job was cancelled or its time is up. An async handler is
            interrupted as well, by `CancelledError`, and a process killed; one that runs in a thread looks here.
    """

    __slots__ = (
        "_control", "_processor", "attempt", "attempts", "cancelled", "children", "cursor", "data", "headers", "id",
        "key", "name", "queue", "stalls", "tags",
    )  # fmt: skip

    def __init__(
        self,
        control: AttemptControl,
        job_id: str,
        name: str,
        queue: str,
        data: T,
        *,
        attempt: int,
        attempts: int,
        stalls: int,
        tags: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        children: int = 0,
        key: str | None = None,
        processor: str = "",
        cursor: Any = None,
    ) -> None:
        self._control, self._processor = control, processor
        self.id, self.name, self.queue, self.data = job_id, name, queue, data
        self.attempt, self.attempts, self.stalls = attempt, attempts, stalls
        self.tags, self.headers, self.children = tags, headers or {}, children
        self.key, self.cursor = key, cursor
        self.cancelled = False

    def __repr__(self) -> str:
        return f"<ActiveJob {self.queue}/{self.id} {self.name} attempt {self.attempt}>"

    @property
    def logger(self) -> logging.Logger:
        """A logger named after the processor, `streamq.job` where it takes any name.

        Never after the job: what producers make up must not pile up in the process, which keeps each logger for good.
        """
        return logging.getLogger(
            "streamq.job" if self._processor in ("", ANY_NAME) else f"streamq.job.{self._processor}"
        )

    @property
    def attempts_made(self) -> int:
        """How many attempts failed before this one."""
        return self.attempt - 1

    def progress(self, value: Any) -> Awaitable[None]:
        """Publish how far the job is: a number (a percentage, by custom) or any small encodable value.

        Await it in an async handler. In a plain function (a thread) it blocks until Redis has it.

        Raises:
            InvalidInput: The value can't be encoded or is too large; the job goes on.
        """
        return self._control.progress(value)

    def log(self, line: str) -> Awaitable[None]:
        """Add a line to the job's own log, which is capped. Awaited or blocking, as `progress`."""
        return self._control.log(line)

    def step(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run `fn(*args, **kwargs)` once over all attempts of the job, and return its stored result afterwards.

        Awaited in an async handler, where `fn` may be async; in a plain one it blocks and returns the result. What it
        returned is stored when it has ended: if the process dies, or Redis is away, between the two, it runs again. One
        that raises is not stored. The result comes back as stored, the first time too: tuples as lists, structs as
        dicts. Steps are kept until the job completes or its record goes.

        Raises:
            InvalidInput: The name was used before in this attempt, or is the 1,001st; `fn` was not called.
            Unrecoverable: `fn` ran, and its result can't be encoded or is too large: the job is not to run again.
            JobCancelled: The handler is to end (see `cancelled`); `fn` was not called.
            StaleLease: The job is somebody else's by now; of `fn`, if it was called, nothing was stored.
            StoreError: Redis could not be reached; of `fn`, if it was called, nothing may be stored.
        """
        if self.cancelled:
            raise JobCancelled(self.id, f"it is to end, so step {name!r} was not begun")
        return self._control.step(name, fn, *args, **kwargs)

    def save_cursor(self, value: Any) -> Awaitable[None]:
        """Store how far a long loop is: `cursor` of the job's next attempts. Awaited or blocking, as `progress`.

        Raises:
            InvalidInput: The value can't be encoded or is too large; the last one stays.
            StaleLease: The job is somebody else's by now; the last one stays.
            StoreError: Redis could not be reached; which one stays is unknown.
        """
        saved = self._control.save_cursor(value)
        self.cursor = value
        return saved

    def extend_timeout(self, seconds: Seconds) -> None:
        """Let this attempt run for `seconds` from now, if its timeout would end it before; it has none: no change.

        To be called, not awaited, wherever the handler runs, and as often as it makes sense.

        Raises:
            InvalidInput: `seconds` is no span of time; the timeout stays.
        """
        self._control.extend_timeout(span("seconds", seconds, low=0.001))

    def add_children(self, children: Iterable[FlowJob]) -> Awaitable[NoReturn]:
        """End this attempt, without using it up, and run the job again when these children have ended.

        Never returns: it raises what ends the attempt, so let that pass. The children are added exactly when the job
        begins to wait for them, all or none. The next run finds `job.children` at how many it has had so far. Awaited,
        or plainly called in a thread; not for handlers in processes.

        Raises:
            WaitForChildren: As said.
            InvalidInput, PayloadTooLarge: A child does not fit; nothing was sent, and the attempt goes on.
            StoreError: Redis could not be reached; no child is added, and the attempt goes on.
        """
        return self._control.add_children(children)

    def child_ends(self) -> Awaitable[list[ChildEnd]]:
        """Read how all children of this job stand, in the order in which they were added.

        Awaited; in a plain function (a thread) it blocks and returns the list. Not for handlers in processes. Children
        that did not complete and whose `on_failure` is "remove" are left out.

        Raises:
            StoreError: Redis could not be reached.
        """
        return self._control.child_ends()

    def children_results(self) -> Awaitable[list[Any]]:
        """Read the results of those children that have completed, in the order in which they were added.

        Awaited or blocking, as `child_ends`, which also tells of those that have not.
        """
        found = self._control.child_ends()
        if isinstance(found, list):
            return type(found)(child.result for child in found if child.state == JobState.COMPLETED)
        return _results(found)


async def _results(ends: Awaitable[list[ChildEnd]]) -> list[Any]:
    return [child.result for child in await ends if child.state == JobState.COMPLETED]


class Processor(msgspec.Struct, frozen=True, kw_only=True):
    """One registered handler and how its jobs run unless they say otherwise."""

    name: str
    handler: Callable[..., Any]
    queue: str | None = None
    data: Any = Any
    attempts: int | None = None
    backoff: Backoff | BackoffFunction | None = None
    timeout: float | None = None
    run_in: Place | None = None
    batch: Batch | None = None

    @property
    def place(self) -> Place:
        """Where the handler runs: async ones on the loop and plain ones in a thread, unless they say otherwise."""
        return self.run_in or ("loop" if _is_async(self.handler) else "thread")

    @property
    def is_async(self) -> bool:
        """Whether the handler runs on the worker's event loop."""
        return self.place == "loop"


class Processors:
    """A registry of processors: what a plugin exports and a worker is given.

    `middleware` is entered around each run, of these and of what is added by `update`. `codec` opens data and seals
    results of the workers that are given this; their producers need it too.
    """

    def __init__(self, *, middleware: Sequence[Middleware] = (), codec: Codec | None = None) -> None:
        self.middleware, self.codec = checked(middleware), codec
        self._found: dict[tuple[str | None, str], Processor] = {}

    def __iter__(self) -> Iterator[Processor]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"<Processors {', '.join(sorted(p.name for p in self))}>"

    def register(
        self,
        name: str,
        *,
        queue: str | None = None,
        data: Any = Any,
        attempts: int | None = None,
        backoff: Backoff | BackoffFunction | None = None,
        timeout: Seconds | None = None,
        run_in: Place | None = None,
        batch: Batch | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function or class as the processor of jobs called `name`.

        With `queue` it serves that queue only. `data` is the type that the job's data is decoded to (a msgspec
        struct, a dataclass, a TypedDict …); a job whose data does not fit fails at once. `attempts`, `backoff`
        and `timeout` are the processor's defaults; what a job says itself comes first. `run_in="process"` is for
        handlers that compute: each runs in a process of its own, which is killed when its time is up; the handler and
        its registry must be found at the top level of a module that can be imported. With `batch` the handler is called
        with a list of `BatchJob` instead of one job, and returns None or a list with a result, or an exception, for
        each.

        Raises:
            InvalidInput: The name is taken or not usable, or an option makes no sense.
        """
        check_text("processor name", name, MAX_NAME)
        bound = None if queue is None else queue_name(queue)
        if attempts is not None:
            whole("attempts", attempts, low=1, high=1000)
        limit = None if timeout is None else span("timeout", timeout, low=0.001)

        def remember(target: F) -> F:
            self.add(
                Processor(
                    name=name, handler=_handler(target), queue=bound, data=data,
                    attempts=attempts, backoff=backoff, timeout=limit, run_in=run_in, batch=batch,
                )
            )  # fmt: skip
            return target

        return remember

    def task(
        self,
        name: str,
        *,
        queue: str | None = None,
        attempts: int | None = None,
        backoff: Backoff | BackoffFunction | None = None,
        timeout: Seconds | None = None,
        run_in: Place | None = None,
    ) -> TaskDecorator:
        """Register the decorated function as the processor of jobs called `name`, its parameters being their data.

        Makes it a `Task`: called, it is the function; `await task.add(…)` adds a job, with parameters that a type
        checker compares with the function's, and that are compared with its annotations before anything is sent. The
        options are those of `register`.

        Raises:
            InvalidInput: The name is taken or not usable, an option makes no sense, or a parameter can't be given by
                name or has a type that can't be sent.
        """
        bound = None if queue is None else queue_name(queue)

        def remember(function: Callable[..., Any]) -> Task[..., Any, Any]:
            task: Task[..., Any, Any] = Task(name, bound, function)
            self.register(
                name, queue=queue, data=task.data, attempts=attempts, backoff=backoff, timeout=timeout, run_in=run_in
            )(_handler_of(task))
            return task

        return cast(TaskDecorator, remember)

    def add(self, processor: Processor) -> None:
        """Add one processor; raise InvalidInput if its queue and name are taken."""
        _check_place(processor)
        _check_batch(processor)
        key = (processor.queue, processor.name)
        if key in self._found:
            raise InvalidInput(f"a processor for {processor.name!r} is registered already")
        self._found[key] = processor

    def update(self, other: Processors) -> None:
        """Add all of `other`, and its middleware; raise InvalidInput at the first name that is taken, or two codecs."""
        if other.codec is not None and self.codec not in (None, other.codec):
            raise InvalidInput("two registries bring different codecs: a worker has one")
        self.codec = other.codec or self.codec
        self.middleware += tuple(one for one in other.middleware if one not in self.middleware)
        for processor in other:
            self.add(processor)

    def find(self, queue: str, name: str) -> Processor | None:
        """Return the processor of jobs called `name` in `queue`: the queue's own first, then one for any queue."""
        for key in ((queue, name), (None, name), (queue, ANY_NAME), (None, ANY_NAME)):
            if key in self._found:
                return self._found[key]
        return None

    def queues(self) -> list[str]:
        """Return the names of all queues that some processor is bound to, sorted."""
        return sorted({p.queue for p in self if p.queue is not None})


def _is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: an async function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def _handler_of(task: Task[..., Any, Any]) -> Callable[..., Any]:
    """Return a task as a handler; it goes by the function's name and module, where a process finds it again."""
    if inspect.iscoroutinefunction(task.function):

        @functools.wraps(task.function)
        async def handle(job: ActiveJob[Any]) -> Any:
            return await task.handle(job.data)

        return handle

    @functools.wraps(task.function)
    def handle_in_thread(job: ActiveJob[Any]) -> Any:
        return task.handle(job.data)

    return handle_in_thread


def _check_place(processor: Processor) -> None:
    place, handler = processor.run_in, processor.handler
    if place not in (None, "loop", "thread", "process"):
        raise InvalidInput(f"run_in must be loop, thread or process, not {place!r}")
    is_async = _is_async(handler)
    if (place == "loop" and not is_async) or (place == "thread" and is_async):
        raise InvalidInput(f"run_in={place!r} does not fit {handler.__qualname__}: async functions run in the loop")
    if place == "process" and ("<" in handler.__qualname__ or handler.__module__ == "__main__"):
        raise InvalidInput(
            f"run_in='process' needs a function at the top level of a module, not {handler.__qualname__}"
        )


def _check_batch(processor: Processor) -> None:
    batch = processor.batch
    if batch is None:
        return
    if not isinstance(batch, Batch):
        raise InvalidInput(f"batch must be a Batch(size, max_wait), not {batch!r:.100}")
    if processor.name == ANY_NAME:
        raise InvalidInput("a batch holds jobs of one name: the processor of any name (*) can't have one")
    if processor.place == "process":
        raise InvalidInput(f"{processor.name!r}: a batch runs in the loop or in a thread, not with run_in='process'")


def _handler(target: Any) -> Callable[..., Any]:
    if inspect.isclass(target):
        target = target()
        if not callable(getattr(target, "process", None)):
            raise InvalidInput(f"{type(target).__name__} needs a method process(self, job)")
        return target.process  # type: ignore[no-any-return]
    if not callable(target):
        raise InvalidInput(f"a processor must be a function or a class, not {target!r}")
    return target  # type: ignore[no-any-return]


@overload
def as_processors(target: Processors) -> Processors: ...
@overload
def as_processors(target: Mapping[str, Callable[..., Any]] | Callable[..., Any]) -> Processors: ...
def as_processors(target: Any) -> Processors:
    """Return `target` as a registry: it may be one, a mapping of names to functions, or one function for every job."""
    if isinstance(target, Processors):
        return target
    processors = Processors()
    named = target if isinstance(target, Mapping) else {ANY_NAME: target}
    for name, function in named.items():
        processors.add(Processor(name=name, handler=_handler(function)))
    return processors
