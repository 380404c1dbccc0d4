"""Tasks: functions whose jobs are added by calling, with parameters that a type checker compares with the function's.

    @processors.task("send-welcome", queue="emails")
    async def send_welcome(user_id: int, *, language: str = "en") -> bool: ...

    job = await send_welcome.add(user_id=1)     # a job; a wrong parameter is an error of the type checker
    await send_welcome(user_id=1)               # the function itself, here and now

A job's data are the parameters that were given, by name; what was not given is the function's own default when the job
runs. `Processors.task` makes tasks. Nothing here talks to Redis: a task asks the queue that it is for.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar, overload

import msgspec

from streamq.errors import InvalidInput
from streamq.job import Job, JobOptions, JobSource
from streamq.policy import Seconds

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Target(JobSource, Protocol):
    """The queue that a task's jobs are added to."""

    async def add(self, name: str, data: Any = None, *, options: JobOptions | None = None) -> Job: ...


class TaskJob(Job, Generic[R]):
    """The handle of a task's job: a `Job` whose result has the type that the function returns."""

    __slots__ = ("_returns",)

    def __init__(self, queue: JobSource, job_id: str, name: str, returns: Any, *, is_new: bool) -> None:
        super().__init__(queue, job_id, name, is_new=is_new)
        self._returns = returns

    async def result(self, timeout: Seconds | None = None) -> R:
        """Wait until the job has ended and return its result, as the type that the function is annotated with.

        Raises:
            msgspec.ValidationError: What was stored is not of that type; the job has completed all the same.
            JobFailed, JobCancelled, ResultNotKept, TimeoutError: As `Job.result`.
        """
        found = await super().result(timeout)
        return found if self._returns is Any else msgspec.convert(found, self._returns)  # type: ignore[no-any-return]


class Task(Generic[P, C, R]):
    """A function with a name and a queue. Called, it is the function; `add` adds a job that calls it in a worker.

    Attributes:
        name: The name of its jobs.
        queue: The queue that they are added to; None if it was registered for any queue.
        options: How they are added; see `using`.
        data: The type of their data, made of the function's parameters.
    """

    find_queue: ClassVar[Callable[[str], Target] | None] = None
    """Returns the running event loop's queue of a name; the flat functions bring it along."""

    def __init__(self, name: str, queue: str | None, function: Callable[P, C]) -> None:
        functools.update_wrapper(self, function)
        self.name, self.queue, self.function = name, queue, function
        self.options: JobOptions | None = None
        self._target: Target | None = None
        hints = _hints(name, function)
        self._signature = inspect.signature(function)
        self._returns = hints.get("return", Any)
        self.data = _data_type(name, self._signature, hints)

    def __repr__(self) -> str:
        return f"<Task {self.name} of {self.queue or 'any queue'}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Call the function here and now; no job."""
        return self.function(*args, **kwargs)

    async def add(self, *args: P.args, **kwargs: P.kwargs) -> TaskJob[R]:
        """Add a job that calls the function with these parameters; promises and errors are those of `Queue.add`.

        Raises:
            InvalidInput: A parameter is missing, unknown, or not of its annotated type, or the task has no queue.
                Nothing was sent.
        """
        target = self._target or self._at_hand()
        job = await target.add(self.name, self._bound(*args, **kwargs), options=self.options)
        return TaskJob(target, job.id, self.name, self._returns, is_new=job.is_new)

    def spec(self, *args: P.args, **kwargs: P.kwargs) -> tuple[str, Any, JobOptions]:
        """Return the job as `Queue.add_many` takes it; raise InvalidInput if a parameter is missing or unknown."""
        return self.name, self._bound(*args, **kwargs), self.options or JobOptions()

    def using(self, options: JobOptions) -> Task[P, C, R]:
        """Return this task with other options: `await send.using(JobOptions(delay=60)).add(user_id=1)`."""
        if not isinstance(options, JobOptions):
            raise InvalidInput(f"options must be JobOptions, not {type(options).__name__}")
        return self._with(options=options)

    def on(self, queue: Target) -> Task[P, C, R]:
        """Return this task for one `Queue` object, instead of the environment's queue of that name.

        Raises:
            InvalidInput: The task is registered for another queue: no worker of this one would know it.
        """
        if self.queue is not None and queue.name != self.queue:
            raise InvalidInput(f"task {self.name!r} is registered for queue {self.queue!r}, not {queue.name!r}")
        return self._with(_target=queue)

    def handle(self, data: Any) -> C:
        """Call the function with the parameters that a job's data hold; the worker does this."""
        given = {name: value for name in data.__struct_fields__ if (value := getattr(data, name)) is not msgspec.UNSET}
        return self.function(**given)  # type: ignore[call-arg]

    def _with(self, **changed: Any) -> Task[P, C, R]:
        other: Task[P, C, R] = object.__new__(type(self))
        vars(other).update(vars(self), **changed)
        return other

    def _bound(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.data(**self._signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            raise InvalidInput(f"task {self.name!r}: {error}") from None

    def _at_hand(self) -> Target:
        if self.queue is None or Task.find_queue is None:
            raise InvalidInput(f"task {self.name!r} has no queue: register it with queue=…, or say task.on(queue)")
        return Task.find_queue(self.queue)


class TaskDecorator(Protocol):
    """What `Processors.task` returns: makes a task of the decorated function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


def _hints(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    if not inspect.isroutine(function):
        raise InvalidInput(f"task {name!r} must be a function, not {function!r}")
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InvalidInput(f"task {name!r}: an annotation can't be resolved where it is registered: {error}") from None


def _data_type(name: str, signature: inspect.Signature, hints: dict[str, Any]) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in signature.parameters.values():
        if parameter.kind not in _BY_NAME:
            raise InvalidInput(f"task {name!r}: {parameter} can't be given by name, as a job's data are")
        kind = hints.get(parameter.name, Any)
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, kind))
        else:
            # Left out, it is the default of the function that runs, not of the one that added the job.
            fields.append((parameter.name, kind | msgspec.UnsetType, msgspec.UNSET))
    try:
        made = msgspec.defstruct(f"{name} parameters", fields, kw_only=True, frozen=True, forbid_unknown_fields=True)
        msgspec.msgpack.Decoder(made)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"task {name!r}: its parameters can't be a job's data: {error}") from None
    return made
