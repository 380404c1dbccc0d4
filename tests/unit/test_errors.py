"""Every error: its place in the tree, its text, and that it survives pickling."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from streamq import errors
from streamq.errors import InvalidInput, StreamqError

SAMPLES: list[tuple[StreamqError, str]] = [
    (errors.InvalidInput("attempts must be between 1 and 1,000, not 0"), "attempts must be between 1 and 1,000, not 0"),
    (errors.UnencodableData("data can't be encoded"), "data can't be encoded"),
    (
        errors.PayloadTooLarge("data", 2_000_000, 1_048_576),
        "data takes 2,000,000 bytes, over the limit of 1,048,576 (STREAMQ_MAX_PAYLOAD)",
    ),
    (errors.StoreUnavailable("Redis did not answer in time"), "Redis did not answer in time"),
    (errors.StoreRefused("Redis refused: OOM"), "Redis refused: OOM"),
    (errors.OffloadUnavailable("a payload can't be stored"), "a payload can't be stored"),
    (errors.QueueFull("reports", 1_200, 1_000), "queue reports holds 1,200 jobs, its limit is 1,000"),
    (
        errors.WrongShards("reports", 8, 3),
        "queue reports has 8 shards, not 3: give that number, or set_shards(3)",
    ),
    (
        errors.WrongShards("reports", 0, 3),
        "queue reports was used without shards, not with 3: change that by set_shards(3)",
    ),
    (
        errors.PartlyAdded("reports", ("1", None), "away"),
        "1 of 2 jobs are in queue reports; the shard of the others: away",
    ),
    (errors.QueueBusy("reports", 3), "queue reports runs 3 jobs; stop its workers first, or force it"),
    (errors.JobNotFound("17"), "job 17 is unknown: it never existed, was removed, or its retention is over"),
    (errors.JobFailed("17", "ValueError: boom"), "job 17 failed: ValueError: boom"),
    (errors.JobCancelled("17"), "job 17 was cancelled or removed before it ended"),
    (errors.JobExists("17"), "job 17 exists already"),
    (errors.DuplicateJob("17", "rebuild:42"), "job 17 holds the unique key 'rebuild:42'"),
    (errors.WrongState("17", "retry", "active"), "cannot retry job 17: it is active"),
    (errors.ResultNotKept("17"), "job 17 completed, but its result was not kept (keep_completed)"),
    (errors.JobExpired("17", 61.5, 60.0), "job 17 expired: it waited 61.5 s, and was to start within 60 s"),
    (errors.StaleLease("17", "17-0"), "job 17: entry 17-0 is no longer ours"),
    (
        errors.ScheduleNotFound("nightly"),
        "schedule nightly is unknown: it never existed, or was removed",
    ),
    (errors.UnknownProcessor("no worker has a processor"), "no worker has a processor"),
    (errors.UnreadablePayload("no worker has a processor"), "no worker has a processor"),
    (errors.ResultNotEncodable("the result can't be encoded"), "the result can't be encoded"),
    (errors.ResultTooLarge("the result is too large"), "the result is too large"),
    (errors.BadBatchResult("it returned 2 results for 3 jobs"), "it returned 2 results for 3 jobs"),
    (errors.HandlerTimeout("it ran longer than its timeout of 5 s"), "it ran longer than its timeout of 5 s"),
    (errors.ServerNotFound("no server"), "no server"),
    (errors.Unrecoverable("the account is closed"), "the account is closed"),
    (errors.RetryAfter(2.5), "again in 2.5 s"),
    (errors.RetryAfter(2.5, "busy"), "busy"),
    (errors.Snooze(60), "again in 60 s"),
    (errors.RateLimited(30), "again in 30 s"),
    (errors.WaitForChildren("ab12", 2, 1_500, "1:2:3:4:5"), "runs again when its 1,500 children have ended"),
]


@pytest.mark.parametrize(("error", "text"), SAMPLES, ids=lambda v: type(v).__name__ if isinstance(v, Exception) else "")
def test_an_error_says_what_happened(error: StreamqError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("error", [error for error, _ in SAMPLES], ids=lambda e: type(e).__name__)
def test_an_error_survives_pickling(error: StreamqError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))


def all_errors() -> set[str]:
    return {
        name
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception) and not name.startswith("_")
    }


def test_every_error_is_sampled_here() -> None:
    grouping = {"StreamqError", "StoreError", "JobError", "ProcessorError", "Verdict"}
    assert {type(error).__name__ for error, _ in SAMPLES} | grouping == all_errors()


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)([A-Z]\w+)", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"
    assert set(drawn) == all_errors()
    for name, parent in drawn.items():
        bases = [kind.__name__.lstrip("_") for kind in getattr(errors, name).__mro__[1:]]
        assert parent in bases, f"{name} is drawn below {parent}"


def test_bad_input_is_a_value_error_and_an_absent_store_a_connection_error() -> None:
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.StoreUnavailable, ConnectionError)


@pytest.mark.parametrize("kind", [errors.RetryAfter, errors.Snooze, errors.RateLimited])
@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_wait_that_makes_no_sense_is_refused(kind: type[errors.Snooze], seconds: float) -> None:
    with pytest.raises(InvalidInput, match=f"{kind.__name__} takes seconds of 0 or more, not"):
        kind(seconds)
