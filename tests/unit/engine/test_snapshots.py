"""From what Redis holds to what users see, also when what Redis holds makes no sense."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import JobState, Priority
from streamq._engine import codec
from streamq._engine.snapshots import moment, snapshot
from streamq._engine.transitions import StoredJob
from streamq.job import JobError

ENVELOPE = codec.encode_envelope("report", codec.encode_data("data", {"month": 11}, 100), None)
NINE = 1_790_000_000_000


def stored(state: str = "waiting", envelope: bytes = ENVELOPE, **record: bytes) -> StoredJob:
    return StoredJob(state, 2, envelope, NINE, None, record)


def test_a_job_is_read_whole() -> None:
    found = snapshot("q", "17", stored("completed", a=b"2", k=b"1", i=b"3", r=b"\x05", g=b"\x06", f=b"1790000001500"))
    assert (found.id, found.queue, found.name, found.data) == ("17", "q", "report", {"month": 11})
    assert (found.state, found.priority) == (JobState.COMPLETED, Priority.HIGH)
    assert (found.attempts_made, found.stalls, found.interruptions) == (2, 1, 3)
    assert (found.result, found.progress, found.error) == (5, 6, None)
    assert found.finished_at == datetime(2026, 9, 21, 14, 13, 21, 500_000, UTC)


def test_what_belongs_to_another_state_is_left_out() -> None:
    found = snapshot("q", "17", stored("waiting", r=b"\x05", f=b"1790000001500", u=b"1790000001500"))
    assert (found.result, found.finished_at, found.run_at) == (None, None, None)
    assert snapshot("q", "17", stored("delayed", u=b"1790000001500")).run_at == moment(NINE + 1_500)


def test_the_last_error_is_shown_while_the_job_goes_on() -> None:
    error = JobError("ValueError", "boom", "trace")
    assert snapshot("q", "17", stored("delayed", x=codec.encode_error(error))).error == error


BAD_DATA = msgspec.msgpack.encode([1, "report"])[:1].replace(b"\x92", b"\x93") + b"\x01\xa6report"


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"not a job",
        msgspec.msgpack.encode([99, "report", None]),
        BAD_DATA + b"\xa1\xff",  # text that is no UTF-8
        BAD_DATA + msgspec.msgpack.encode(msgspec.msgpack.Ext(7, b"x")),
    ],
)
def test_a_job_that_cannot_be_read_is_shown_without_its_data(envelope: bytes) -> None:
    found = snapshot("q", "17", stored(envelope=envelope))
    assert (found.id, found.state, found.data) == ("17", JobState.WAITING, None)


def test_a_moment_is_in_utc_and_exact_to_the_millisecond() -> None:
    assert moment(None) is None
    assert moment(NINE + 7) == datetime(2026, 9, 21, 14, 13, 20, 7_000, UTC)


FIELDS = ["a", "k", "i", "n", "c", "b", "f", "u", "r", "x", "x1", "g", "w", "uk", "fl", "fn", "fo", "zz"]
VALUES = st.one_of(st.binary(max_size=40), st.integers().map(lambda number: str(number).encode()))


@given(
    st.sampled_from([state.value for state in JobState]),
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from(FIELDS), VALUES),
)
def test_no_record_breaks_the_look_at_a_job(state: str, envelope: bytes, record: dict[str, bytes]) -> None:
    assert snapshot("q", "17", StoredJob(state, 2, envelope, NINE, None, record)).id == "17"
    assert snapshot("q", "17", StoredJob(state, 2, ENVELOPE, NINE, None, record)).data == {"month": 11}


def test_a_number_of_attempts_that_nobody_made_costs_nothing() -> None:
    found = snapshot("q", "17", stored("completed", a=b"9" * 16, x3=codec.encode_error(JobError("ValueError", "boom"))))
    assert {attempt: error.type for attempt, error in found.errors.items()} == {3: "ValueError"}
