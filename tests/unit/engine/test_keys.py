"""The names of keys: all of a queue in one slot, and no name that could break one."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from streamq import InvalidInput
from streamq._engine import keys


def test_all_keys_of_a_queue_are_in_one_slot() -> None:
    base = keys.base("reports")
    names = [*keys.lanes(base), keys.events(base), keys.dead(base), keys.wake(base), keys.log(base, "a{b}")]
    assert {key_slot(name.encode()) for name in names} == {key_slot(b"reports")}


def test_the_names_are_as_documented() -> None:
    base = keys.base("reports")
    assert keys.lanes(base) == [f"sq:{{reports}}:lane:{n}" for n in (1, 2, 3, 4)]
    assert keys.log(base, "17") == "sq:{reports}:log:17"


@pytest.mark.parametrize("name", ["", "a{b", "a}b", "a\nb", "x" * 257])
def test_a_queue_name_that_could_break_a_key_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="queue name"):
        keys.base(name)
