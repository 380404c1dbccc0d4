"""Awaitables that are done: what the blocking form of a call returns, so that `await` does no harm there."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


class Answer(list[T]):
    """A list that may be awaited, which gives the list."""

    def __await__(self) -> Generator[None, None, list[T]]:
        return self
        yield


class Done:
    """Await it or not: nothing is left to do."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield
