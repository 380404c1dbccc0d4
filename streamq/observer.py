"""Who is told what the engine does: metrics and traces are observers.

Each method is called on the event loop, after the fact, and must be quick. An observer that raises is logged and
otherwise ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from streamq.processor import ActiveJob

UNKNOWN = "unknown"
"""Stands for the processor of a job that has none here."""

log = logging.getLogger("streamq.observer")

P = ParamSpec("P")

ErrorHandler = Callable[[BaseException], None]
"""Told of trouble in the background, which no call raises: a connection that is lost, a handler that fails."""


class Sending:
    """An add that is under way: what travels with its jobs, and who wants to know how it went."""

    headers: Mapping[str, str] = {}

    def sent(self, ids: Sequence[str]) -> None:
        """The jobs are in Redis."""

    def failed(self, error: BaseException) -> None:
        """They are not, as far as the producer knows."""


class Running:
    """An attempt, or the call of a handler with several jobs, that is under way."""

    def ended(self, outcome: str, error: str) -> None:
        """It has ended in this way (see `Observer.ended`); `error` is the type of what it failed with, or ""."""


class Observer:
    """Told of what happens. Does nothing; override what you need. Times are seconds."""

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        """A script call has ended: its name (a file in `lua/`), how long it took, how it failed, if it did."""

    def ticked(self, queue: str, settled: int, claimed: int) -> None:
        """A worker's tick went through: how many outcomes it settled and how many jobs it brought."""

    def ended(self, queue: str, processor: str, outcome: str, ran: float, waited: float, attempt: int) -> None:
        """An attempt has ended here.

        `processor` is the name that was registered (`*` for one that takes any, `UNKNOWN` where there is none),
        `outcome` one of done, retry, fail, cancel, release, hold and wait (for children that it added), `waited` the
        time from when the job could have started to when it did. `ran` is 0 where the handler was not called: the data
        did not fit, the job had expired.
        """

    def sending(self, queue: str, name: str, jobs: int) -> Sending | None:
        """So many jobs are about to be added; `name` is that of a lone one. None: nobody wants to know how it goes."""

    def running(self, job: ActiveJob[Any], processor: str) -> Running | None:
        """A handler is about to be called in this task. None: nobody wants to know how that goes."""

    def running_batch(self, jobs: Sequence[ActiveJob[Any]], processor: str) -> Running | None:
        """A handler is about to be called in this task with these jobs at once, each of which `running` was told of.

        Its end is told as "returned" or "raised". None: nobody wants to know how that goes.
        """

    def stale(self, queue: str) -> None:
        """An outcome was refused: its lease had moved on."""

    def taken_back(self, queue: str, jobs: int) -> None:
        """This worker's tick took jobs back from workers whose lease had lapsed."""

    def poisoned(self, queue: str, jobs: int) -> None:
        """Of the jobs that this worker's tick took back, so many were failed: they had taken too many workers down."""

    def thread_left(self, queue: str, processor: str) -> None:
        """A handler's time is up, and its thread, which nothing can stop, was left to itself; its slot is free."""

    def scripts_reloaded(self, queue: str) -> None:
        """The server had lost a script, and was given it again."""


NOBODY = Observer()


class _Sendings(Sending):
    def __init__(self, all: Sequence[Sending]) -> None:
        self._all = all
        self.headers = {name: value for one in all for name, value in one.headers.items()}

    def sent(self, ids: Sequence[str]) -> None:
        for one in self._all:
            one.sent(ids)

    def failed(self, error: BaseException) -> None:
        for one in self._all:
            one.failed(error)


class _Runnings(Running):
    def __init__(self, all: Sequence[Running]) -> None:
        self._all = all

    def ended(self, outcome: str, error: str) -> None:
        for one in self._all:
            one.ended(outcome, error)


class _Together(Observer):
    def __init__(self, observers: Sequence[Observer]) -> None:
        self._all = observers

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        for one in self._all:
            tell(one, one.transition, queue, name, seconds, error)

    def ticked(self, queue: str, settled: int, claimed: int) -> None:
        for one in self._all:
            tell(one, one.ticked, queue, settled, claimed)

    def ended(self, queue: str, processor: str, outcome: str, ran: float, waited: float, attempt: int) -> None:
        for one in self._all:
            tell(one, one.ended, queue, processor, outcome, ran, waited, attempt)

    def sending(self, queue: str, name: str, jobs: int) -> Sending | None:
        found = [sending for one in self._all if (sending := begin(one, one.sending, queue, name, jobs)) is not None]
        return _Sendings(found) if found else None

    def running(self, job: ActiveJob[Any], processor: str) -> Running | None:
        found = [running for one in self._all if (running := begin(one, one.running, job, processor)) is not None]
        return _Runnings(found) if found else None

    def running_batch(self, jobs: Sequence[ActiveJob[Any]], processor: str) -> Running | None:
        begun = (begin(one, one.running_batch, jobs, processor) for one in self._all)
        found = [running for running in begun if running is not None]
        return _Runnings(found) if found else None

    def stale(self, queue: str) -> None:
        for one in self._all:
            tell(one, one.stale, queue)

    def taken_back(self, queue: str, jobs: int) -> None:
        for one in self._all:
            tell(one, one.taken_back, queue, jobs)

    def poisoned(self, queue: str, jobs: int) -> None:
        for one in self._all:
            tell(one, one.poisoned, queue, jobs)

    def thread_left(self, queue: str, processor: str) -> None:
        for one in self._all:
            tell(one, one.thread_left, queue, processor)

    def scripts_reloaded(self, queue: str) -> None:
        for one in self._all:
            tell(one, one.scripts_reloaded, queue)


def together(*observers: Observer) -> Observer:
    """Return one observer that tells all of these; one that fails keeps nothing from the others."""
    several = [observer for observer in observers if observer is not NOBODY]
    return NOBODY if not several else several[0] if len(several) == 1 else _Together(several)


T = TypeVar("T")


def begin(observer: Observer, method: Callable[P, T | None], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call `sending`, `running` or `running_batch`; None where nobody observes, or the observer fails."""
    if observer is NOBODY:
        return None
    try:
        return method(*args, **kwargs)
    except Exception:
        log.exception("an observer failed on %s", getattr(method, "__name__", method))
        return None


def tell(observer: Observer, method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call one of an observer's methods; costs next to nothing where nobody observes."""
    if observer is NOBODY:
        return
    try:
        method(*args, **kwargs)
    except Exception:
        log.exception("an observer failed on %s", getattr(method, "__name__", method))


@contextmanager
def told(observer: Observer, sending: Sending) -> Iterator[list[str]]:
    """Tell of the end of an add: the ids that the block has put into the list, or what it raised."""
    ids: list[str] = []
    try:
        yield ids
    except BaseException as error:
        tell(observer, sending.failed, error)
        raise
    tell(observer, sending.sent, ids)


def tell_nobody(error: BaseException) -> None:
    """Stand in for an error handler where none was given."""


def careful(on_error: ErrorHandler | None) -> ErrorHandler:
    """Return `on_error` so that what it raises itself is logged and ends nothing."""
    if on_error is None:
        return tell_nobody

    def tell_of(error: BaseException) -> None:
        try:
            on_error(error)
        except Exception:
            log.exception("on_error failed when it was told of %s", type(error).__name__)

    return tell_of
