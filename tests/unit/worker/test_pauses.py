"""Pauses between tries that fail."""

from __future__ import annotations

import time

from streamq.worker.pauses import Pauses


def test_each_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    pauses = Pauses(0.05, 0.3)
    assert [pauses.failed() for _ in range(5)] == [0.05, 0.1, 0.2, 0.3, 0.3]


def test_a_success_makes_the_next_failure_the_first() -> None:
    pauses = Pauses(0.05, 1.0)
    pauses.failed()
    pauses.failed()
    pauses.worked()
    assert pauses.pause == 0
    assert pauses.failed() == 0.05


def test_a_pause_says_when_it_is_over() -> None:
    pauses = Pauses(60.0, 60.0)
    assert pauses.until <= time.monotonic()
    before = time.monotonic()
    pauses.failed()
    after = time.monotonic()
    assert before + 60 <= pauses.until <= after + 60
