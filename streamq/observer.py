"""Who is told what the engine does: metrics and traces are observers.

Each method is called on the event loop, after the fact, and must be quick. An observer that raises is logged and
otherwise ignored.
"""

from __future__ import annotations


class Observer:
    """Told of every transition. Does nothing; override what you need."""

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        """A script call has ended: its name (a file in `lua/`), how long it took, how it failed, if it did."""


NOBODY = Observer()
