"""An awaitable that is done: what the blocking form of a call returns, so that `await` does no harm there."""

from __future__ import annotations

from collections.abc import Generator


class Done:
    """Await it or not: nothing is left to do."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield
