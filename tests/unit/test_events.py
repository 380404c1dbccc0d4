"""Event ids and folded entries: pure parts of reading events."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import InvalidInput
from streamq.events import Event, _before, _key, _position, unfold

MOMENT = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
ENTRY = "1790000000000-0"


def test_a_folded_entry_is_taken_apart_in_order() -> None:
    assert unfold(ENTRY, [b"added", b"1\0002\0a b", b"paused", b""]) == [
        Event(f"{ENTRY}/0", "added", "1", MOMENT),
        Event(f"{ENTRY}/1", "added", "2", MOMENT),
        Event(f"{ENTRY}/2", "added", "a b", MOMENT),
        Event(f"{ENTRY}/3", "paused", "", MOMENT),
    ]


@pytest.mark.parametrize(
    ("after", "position"),
    [("5-0", ("5-0", 0)), ("5-0/0", ("5-0", 1)), ("1790000000000-7/99", ("1790000000000-7", 100))],
)
def test_an_events_id_says_where_to_go_on(after: str, position: tuple[str, int]) -> None:
    assert _position(after) == position


@pytest.mark.parametrize("after", ["", "5", "5-", "-5", "a-b", "5-0/x", "5-0/-1", "5-0-1", "$", "0-0/0/0"])
def test_what_is_no_events_id_is_refused(after: str) -> None:
    with pytest.raises(InvalidInput, match="after must be the id of an event, such as 1790000000000-0/3, not"):
        _position(after)


@given(st.integers(0, 2**60), st.integers(0, 2**60))
def test_the_entry_before_one_is_below_it(ms: int, number: int) -> None:
    entry = f"{ms}-{number}"
    assert _key(_before(entry)) < _key(entry) or entry == "0-0"


def test_an_event_survives_a_trip_through_its_id() -> None:
    for i, event in enumerate(unfold(ENTRY, [b"added", b"\0".join(b"%d" % n for n in range(100))])):
        assert _position(event.id) == (ENTRY, i + 1)
