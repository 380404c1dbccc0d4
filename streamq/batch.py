"""A job of a batch, as the handler that was called with all of them sees it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from typing import Any, NoReturn, TypeVar

from streamq.errors import InvalidInput
from streamq.flow import FlowJob
from streamq.processor import ActiveJob

T = TypeVar("T")


class _Bound(logging.LoggerAdapter[logging.Logger]):
    """Binds lines to a job, beside what they are given as `extra`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **(self.extra or {})}}


class BatchJob(ActiveJob[T]):
    """One job of a batch while the handler runs: an `ActiveJob` that can be completed or failed by itself.

    What is not settled when the handler ends, ends as the handler does: with its place in the list that it returns, or
    with what it raised. `cancelled` says that this job was cancelled, or its time is up; the handler goes on for the
    others, and is interrupted when no job is left that wants it.
    """

    __slots__ = ("_closed", "_end")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._end: tuple[BaseException | None, Any] | None = None
        self._closed = False

    @property
    def settled(self) -> bool:
        """Whether it was completed or failed."""
        return self._end is not None

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:  # type: ignore[override]
        """As that of any job; its lines say which of the batch they are about."""
        return _Bound(super().logger, {"queue": self.queue, "job_id": self.id, "attempt": self.attempt})

    def complete(self, result: Any = None) -> None:
        """Let this job end as done, with `result`, once the handler has ended, in whichever way.

        Raises:
            InvalidInput: It is settled already; that stays.
        """
        self._settle(None, result)

    def fail(self, error: BaseException) -> None:
        """Let this job's attempt end as if a handler of its own had raised `error`, once the handler has ended.

        So `RetryAfter`, `Snooze` and `Unrecoverable` mean what they always do, and anything else is retried by the
        job's own policy.

        Raises:
            InvalidInput: `error` is no exception, or the job is settled already; that stays.
        """
        if not isinstance(error, BaseException):
            raise InvalidInput(f"fail takes an exception, not {error!r:.100}")
        self._settle(error, None)

    def add_children(self, children: Iterable[FlowJob]) -> NoReturn:
        """Refuse: what it raises ends an attempt, and here that would be everybody's.

        Raises:
            InvalidInput: Always. Nothing was sent.
        """
        raise InvalidInput(f"job {self.id} is one of a batch, which can't wait for children")

    def _close(self) -> tuple[BaseException | None, Any] | None:
        """Return what was said of it, None if nothing was: the worker asks when the handler has ended."""
        self._closed = True
        return self._end

    def _settle(self, error: BaseException | None, result: Any) -> None:
        if self._end is not None or self._closed:
            raise InvalidInput(f"job {self.id} {'is settled already' if self._end else 'has ended with its batch'}")
        self._end = error, result
