"""Retry-After in both of its forms, and the keys under which work is recognised."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from streamq.errors import Unrecoverable
from streamq.processor import ActiveJob
from streamq.processors.integrations_http import LONGEST_WAIT, retry_after
from streamq.processors.integrations_once import work_key

NOON = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("99999999999999999999", LONGEST_WAIT),
        ("Sat, 01 Mar 2025 12:00:30 GMT", 30),
        ("Sat, 01 Mar 2025 11:00:00 GMT", 0),
        ("Sat, 01 Mar 2025 12:00:30 -0000", 30),
        ("Sat, 01 Mar 2055 12:00:00 GMT", LONGEST_WAIT),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=NOON) == seconds


def job(data: Any, job_id: str = "1", attempt: int = 1) -> ActiveJob[Any]:
    class Deaf:
        async def progress(self, value: Any) -> None: ...
        async def log(self, line: str) -> None: ...

    return ActiveJob(Deaf(), job_id, "send", "queue", data, attempt=attempt, attempts=3, stalls=0)


def test_every_attempt_of_a_job_has_the_same_key() -> None:
    assert work_key(job({"a": 1}, attempt=1)) == work_key(job({"a": 1}, attempt=2))


def test_another_job_or_another_content_has_another_key() -> None:
    assert len({work_key(job({"a": 1})), work_key(job({"a": 2})), work_key(job({"a": 1}, job_id="2"))}) == 3


def test_a_given_key_counts_whatever_the_job() -> None:
    assert work_key(job(1), "pay-7") == work_key(job(2, job_id="9"), "pay-7") == "send:pay-7"


@pytest.mark.parametrize("key", ["", "a\r\nX-Evil: 1", "x" * 201])
def test_a_given_key_that_could_break_a_header_is_refused(key: str) -> None:
    with pytest.raises(Unrecoverable, match="idempotencyKey"):
        work_key(job(1), key)
