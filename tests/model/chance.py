"""What a step of the machine draws: evenly, from a seed of its own, so that steps can be left out one by one.

Hypothesis' own strategies like small and repeated values, which is good for finding a value that breaks something. Here
only jobs that meet each other do, and for that all kinds have to come up about as often as they are named.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import note


class Chance:
    """One step's draws."""

    def __init__(self, *seed: int) -> None:
        self.random = random.Random(str(seed))  # noqa: S311 - repeatable, no secret

    def draw(self, drawn: Drawn) -> Any:
        value = drawn.make(self.random)
        note(f"    {value!r}")  # told of the run that fails
        return value


class Drawn:
    """Something that can be drawn; `a | b` is one of the two."""

    def __init__(self, make: Callable[[random.Random], Any], parts: tuple[Drawn, ...] = ()) -> None:
        self.make, self.parts = make, parts or (self,)

    def __or__(self, other: Drawn) -> Drawn:
        parts = (*self.parts, *other.parts)
        return Drawn(lambda chance: chance.choice(parts).make(chance), parts)


def sampled_from(values: Sequence[Any]) -> Drawn:
    return Drawn(lambda chance: chance.choice(values))


def booleans() -> Drawn:
    return sampled_from([False, True])


def none() -> Drawn:
    return Drawn(lambda _: None)


def integers(low: int, high: int) -> Drawn:
    return Drawn(lambda chance: chance.randint(low, high))


def permutations(values: Sequence[Any]) -> Drawn:
    return Drawn(lambda chance: chance.sample(values, len(values)))


def tuples(*parts: Drawn) -> Drawn:
    return Drawn(lambda chance: tuple(part.make(chance) for part in parts))


def lists(part: Drawn, min_size: int, max_size: int) -> Drawn:
    return Drawn(lambda chance: [part.make(chance) for _ in range(chance.randint(min_size, max_size))])


def fixed_dictionaries(parts: Mapping[str, Drawn]) -> Drawn:
    return Drawn(lambda chance: {name: part.make(chance) for name, part in parts.items()})
