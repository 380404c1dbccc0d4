"""How a failure is stored: the type, the text and the traceback of an exception, each cut at a limit.

Jobs may fail by the thousand in one moment, so this is quick: the library's way to write a traceback takes several
times as long as the rest of an attempt, since it looks each file up anew and finds the place in each line.
"""

from __future__ import annotations

import itertools
import linecache
import traceback
from functools import lru_cache

from streamq.job import JobError

MESSAGE_LIMIT = 2_000
TRACEBACK_LIMIT = 8_000
TRACEBACK_FRAMES = 20
"""The innermost ones of each exception in a chain."""
SHOWN_ALIKE = 3
"""Frames in a row that look the same and are all shown: of a recursion, say."""
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def describe(error: BaseException) -> JobError:
    """Return an exception as it is stored: type, text and traceback, each cut at a limit. Never raises."""
    described = getattr(error, "described", None)
    if isinstance(described, JobError):  # it was raised in another process
        return described
    kind = type(error).__name__[:200]
    try:
        message = str(error)
    except BaseException as again:
        message = f"<its text can't be had: {type(again).__name__}>"
    try:
        trace = _trace(error)
    except BaseException as again:
        trace = f"<its traceback can't be had: {type(again).__name__}>"
    return JobError(kind, _cut(message, MESSAGE_LIMIT), _cut(trace, TRACEBACK_LIMIT))


def _trace(error: BaseException) -> str:
    """Return the traceback of a chain of exceptions, the first one first, as the library would write it."""
    chain, between, seen = [error], [""], {id(error)}
    while True:
        last = chain[-1]
        if isinstance(last, BaseExceptionGroup):
            return _trace_of_groups(error)
        before, words = last.__cause__, CAUSE
        if before is None and not last.__suppress_context__:
            before, words = last.__context__, CONTEXT
        if before is None or id(before) in seen:
            break
        seen.add(id(before))
        chain.append(before)
        between.append(words)
    return "".join(_link(link) + words for link, words in zip(reversed(chain), reversed(between), strict=True))


def _link(error: BaseException) -> str:
    """Return the traceback of one exception alone."""
    lines, at = [], error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        linecache.lazycache(code.co_filename, at.tb_frame.f_globals)
        lines.append(_line(code.co_filename, code.co_name, at.tb_lineno))
        at = at.tb_next
    if not lines:
        return _last_line(error)
    lines = lines[-TRACEBACK_FRAMES:]
    if len(lines) > SHOWN_ALIKE:
        lines = [line for _, alike in itertools.groupby(lines) for line in _shorten(list(alike))]
    return f"Traceback (most recent call last):\n{''.join(lines)}{_last_line(error)}"


@lru_cache(maxsize=1_000)
def _line(file: str, name: str, number: int) -> str:
    """Return what a traceback says of a place in the code, as its file was when it was first asked for."""
    code = linecache.getline(file, number).strip()
    return f'  File "{file}", line {number}, in {name}\n' + (f"    {code}\n" if code else "")


def _shorten(alike: list[str]) -> list[str]:
    more = len(alike) - SHOWN_ALIKE
    if more <= 0:
        return alike
    return [*alike[:SHOWN_ALIKE], f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]\n"]


def _last_line(error: BaseException) -> str:
    kind = type(error)
    if isinstance(error, SyntaxError) or getattr(error, "__notes__", None):
        return "".join(traceback.format_exception_only(error))
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        text = str(error)
    except BaseException:
        text = "<exception str() failed>"
    return f"{name}: {text}\n" if text else f"{name}\n"


def _trace_of_groups(error: BaseException) -> str:
    """Return the traceback of exceptions in groups: the library draws those, here without the marks below lines."""
    told = traceback.TracebackException.from_exception(error, limit=-TRACEBACK_FRAMES, compact=True)
    links: list[traceback.TracebackException | None] = [told]
    while links:
        if (link := links.pop()) is not None:
            for frame in link.stack:
                frame.colno = None
            links += [link.__cause__, link.__context__, *(link.exceptions or ())]
    return "".join(told.format())


def _cut(text: str, limit: int) -> str:
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … [{len(text) - limit:,} characters cut] … {text[-half:]}"
