"""What becomes of a job when an attempt has ended, for every kind of ending."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamq import Backoff, RateLimited, Retention, RetryAfter, Settings, Snooze, Unrecoverable
from streamq._engine import codec
from streamq._engine.transitions import Claim, Outcome
from streamq.processor import Processor
from streamq.worker.verdict import MAX_RELEASES, Terms, Verdicts

SETTINGS = Settings(attempts=3, retry_delay=5, max_payload=1_000)
VERDICTS = Verdicts(SETTINGS)


def claim(made: int = 0, releases: int = 0) -> Claim:
    found = Claim(2, "17-0", "17", b"", 0)
    found.attempts_made, found.releases, found.recorded_id = made, releases, "17"
    return found


def terms(**said: Any) -> Terms:
    defaults = {
        "attempts": 3, "backoff": Backoff.fixed(2), "timeout": None, "keep_completed": Retention(10, 60),
        "keep_failed": Retention(20, 120),
    }  # fmt: skip
    return Terms(**{**defaults, **said})


def text_of(outcome: Outcome) -> str:
    return str(codec.decode_error(outcome.body))


def test_a_result_completes_the_job() -> None:
    outcome = VERDICTS.done(claim(made=1), terms(), {"rows": 5}, 99)
    assert outcome == Outcome("done", 2, "17-0", "17", codec.encode_result({"rows": 5}, 100), 10, 60_000, 99, 2)


def test_no_result_takes_no_bytes() -> None:
    assert VERDICTS.done(claim(), terms(), None, 0).body == b""


def test_a_result_that_nothing_keeps_is_not_sent() -> None:
    assert VERDICTS.done(claim(), terms(keep_completed=Retention(0)), "x", 0).body == b""


@pytest.mark.parametrize(
    ("result", "text"),
    [(object(), "ResultNotEncodable: the result can't be encoded"), ("x" * 2_000, "ResultTooLarge: the result takes")],
)
def test_a_result_that_cannot_be_stored_fails_the_job_and_is_not_retried(result: Any, text: str) -> None:
    outcome = VERDICTS.done(claim(), terms(attempts=100), result, 0)
    assert outcome.kind == "fail"
    assert text_of(outcome).startswith(text)


def test_a_result_that_cannot_be_stored_fails_the_job_even_if_nothing_would_keep_it() -> None:
    assert VERDICTS.done(claim(), terms(keep_completed=Retention(0)), object(), 0).kind == "fail"


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boom"), asyncio.CancelledError(), SystemExit(1), KeyboardInterrupt(), StopIteration(),
        GeneratorExit(), StopAsyncIteration(), MemoryError(), RecursionError(), TimeoutError(), Odd(),
        ExceptionGroup("several", [ValueError()]),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_a_handler_raises_uses_an_attempt(error: BaseException) -> None:
    first = VERDICTS.failed(claim(made=0), terms(), error, 99)
    assert (first.kind, first.a, first.attempts_made, first.started_ms) == ("retry", 2_000, 1, 99)
    assert text_of(first).startswith(type(error).__name__)
    last = VERDICTS.failed(claim(made=2), terms(), error, 99)
    assert (last.kind, last.a, last.b, last.attempts_made) == ("fail", 20, 120_000, 3)


def test_one_attempt_means_no_retry() -> None:
    assert VERDICTS.failed(claim(), terms(attempts=1), ValueError(), 0).kind == "fail"


def test_an_unrecoverable_error_fails_at_once() -> None:
    outcome = VERDICTS.failed(claim(), terms(attempts=100), Unrecoverable("closed"), 0)
    assert (outcome.kind, outcome.attempts_made) == ("fail", 1)
    assert text_of(outcome) == "Unrecoverable: closed"


def test_a_job_without_terms_fails_at_once_with_the_workers_retention() -> None:
    outcome = VERDICTS.failed(claim(), None, codec.BadEnvelope("not a job"), 0)
    assert (outcome.kind, outcome.a, outcome.b) == ("fail", SETTINGS.keep_failed.count, SETTINGS.keep_failed.age_ms)


def test_retry_after_sets_the_wait_and_uses_an_attempt() -> None:
    outcome = VERDICTS.failed(claim(), terms(), RetryAfter(0.0015), 0)
    assert (outcome.kind, outcome.a, outcome.attempts_made) == ("retry", 2, 1)
    assert VERDICTS.failed(claim(made=2), terms(), RetryAfter(5), 0).kind == "fail"


def test_a_snooze_uses_no_attempt_and_raises_no_counter() -> None:
    outcome = VERDICTS.failed(claim(made=2), terms(), Snooze(7), 99)
    assert (outcome.kind, outcome.a, outcome.b, outcome.attempts_made) == ("release", 7_000, "", 2)


def test_a_rate_limited_job_uses_no_attempt() -> None:
    outcome = VERDICTS.failed(claim(made=2), terms(), RateLimited(7), 99)
    assert (outcome.a, outcome.b, outcome.attempts_made) == (7_000, "", 2)
    assert outcome.kind in ("hold", "release")


def test_a_release_counts_as_an_interruption_and_not_as_an_attempt() -> None:
    outcome = VERDICTS.released(claim(made=1))
    assert outcome == Outcome("release", 2, "17-0", "17", b"", 0, "i", 0, 1)


def test_a_job_that_nobody_here_knows_is_handed_on_later_and_later_then_failed() -> None:
    delays = [VERDICTS.unknown(claim(releases=n), "odd").a for n in range(MAX_RELEASES)]
    assert delays[:4] == [1_000, 2_000, 4_000, 8_000]
    assert delays == sorted(delays)
    assert max(delays) == 300_000
    outcome = VERDICTS.unknown(claim(releases=MAX_RELEASES), "odd")
    assert outcome.kind == "fail"
    assert text_of(outcome) == "UnknownProcessor: no worker has a processor for 'odd': handed on 20 times"


def test_a_processors_own_backoff_function_is_asked() -> None:
    asked: list[tuple[int, BaseException]] = []

    def backoff(attempt: int, error: BaseException) -> float:
        asked.append((attempt, error))
        return 12.5

    error = ValueError("boom")
    assert VERDICTS.failed(claim(made=1), terms(backoff=backoff), error, 0).a == 12_500
    assert asked == [(2, error)]


@pytest.mark.parametrize("answer", [-1, float("nan"), float("inf"), "soon", None])
def test_a_backoff_function_that_answers_nonsense_is_not_believed(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = VERDICTS.failed(claim(), terms(backoff=lambda attempt, error: answer), ValueError(), 0)
    assert outcome.kind == "retry"
    assert 4_500 <= outcome.a <= 5_000
    assert "a processor's backoff function failed" in caplog.text


def test_a_backoff_function_that_raises_does_not_lose_the_job(caplog: pytest.LogCaptureFixture) -> None:
    outcome = VERDICTS.failed(claim(), terms(backoff=lambda attempt, error: 1 / 0), ValueError(), 0)
    assert outcome.kind == "retry"
    assert "ZeroDivisionError" in caplog.text


def test_what_a_job_says_comes_before_its_processor_and_that_before_the_settings() -> None:
    async def handle(job: Any) -> None: ...

    bare = Processor(name="a", handler=handle)
    own = Processor(name="a", handler=handle, attempts=7, backoff=Backoff.fixed(7), timeout=7.0)
    said = codec.EnvelopeOptions(9, Backoff.fixed(9), 9.0, Retention(9), Retention(8))
    assert Terms.of(None, bare, SETTINGS) == Terms(
        3, SETTINGS.backoff, None, SETTINGS.keep_completed, SETTINGS.keep_failed
    )
    assert Terms.of(None, own, SETTINGS).attempts == 7
    assert Terms.of(said, own, SETTINGS) == Terms(9, Backoff.fixed(9), 9.0, Retention(9), Retention(8))


def test_the_outcome_of_a_job_without_a_record_goes_without_its_id() -> None:
    plain = claim()
    plain.recorded_id = ""
    outcome = VERDICTS.done(plain, terms(), None, 99)
    assert (outcome.job_id, outcome.of) == ("", "17")
