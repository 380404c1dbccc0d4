"""The public face: every name that is promised can be imported from `streamq`, and says what it is for."""

from __future__ import annotations

import inspect

import streamq

CLASSES = """
    Queue Worker Job JobState JobOptions Priority QueueName Backoff Retention RateLimit Processors ActiveJob Settings
    Unrecoverable RetryAfter Snooze StreamqError
"""
FUNCTIONS = """
    get_queue add_job create_worker create_queue_events get_queue_stats get_job remove_job retry_job clean_queue
    pause_queue resume_queue close_all_queues
"""


def test_every_promised_name_is_there() -> None:
    assert {*CLASSES.split(), *FUNCTIONS.split()} <= set(streamq.__all__)


def test_all_lists_what_is_there_sorted_and_once() -> None:
    assert streamq.__all__ == sorted(set(streamq.__all__))
    assert all(hasattr(streamq, name) for name in streamq.__all__)


def test_every_public_name_says_what_it_is_for() -> None:
    for name in streamq.__all__:
        found = getattr(streamq, name)
        assert inspect.getdoc(found), name
        for method, function in vars(found).items() if inspect.isclass(found) else ():
            if inspect.isfunction(function) and not method.startswith("_"):
                assert inspect.getdoc(function), f"{name}.{method}"
