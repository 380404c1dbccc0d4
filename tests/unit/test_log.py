"""Log lines: bound to their job, readable by machines, and safe whatever they are given."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from streamq.job import JobError
from streamq.log import FORMAT, LEVEL, LONGEST, ConsoleFormatter, JobFilter, JsonFormatter, configure, current_job
from streamq.processor import ActiveJob

SECRET = "hunter2"  # noqa: S105
URL = f"redis://user:{SECRET}@redis.bank:6379/0"


class Control:
    progress = log = None


@pytest.fixture
def job() -> Iterator[ActiveJob[Any]]:
    job: ActiveJob[Any] = ActiveJob(Control(), "17", "send", "emails", {}, attempt=2, attempts=3, stalls=0)  # type: ignore[arg-type]
    token = current_job.set(job)
    yield job
    current_job.reset(token)


class Lines:
    """A logger of the test's own, and what its handler has written."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(formatter)
        handler.addFilter(JobFilter())
        self.logger = logging.Logger("bank", logging.DEBUG)
        self.logger.addHandler(handler)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def record(self) -> dict[str, Any]:
        (line,) = self.text.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


@pytest.fixture
def as_json() -> Lines:
    return Lines(JsonFormatter())


@pytest.fixture
def as_text() -> Lines:
    return Lines(ConsoleFormatter())


def test_a_line_for_a_job_says_which(as_json: Lines, job: ActiveJob[Any]) -> None:
    as_json.logger.info("sent %d letters", 3)
    record = as_json.record
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "level": "info", "logger": "bank", "message": "sent 3 letters", "queue": "emails", "job_id": "17", "attempt": 2,
    }  # fmt: skip


def test_a_line_for_no_job_says_none(as_json: Lines, as_text: Lines) -> None:
    as_json.logger.info("started")
    as_text.logger.info("started")
    assert "job_id" not in as_json.record
    assert as_text.text.endswith("INFO    bank: started\n")


def test_what_a_line_says_itself_comes_before_the_context(as_json: Lines, job: ActiveJob[Any]) -> None:
    as_json.logger.info("other", extra={"job_id": "18", "queue": "reports", "attempt": 1, "ran": 0.5})
    record = as_json.record
    assert (record["job_id"], record["queue"], record["attempt"], record["ran"]) == ("18", "reports", 1, 0.5)


def test_a_line_for_people_ends_with_the_job(as_text: Lines, job: ActiveJob[Any]) -> None:
    as_text.logger.warning("slow")
    assert as_text.text.endswith("WARNING bank: slow [queue=emails job_id=17 attempt=2]\n")


def test_a_traceback_is_a_field_of_the_line_or_follows_it(as_json: Lines, as_text: Lines) -> None:
    for lines in (as_json, as_text):
        try:
            raise KeyError("gone")
        except KeyError:
            lines.logger.exception("failed")
    assert as_json.record["traceback"].endswith("KeyError: 'gone'")
    assert as_text.text.splitlines()[-1] == "KeyError: 'gone'"


@pytest.mark.parametrize(
    "text",
    [
        "a\nERROR forged",
        "\x1b[31mred",
        "a\r\x00b\x7f",
        "line\u2028separator",
        "half \ud800 a pair",
        "turned \u202e around",
        "\u2066x",
    ],
)
def test_no_text_can_forge_a_line_or_move_a_terminal(as_json: Lines, as_text: Lines, text: str) -> None:
    for lines in (as_json, as_text):
        lines.logger.info(text, extra={"job_id": text, "queue": text, "attempt": text})
        assert lines.text.count("\n") == 1
        assert not set(lines.text[:-1]) & set("\n\r\x00\x1b\x7f\u2028\u202e\u2066")


def test_passwords_in_addresses_are_hidden_wherever_they_are(as_json: Lines, as_text: Lines) -> None:
    for lines in (as_json, as_text):
        try:
            raise ConnectionError(f"no way to {URL}")
        except ConnectionError:
            lines.logger.exception("at %s", URL, extra={"address": URL, "attempt": 1, "job_id": URL, "queue": "q"})
        assert "redis://user:***@redis.bank" in lines.text
        assert SECRET not in lines.text
    assert as_json.record["address"] == "redis://user:***@redis.bank:6379/0"


def test_a_long_text_is_cut_and_says_so(as_json: Lines, as_text: Lines) -> None:
    for lines in (as_json, as_text):
        lines.logger.info("x" * 1_000_000)
        assert len(lines.text) < LONGEST + 200
        assert "992,000 characters cut" in lines.text


class Hostile:
    def __str__(self) -> str:
        raise ValueError("no")


def test_what_can_not_be_written_is_no_error(
    as_json: Lines, as_text: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    for lines in (as_json, as_text):
        lines.logger.info("%d", "three")
        lines.logger.info("%s", Hostile())
        lines.logger.info("x", extra={"job_id": Hostile(), "queue": JobError("A", "b"), "attempt": float("inf")})
        assert lines.text.count("\n") == 3
    assert "its arguments don't fit: TypeError" in as_text.text
    assert capsys.readouterr().err == ""


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = before
    root.setLevel(level)


def test_configuring_replaces_what_was_there_and_tells_child_processes(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FORMAT, "")
    monkeypatch.setenv(LEVEL, "")
    stream = io.StringIO()
    configure("debug", "json", io.StringIO())
    configure("warning", "json", stream)
    logging.getLogger("bank").info("not written")
    logging.getLogger("bank").warning("written once")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["written once"]
    assert (os.environ[FORMAT], os.environ[LEVEL]) == ("json", "warning")
