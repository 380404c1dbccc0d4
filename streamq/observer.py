"""Who is told what the engine does: metrics and traces are observers.

Each method is called on the event loop, after the fact, and must be quick. An observer that raises is logged and
otherwise ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec

UNKNOWN = "unknown"
"""Stands for the processor of a job that has none here."""

log = logging.getLogger("streamq.observer")

P = ParamSpec("P")

ErrorHandler = Callable[[BaseException], None]
"""Told of trouble in the background, which no call raises: a connection that is lost, a handler that fails."""


class Observer:
    """Told of what happens. Does nothing; override what you need. Times are seconds."""

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        """A script call has ended: its name (a file in `lua/`), how long it took, how it failed, if it did."""

    def ticked(self, queue: str, settled: int, claimed: int) -> None:
        """A worker's tick went through: how many outcomes it settled and how many jobs it brought."""

    def ended(self, queue: str, processor: str, outcome: str, ran: float, waited: float, attempt: int) -> None:
        """An attempt has ended here.

        `processor` is the name that was registered (`*` for one that takes any, `UNKNOWN` where there is none),
        `outcome` one of done, retry, fail, release and hold, `waited` the time from when the job could have started to
        when it did. `ran` is 0 where the handler was not called: the data did not fit, the job had expired.
        """

    def stale(self, queue: str) -> None:
        """An outcome was refused: its lease had moved on."""

    def taken_back(self, queue: str, jobs: int) -> None:
        """This worker's tick took jobs back from workers whose lease had lapsed."""

    def scripts_reloaded(self, queue: str) -> None:
        """The server had lost a script, and was given it again."""


NOBODY = Observer()


def tell(observer: Observer, method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call one of an observer's methods; costs next to nothing where nobody observes."""
    if observer is NOBODY:
        return
    try:
        method(*args, **kwargs)
    except Exception:
        log.exception("an observer failed on %s", getattr(method, "__name__", method))


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
