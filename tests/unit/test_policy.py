# ruff: noqa: S311 - jitter is no secret
"""Backoff, retention, rate limit, priority: what they compute and what they refuse."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import Backoff, InvalidInput, Priority, RateLimit, Retention
from streamq.policy import MAX_SECONDS, seconds, whole

backoffs = st.builds(
    Backoff,
    st.floats(0, MAX_SECONDS),
    st.floats(1, 1_000),
    st.floats(0, MAX_SECONDS),
    st.floats(0, 1),
)


@given(backoffs, st.integers(1, 1_000), st.integers())
def test_a_delay_is_never_negative_nor_over_its_cap(backoff: Backoff, attempt: int, seed: int) -> None:
    assert 0 <= backoff.delay(attempt, random.Random(seed)) <= backoff.max_delay


@given(backoffs, st.integers(1, 1_000), st.integers())
def test_jitter_takes_at_most_its_share_away_and_adds_nothing(backoff: Backoff, attempt: int, seed: int) -> None:
    full = msgspec.structs.replace(backoff, jitter=0.0).delay(attempt)
    delay = backoff.delay(attempt, random.Random(seed))
    assert full * (1 - backoff.jitter) - 1e-6 * full <= delay <= full


@given(backoffs, st.integers(1, 999))
def test_without_jitter_a_later_attempt_never_waits_less(backoff: Backoff, attempt: int) -> None:
    steady = msgspec.structs.replace(backoff, jitter=0.0)
    assert steady.delay(attempt) <= steady.delay(attempt + 1)


@given(backoffs)
def test_a_backoff_travels_and_comes_back(backoff: Backoff) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(backoff), type=Backoff) == backoff


def test_an_exponential_backoff_doubles_up_to_its_cap() -> None:
    backoff = Backoff.exponential(5, factor=2, max_delay=30)
    assert [backoff.delay(n) for n in (1, 2, 3, 4, 1_000)] == [5, 10, 20, 30, 30]


def test_a_fixed_backoff_waits_the_same_each_time() -> None:
    assert [Backoff.fixed(timedelta(seconds=3)).delay(n) for n in (1, 2, 50)] == [3, 3, 3]


def test_jitter_spreads_jobs_that_failed_together() -> None:
    backoff = Backoff.exponential(10, jitter=0.5)
    assert len({backoff.delay(1, random.Random(n)) for n in range(50)}) > 40


def test_without_a_source_of_its_own_jitter_is_random() -> None:
    backoff = Backoff.fixed(1_000, jitter=1.0)
    assert len({backoff.delay(1) for _ in range(10)}) > 1


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Backoff(-1), "backoff base must be between 0 and 3.16224e+08 seconds, not -1"),
        (lambda: Backoff(math.nan), "backoff base must be seconds (a number or a timedelta), not nan"),
        (lambda: Backoff(1, 0.5), "backoff factor must be between 1 and 1000, not 0.5"),
        (lambda: Backoff(1, math.nan), "backoff factor must be between 1 and 1000, not nan"),
        (lambda: Backoff(1, 2, math.inf), "backoff max_delay must be between 0 and 3.16224e+08 seconds, not inf"),
        (lambda: Backoff(1, 2, 3, 1.5), "backoff jitter must be between 0 and 1 (a share of the delay), not 1.5"),
        (lambda: Backoff.fixed(-2), "backoff delay must be between 0 and 3.16224e+08 seconds, not -2"),
        (lambda: Retention(-1), "retention count must be between 0 and 100,000,000, not -1"),
        (lambda: Retention(1.5), "retention count must be a whole number, not 1.5"),  # type: ignore[arg-type]
        (lambda: Retention(True), "retention count must be a whole number, not True"),
        (lambda: Retention(1, -1), "retention age must be between 0 and 3.16224e+08 seconds, not -1"),
        (lambda: Retention(1, "day"), "retention age must be seconds (a number or a timedelta), not 'day'"),  # type: ignore[arg-type]
        (lambda: RateLimit(0), "rate limit max must be between 1 and 1,000,000, not 0"),
        (lambda: RateLimit(1, 0), "rate limit per must be between 0.001 and 3.16224e+08 seconds, not 0"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_name_and_its_limit(make: Any, text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        make()
    assert str(raised.value) == text


def test_spans_are_seconds_or_timedeltas() -> None:
    assert seconds("delay", timedelta(minutes=1)) == 60.0
    assert seconds("delay", 3) == 3.0
    assert Retention(5, timedelta(days=1)).age_ms == 86_400_000  # type: ignore[arg-type]
    assert RateLimit(10, timedelta(milliseconds=1_500)).per_ms == 1_500  # type: ignore[arg-type]


@given(st.one_of(st.none(), st.text(), st.booleans(), st.lists(st.integers())))
def test_what_is_no_number_is_no_span(value: Any) -> None:
    with pytest.raises(InvalidInput, match="delay must be seconds"):
        seconds("delay", value)


@given(st.one_of(st.none(), st.text(), st.booleans(), st.floats()))
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="attempts must be a whole number"):
        whole("attempts", value, low=1, high=10)


def test_the_priorities_are_four_and_the_most_urgent_is_the_first() -> None:
    assert {p.name: p.value for p in Priority} == {"CRITICAL": 1, "HIGH": 2, "NORMAL": 3, "LOW": 4}
