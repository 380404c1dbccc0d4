"""Jobs as producers see them: ids, names, options, and what is refused before anything is sent."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import Backoff, InvalidInput, Job, JobOptions, JobState, Priority, QueueName, Retention
from streamq.job import JobError, check_job_id, check_text, queue_name

LONG_SPAN = "3.16224e+08"
NAIVE = datetime(2030, 1, 1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attempts": 0}, "attempts must be between 1 and 1,000, not 0"),
        ({"attempts": -3}, "attempts must be between 1 and 1,000, not -3"),
        ({"attempts": 1_001}, "attempts must be between 1 and 1,000, not 1001"),
        ({"attempts": 2.5}, "attempts must be a whole number, not 2.5"),
        ({"attempts": True}, "attempts must be a whole number, not True"),
        ({"delay": -1}, f"delay must be between 0 and {LONG_SPAN} seconds, not -1"),
        ({"delay": math.nan}, "delay must be seconds (a number or a timedelta), not nan"),
        ({"delay": math.inf}, f"delay must be between 0 and {LONG_SPAN} seconds, not inf"),
        ({"delay": "5"}, "delay must be seconds (a number or a timedelta), not '5'"),
        ({"delay": timedelta(seconds=-1)}, f"delay must be between 0 and {LONG_SPAN} seconds, not -1.0"),
        (
            {"run_at": NAIVE},
            f"run_at must have a time zone: {NAIVE!r} is naive",
        ),
        ({"run_at": 1_900_000_000}, "run_at must be a datetime, not 1900000000"),
        ({"run_at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 5}, "give delay or run_at, not both"),
        ({"timeout": 0}, f"timeout must be between 0.001 and {LONG_SPAN} seconds, not 0"),
        ({"timeout": math.nan}, "timeout must be seconds (a number or a timedelta), not nan"),
        ({"priority": 0}, "priority must be 1 (critical) to 4 (low), not 0"),
        ({"priority": 5}, "priority must be 1 (critical) to 4 (low), not 5"),
        ({"priority": "high"}, "priority must be 1 (critical) to 4 (low), not 'high'"),
        ({"priority": None}, "priority must be 1 (critical) to 4 (low), not None"),
        ({"backoff": 5}, "backoff must be a Backoff, not 5"),
        ({"keep_completed": 100}, "keep_completed must be a Retention, not 100"),
        ({"keep_failed": True}, "keep_failed must be a Retention, not True"),
        ({"job_id": ""}, "job_id must not be empty"),
        ({"job_id": 17}, "job_id must be text, not int"),
        ({"job_id": "17"}, "job_id must not be all digits (generated ids are): '17'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_with_its_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        JobOptions(**options)
    assert str(raised.value) == text


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="retries"):
        JobOptions(retries=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "job name must not be empty"),
        ("a\nb", "job name must not contain control characters or lone surrogates: 'a\\nb'"),
        ("a\x00", "job name must not contain control characters or lone surrogates: 'a\\x00'"),
        ("\x7f", "job name must not contain control characters or lone surrogates: '\\x7f'"),
        ("a\x85", "job name must not contain control characters or lone surrogates: 'a\\x85'"),
        ("a\u2028b", "job name must not contain control characters or lone surrogates: 'a\\u2028b'"),
        ("a\ud800", "job name must not contain control characters or lone surrogates: 'a\\ud800'"),
        ("a{b", "job name must not contain braces (they mark a key's hash slot): 'a{b'"),
        ("}", "job name must not contain braces (they mark a key's hash slot): '}'"),
        ("x" * 257, "job name takes 257 bytes, over the limit of 256"),
        ("é" * 129, "job name takes 258 bytes, over the limit of 256"),
        (None, "job name must be text, not NoneType"),
        (b"name", "job name must be text, not bytes"),
    ],
)
def test_a_name_that_could_break_a_key_is_refused(value: Any, text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_text("job name", value, 256)
    assert str(raised.value) == text


@pytest.mark.parametrize("value", ["a", "a:b", "a b", "é" * 128, "x" * 256, "*?[a]", "1a", "日本"])
def test_other_names_are_taken_as_they_are(value: str) -> None:
    assert check_text("job name", value, 256) == value


@pytest.mark.parametrize("value", ["{bank}reports", "{bank}a b", "{b:c}é", "{a}" + "x" * 252])
def test_a_queues_name_may_begin_with_a_tag(value: str) -> None:
    assert queue_name(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{", "queue name must not contain braces (they mark a key's hash slot): '{'"),
        ("}", "queue name must not contain braces (they mark a key's hash slot): '}'"),
        ("{}", "queue name must not contain braces (they mark a key's hash slot): '{}'"),
        ("{}a", "queue name must not contain braces (they mark a key's hash slot): '{}a'"),
        ("{a}", "queue name must not contain braces (they mark a key's hash slot): '{a}'"),
        ("a{b}c", "queue name must not contain braces (they mark a key's hash slot): 'a{b}c'"),
        ("{a}b{c}", "queue name must not contain braces (they mark a key's hash slot): '{a}b{c}'"),
        ("{a}job:1", "queue name must not contain ':' behind its tag: '{a}job:1'"),
        ("{a\n}b", "queue name must not contain control characters or lone surrogates: 'a\\nb'"),
        ("{a}" + "x" * 254, "queue name takes 255 bytes, over the limit of 254"),
    ],
)
def test_other_braces_in_a_queues_name_are_refused(value: str, text: str) -> None:
    """R98."""
    with pytest.raises(InvalidInput) as raised:
        queue_name(value)
    assert str(raised.value) == text


@pytest.mark.parametrize("value", ["a#1", "a#17", "{a#1}b", "#0"])
def test_no_queue_is_named_as_a_shard_of_another(value: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        queue_name(value)
    assert str(raised.value) == f"queue name must not end in '#' and a number, nor its tag (shards' keys do): {value!r}"


@pytest.mark.parametrize("value", ["a#", "#1a", "a#1b", "{a}b#1"])
def test_a_number_sign_elsewhere_is_as_good_as_any(value: str) -> None:
    assert queue_name(value) == value


@given(st.integers(min_value=0))
def test_no_custom_id_can_ever_equal_a_generated_one(number: int) -> None:
    with pytest.raises(InvalidInput, match="must not be all digits"):
        check_job_id(str(number))


@pytest.mark.parametrize("value", ["-17", "17a", "1.7", "17-0", "٣", "²"])
def test_an_id_that_only_looks_like_a_number_is_no_generated_one(value: str) -> None:
    assert check_job_id(value) == value


@given(st.floats(0, 1e6))
def test_a_delay_is_rounded_up_so_that_nothing_starts_early(delay: float) -> None:
    ms = JobOptions(delay=delay).delay_ms
    assert delay * 1000 <= ms <= delay * 1000 + 1


def test_spans_may_be_timedeltas() -> None:
    options = JobOptions(delay=timedelta(seconds=1.5), timeout=timedelta(minutes=2))
    assert (options.delay_ms, options.timeout_seconds) == (1_500, 120.0)


def test_options_hold_what_they_were_given() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    options = JobOptions(
        priority=Priority.HIGH, attempts=5, run_at=moment, backoff=Backoff.fixed(1), job_id="mine",
        keep_completed=Retention(0), keep_failed=Retention(1, 60),
    )  # fmt: skip
    assert (options.priority, options.attempts, options.run_at, options.job_id) == (2, 5, moment, "mine")
    assert options.timeout_seconds is None


def test_a_state_is_final_or_it_is_not() -> None:
    assert {state for state in JobState if state.ended} == {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}


def test_the_banks_queues_are_seven_plain_names() -> None:
    names = ["reports", "emails", "imports", "exports", "notifications", "calculations", "integrations"]
    assert [str(name) for name in QueueName] == names


def test_an_error_reads_like_the_last_line_of_a_traceback() -> None:
    assert str(JobError("ValueError", "boom")) == "ValueError: boom"
    assert str(JobError("KeyboardInterrupt", "")) == "KeyboardInterrupt"


def test_a_handle_knows_its_job_and_where_it_came_from() -> None:
    class Source:
        name = "reports"

    job = Job(Source(), "17", "generate")  # type: ignore[arg-type]
    assert (job.id, job.name, job.queue, job.is_new) == ("17", "generate", "reports", True)
    assert repr(job) == "<Job reports/17 generate>"
