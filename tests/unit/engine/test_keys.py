"""The names of keys: all of a queue in one slot, and no name that could break one."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import pytest
from redis.crc import key_slot

from streamq import InvalidInput, Queue, QueueName, Settings, Worker
from streamq._engine import keys
from streamq.job import queue_name


def test_all_keys_of_a_queue_are_in_one_slot() -> None:
    base = keys.base("reports")
    names = [*keys.lanes(base), keys.events(base), keys.dead(base), keys.wake(base), keys.log(base, "a{b}")]
    assert {key_slot(name.encode()) for name in names} == {key_slot(b"reports")}


def test_the_names_are_as_documented() -> None:
    base = keys.base("reports")
    assert keys.lanes(base) == [f"sq:{{reports}}:lane:{n}" for n in (1, 2, 3, 4)]
    assert keys.log(base, "17") == "sq:{reports}:log:17"


class Mixed(str, enum.Enum):  # noqa: UP042 - that is what is tested
    REPORTS = "reports"


@pytest.mark.parametrize("name", [QueueName.REPORTS, Mixed.REPORTS])
def test_a_member_of_an_enum_names_the_queue_that_its_value_does(name: str) -> None:
    assert keys.base(name) == "sq:{reports}"
    assert repr(queue_name(name)) == "'reports'"


@pytest.mark.parametrize("name", [None, 5, b"reports"])
def test_a_queue_name_that_is_no_text_is_refused_wherever_one_is_taken(name: Any) -> None:
    makes: tuple[Callable[[], object], ...] = (
        lambda: Queue(name, settings=Settings()),
        lambda: Worker(name, {}, settings=Settings()),
        lambda: keys.base(name),
    )
    for make in makes:
        with pytest.raises(InvalidInput, match=f"queue name must be text, not {type(name).__name__}"):
            make()


@pytest.mark.parametrize("name", ["", "a{b", "a}b", "a\nb", "x" * 257])
def test_a_queue_name_that_could_break_a_key_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="queue name"):
        keys.base(name)
