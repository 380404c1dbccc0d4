"""Unique keys as plain values: what is accepted, and how they travel."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import InvalidInput, JobOptions, Unique
from streamq.unique import OnConflict, While

uniques = st.builds(
    Unique,
    key=st.text("abc:/- é", min_size=1, max_size=20),
    while_=st.sampled_from(get_args(While)),
    ttl=st.none() | st.integers(1, 10_000_000).map(lambda ms: ms / 1000),
    on_conflict=st.sampled_from(get_args(OnConflict)),
)


@given(uniques)
def test_a_unique_key_travels_and_comes_back(unique: Unique) -> None:
    assert Unique.from_bond(unique.bond()) == unique


def test_a_time_to_live_is_rounded_up_to_milliseconds() -> None:
    assert Unique("k", ttl=0.0011).ttl_ms == 2
    assert Unique("k", ttl=256.951).ttl_ms == 256_951  # 256.951 * 1000 is a little more
    assert Unique("k", ttl=timedelta(minutes=1)).ttl_ms == 60_000
    assert Unique("k").ttl_ms is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"key": ""}, "unique key must not be empty"),
        ({"key": 17}, "unique key must be text, not int"),
        ({"key": "a\x00b"}, "unique key must not contain control characters or lone surrogates: 'a\\x00b'"),
        ({"key": "a{b}"}, "unique key must not contain braces (they mark a key's hash slot): 'a{b}'"),
        ({"key": "é" * 129}, "unique key takes 258 bytes, over the limit of 256"),
        ({"while_": "waiting"}, "while_ must be one of pending, running, retained, not 'waiting'"),
        (
            {"on_conflict": "drop"},
            "on_conflict must be one of return_existing, replace, raise, keep_latest, not 'drop'",
        ),
        ({"ttl": 0}, "ttl must be between 0.001 and 3.16224e+08 seconds, not 0"),
        ({"ttl": "60"}, "ttl must be seconds (a number or a timedelta), not '60'"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Unique(**{"key": "k", **fields})
    assert str(caught.value) == text


def test_an_option_that_is_no_unique_key_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unique must be a Unique, not 'k'"):
        JobOptions(unique="k")  # type: ignore[arg-type]
