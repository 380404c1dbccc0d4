"""Log lines of workers: as JSON or for people, each with the job that it was written for, and no secret in any.

A worker notes the job that runs in a context variable, so every line that its handler writes, from the loop, a thread
or a process, is bound to it, whatever logger it comes from. The command configures this; a process of your own puts
`JobFilter` on a handler, or takes `configure`. streamq itself logs no data, result or text of a handler's error.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec

from streamq._engine.endpoint import hide_password
from streamq.processor import ActiveJob

LogFormat = Literal["console", "json"]
FORMAT, LEVEL = "STREAMQ_LOG_FORMAT", "STREAMQ_LOG_LEVEL"
"""Tell the processes of a worker how to log as it does."""

current_job: ContextVar[ActiveJob[Any] | None] = ContextVar("streamq_current_job", default=None)
"""The job that this task, thread or process runs."""
current_batch: ContextVar[Sequence[ActiveJob[Any]]] = ContextVar("streamq_current_batch", default=())
"""The jobs of the batch that this task or thread runs."""

MOST_IDS = 20
"""Jobs of a batch that a line names."""
LONGEST = 8_000
"""Characters of a message, a traceback or a field that are written; what is over is cut."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, ends of lines, and signs that turn text around."""
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BOUND = ("queue", "job_id", "job_ids", "attempt")


def inside_a_handler() -> bool:
    """Whether this task, thread or process runs a job, or a batch of them."""
    return current_job.get() is not None or len(current_batch.get()) > 0


class JobFilter(logging.Filter):
    """Gives a record `queue`, `job_id` and `attempt` if it is written for a job, `queue` and `job_ids` for a batch."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Bind the record; all pass."""
        job = current_job.get()
        if job is not None and not hasattr(record, "job_id"):
            record.queue, record.job_id, record.attempt = job.queue, job.id, job.attempt
        elif (batch := current_batch.get()) and not hasattr(record, "job_id"):
            more = f" and {len(batch) - MOST_IDS} more" if len(batch) > MOST_IDS else ""
            record.queue, record.job_ids = batch[0].queue, ",".join(job.id for job in batch[:MOST_IDS]) + more
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the job, what was given as `extra`, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Never raises for what a record holds."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": _clean(record.name),
            "message": _clean(_message(record)),
        }
        for name, value in vars(record).items():
            if name not in _PLAIN:
                line[_clean(name)] = value if isinstance(value, bool | int | float | None) else _clean(_text(value))
        if trace := _trace(record):
            line["traceback"] = trace
        # JSON lets these stand; a terminal, or a reader of lines, may not.
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", msgspec.json.encode(line).decode())


class ConsoleFormatter(logging.Formatter):
    """For people: time, level, logger, message, and the job in brackets. Control characters are written as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it."""
        at = self.formatTime(record)
        job = "".join(f" {name}={_clean(_text(getattr(record, name)))}" for name in _BOUND if hasattr(record, name))
        line = f"{at} {record.levelname:<7} {_escape(_clean(record.name))}: {_escape(_clean(_message(record)))}"
        line += f" [{_escape(job[1:])}]" if job else ""
        trace = _trace(record) or _clean(getattr(record, "frames", ""))
        return f"{line}\n{trace}" if trace else line


def configure(level: str, form: LogFormat = "console", stream: TextIO | None = None) -> None:
    """Make the root logger write lines of this form to `stream` (stderr by default), and processes of workers too."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    handler.addFilter(JobFilter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    os.environ[FORMAT], os.environ[LEVEL] = form, level


def configure_as_the_worker() -> None:
    """In a process of a worker: log as it does, if it was configured here."""
    form = os.environ.get(FORMAT)
    if form in ("console", "json"):
        configure(os.environ.get(LEVEL, "info"), "json" if form == "json" else "console")


def frames_of(error: BaseException) -> str:
    """Return where an exception was raised, without its text, which may hold anything."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # arguments that don't fit: logging would write them all to stderr
        return f"{record.msg} [its arguments don't fit: {type(error).__name__}]"


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    try:
        text = "".join(traceback.format_exception(*record.exc_info))
    except Exception as error:
        text = f"<its traceback can't be had: {type(error).__name__}>"
    return "\n".join(_escape(line) for line in _clean(text.rstrip()).splitlines())


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<its text can't be had: {type(error).__name__}>"


def _clean(text: str) -> str:
    """Hide passwords and cut."""
    text = hide_password(text).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … [{len(text) - LONGEST:,} characters cut]"


def _escape(text: str) -> str:
    """Write control characters as escapes: nothing that a producer sends may look like another line."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
