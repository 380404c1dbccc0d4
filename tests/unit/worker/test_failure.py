"""How an exception is stored: type, text and traceback."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from streamq._engine import codec
from streamq.worker.failure import MESSAGE_LIMIT, TRACEBACK_LIMIT, describe


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_error_is_stored_with_its_type_text_and_traceback() -> None:
    found = describe(raised(ValueError("boom")))
    assert (found.type, found.message) == ("ValueError", "boom")
    assert "in raised" in found.traceback
    assert found.traceback.endswith("ValueError: boom\n")


def test_a_long_text_is_cut_in_its_middle() -> None:
    found = describe(ValueError("a" * 5_000 + "b" * 5_000))
    assert found.message.startswith("a" * 1_000 + " … [8,000 characters cut] … ")
    assert found.message.endswith("b" * 1_000)
    assert len(found.message) < MESSAGE_LIMIT + 100
    assert len(found.traceback) < TRACEBACK_LIMIT + 100


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Deadly(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


@pytest.mark.parametrize(("error", "why"), [(Unspeakable(), "RuntimeError"), (Deadly(), "SystemExit")])
def test_an_error_whose_text_cannot_be_had_is_stored_all_the_same(error: Exception, why: str) -> None:
    found = describe(error)
    assert found.type == type(error).__name__
    assert found.message == f"<its text can't be had: {why}>"


def test_lone_surrogates_in_a_text_are_replaced() -> None:
    found = describe(ValueError("a\ud800b"))
    assert found.message == "a?b"
    codec.encode_error(found)


def test_a_deep_traceback_keeps_its_innermost_frames() -> None:
    def deeper(n: int) -> None:
        if n:
            deeper(n - 1)
        raise ValueError("deep")

    try:
        deeper(100)
    except ValueError as error:
        found = describe(error)
    assert found.traceback.count("in deeper") <= 20


def test_an_overlong_type_name_is_cut() -> None:
    assert len(describe(type("E" * 1_000, (Exception,), {})()).type) == 200


def of_a_cause() -> None:
    try:
        raise ValueError("first")
    except ValueError as error:
        raise KeyError("second") from error


def in_a_handler() -> None:
    try:
        raised_again()
    except KeyError:
        raise SystemExit  # noqa: B904 - so that it has a context


def raised_again() -> None:
    try:
        raise OSError(2, "no such file")
    except OSError:
        raise KeyError from None


def without_a_word() -> None:
    raise ValueError


def with_a_note() -> None:
    error = ValueError("noted")
    error.add_note("by somebody")
    raise error


def of_bad_code() -> None:
    compile("a b", "<text>", "exec")


def recursive() -> None:
    recursive()


def of_many() -> None:
    try:
        raise ValueError("one of them")
    except ValueError as error:
        raise ExceptionGroup("some", [error, KeyError("another")]) from error


class Odd(Exception):
    """Its name has a module, as the errors of every plugin do."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


def that_is_odd() -> None:
    try:
        raise Odd("inner")
    except Odd as error:
        raise Odd("outer") from error


def without_marks(trace: str) -> list[str]:
    return [line for line in trace.splitlines() if "^" not in line or not set(line) <= set(" |~^")]


@pytest.mark.parametrize(
    "fail",
    [of_a_cause, in_a_handler, raised_again, without_a_word, with_a_note, of_bad_code, recursive, of_many, that_is_odd],
)
def test_a_traceback_reads_as_the_library_writes_it_less_the_marks(fail: Callable[[], None]) -> None:
    try:
        fail()
    except BaseException as error:
        library = "".join(traceback.format_exception(error, limit=-20))
        found = describe(error).traceback
    assert without_marks(found) == without_marks(library)


def test_exceptions_that_are_each_others_cause_end_somewhere() -> None:
    first, second = raised(ValueError("first")), raised(ValueError("second"))
    first.__cause__, second.__cause__ = second, first
    assert describe(first).traceback.count("ValueError: ") == 2


def test_an_error_without_text_in_a_chain_leaves_the_others_readable() -> None:
    outer = raised(ValueError("outer"))
    outer.__cause__ = raised(Deadly())
    found = describe(outer)
    assert "Deadly: <exception str() failed>" in found.traceback
    assert found.traceback.endswith("ValueError: outer\n")
