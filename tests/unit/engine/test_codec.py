"""What goes in comes out exactly, or is refused."""

from __future__ import annotations

import decimal
import math
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import Backoff, JobOptions, Retention
from streamq._engine import codec
from streamq.errors import InvalidInput, PayloadTooLarge, UnencodableData
from streamq.job import JobError

LIMIT = 1_000_000
numbers = st.one_of(st.integers(), st.integers(-(2**200), 2**200), st.floats(allow_nan=False))
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(), st.binary())
keys = st.one_of(st.text(), st.integers(-(2**63), 2**64 - 1), st.binary())
plain = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=30)


def exactly_equal(one: Any, other: Any) -> bool:
    """Equal in value and in type, all the way down: `1 == 1.0 == True` is not enough here."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(exactly_equal, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            any(exactly_equal(k, k2) and exactly_equal(v, v2) for k2, v2 in other.items()) for k, v in one.items()
        )
    return bool(one == other)


@given(plain)
def test_plain_data_comes_back_exactly(data: Any) -> None:
    assert exactly_equal(codec.decode(codec.encode_data("data", data, LIMIT)), data)


@pytest.mark.parametrize(
    "value",
    [
        2**53 + 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**100, -(10**100), 2**127, 2**128 - 1, -(2**128),
        [], {}, "", b"", 0.1, -0.0, math.inf, "\x00", "\U0001f600", {1: {2: []}}, [[[[]]]],
        {"a": [2**70, {"b": -(2**70)}]}, {(1, 2): 3}, {"at": datetime(2026, 1, 1, 12, 30, 0, 7, tzinfo=UTC)},
    ],
)  # fmt: skip
def test_values_that_other_queues_mangle_come_back(value: Any) -> None:
    assert exactly_equal(codec.decode(codec.encode_data("data", value, LIMIT)), value)


@dataclass
class Order:
    id: int
    when: datetime
    amount: decimal.Decimal
    tags: tuple[str, ...]


class Report(msgspec.Struct):
    month: int
    parts: set[int]


@pytest.mark.parametrize(
    "value",
    [
        Order(1, datetime(2026, 1, 1, tzinfo=UTC), decimal.Decimal("1.10"), ("a",)),
        Report(2, {1, 2}),
        Report(2**63, {3}),
    ],
)
def test_a_typed_value_comes_back_as_its_type(value: Any) -> None:
    body = codec.encode_data("data", value, LIMIT)
    assert codec.typed_decoder(type(value)).decode(body) == value


class Unequal(msgspec.Struct, eq=False):
    n: int


class Point(NamedTuple):
    x: int
    y: int


class Opaque:
    pass


def circular() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2), "data would not come back as it was given"),
        ({"a": (1,)}, "data would not come back as it was given"),
        ({1, 2}, "data would not come back as it was given"),
        (decimal.Decimal("1.1"), "data would not come back as it was given"),
        ({"at": datetime(2026, 1, 1)}, "data would not come back as it was given"),
        (Point(1, 2), "data would not come back as it was given"),
        (uuid.UUID(int=1), "data would not come back as it was given"),
        ({2**70: 1}, "data can't be encoded: can't serialize ints"),
        (math.nan, "data would not come back as it was given"),
        ([math.nan], "data would not come back as it was given"),
        ({"row": Report(1, set())}, "data would not come back as it was given"),
        (Unequal(1), "data would not come back as it was given"),
        (Opaque(), "data can't be encoded: Encoding objects of type Opaque is unsupported"),
        ({"f": print}, "data can't be encoded: Encoding objects of type builtin_function_or_method is unsupported"),
        (Opaque, "data can't be encoded"),
        ("\ud800", "data can't be encoded"),
        (circular(), "data can't be encoded: it contains itself or is nested too deeply"),
        (nested(100_000), "data can't be encoded: it contains itself or is nested too deeply"),
    ],
)
def test_what_would_not_come_back_equal_is_refused(value: Any, text: str) -> None:
    with pytest.raises(UnencodableData) as raised:
        codec.encode_data("data", value, LIMIT)
    assert str(raised.value).startswith(text)
    assert isinstance(raised.value, InvalidInput)


class Text(str):
    pass


class Table(dict):  # type: ignore[type-arg]
    pass


@pytest.mark.parametrize("value", [Text("a"), Table(a=1), {"a": True, 1: 1.0}])
def test_a_subclass_either_comes_back_equal_or_is_refused(value: Any) -> None:
    try:
        body = codec.encode_data("data", value, LIMIT)
    except UnencodableData:
        return
    assert codec.decode(body) == value


def test_the_limit_is_on_the_encoded_bytes() -> None:
    assert len(codec.encode_data("data", b"x" * 98, 100)) == 100
    with pytest.raises(PayloadTooLarge) as raised:
        codec.encode_data("data", b"x" * 99, 100)
    assert (raised.value.what, raised.value.size, raised.value.limit) == ("data", 101, 100)


@given(plain)
def test_a_plain_result_comes_back_exactly(value: Any) -> None:
    assert exactly_equal(codec.decode(codec.encode_result(value, LIMIT)), value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ((1, 2), [1, 2]),
        (decimal.Decimal("1.10"), "1.10"),
        ({"s": {1}}, {"s": [1]}),
        (Report(1, {2}), {"month": 1, "parts": [2]}),
    ],
)
def test_a_result_may_come_back_as_plain_data(value: Any, stored: Any) -> None:
    assert codec.decode(codec.encode_result(value, LIMIT)) == stored


def test_no_result_takes_no_bytes() -> None:
    assert codec.encode_result(None, LIMIT) == b""
    assert codec.decode(b"") is None


@pytest.mark.parametrize("value", [Opaque(), circular(), "\ud800", {"f": print}])
def test_a_result_that_cannot_be_stored_is_refused(value: Any) -> None:
    with pytest.raises(UnencodableData, match="the result can't be encoded"):
        codec.encode_result(value, LIMIT)


def test_a_result_over_the_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match=r"the result takes 103 bytes, over the limit of 100"):
        codec.encode_result("x" * 101, 100)


OPTIONS = JobOptions(
    attempts=5, backoff=Backoff.exponential(1, jitter=0.5), timeout=2.5, keep_completed=Retention(1, 2),
    keep_failed=Retention(3, 4),
)  # fmt: skip


@given(st.text(), plain)
def test_an_envelope_comes_back(name: str, data: Any) -> None:
    body = codec.encode_data("data", data, LIMIT)
    for options in (None, codec.envelope_options(OPTIONS)):
        found = codec.decode_envelope(codec.encode_envelope(name, body, options))
        assert (found.schema, found.name, found.options) == (codec.SCHEMA, name, options)
        assert exactly_equal(codec.decode(bytes(found.data)), data)


def test_options_that_only_concern_the_add_do_not_travel() -> None:
    assert codec.envelope_options(JobOptions(priority=1, delay=5, job_id="mine")) is None  # type: ignore[arg-type]
    found = codec.envelope_options(OPTIONS)
    assert found is not None
    assert (found.a, found.b, found.t, found.c, found.f) == (
        5, OPTIONS.backoff, 2.5, OPTIONS.keep_completed, OPTIONS.keep_failed,
    )  # fmt: skip


def test_a_job_without_options_carries_none() -> None:
    assert len(codec.encode_envelope("work", codec.encode_data("data", None, 10), None)) == 8


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff" * 10, b"not a job", b"\x93\x01\xa1\xff\xc0", b"\xc1"])
def test_bytes_that_are_no_envelope_are_named_so(body: bytes) -> None:
    with pytest.raises(codec.BadEnvelope, match="not a job"):
        codec.decode_envelope(body)


@given(st.binary())
def test_no_bytes_break_the_decoder(body: bytes) -> None:
    try:
        codec.decode_envelope(body)
    except codec.BadEnvelope:
        return


def test_a_schema_of_the_future_is_refused_by_its_number() -> None:
    with pytest.raises(codec.BadEnvelope, match=r"schema 99 is not one that this version reads \(1,\)"):
        codec.decode_envelope(msgspec.msgpack.encode([99, "work", None]))


def test_an_envelope_with_more_fields_than_we_know_is_read() -> None:
    assert codec.decode_envelope(msgspec.msgpack.encode([1, "work", 5, {"a": 2, "zz": 9}, "more"])).name == "work"


@given(st.text(), st.text(), st.text())
def test_an_error_comes_back(kind: str, message: str, trace: str) -> None:
    error = JobError(kind, message, trace)
    assert codec.decode_error(codec.encode_error(error)) == error


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x01", b"\x91\x01"])
def test_an_unreadable_error_says_so(body: bytes) -> None:
    assert codec.decode_error(body).type == "UnreadableError"


def test_an_unknown_extension_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown msgpack extension 7"):
        codec.decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(7, b"x")))
