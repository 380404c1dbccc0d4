"""Settings from the environment: names, precedence, bad values' texts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamq import InvalidInput, Settings
from streamq.settings import redis_url

DEFAULTS = Settings()


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, "redis://localhost:6379/0"),
        ({"REDIS_HOST": "cache", "REDIS_PORT": "7000", "REDIS_DB": "2"}, "redis://cache:7000/2"),
        ({"REDIS_PASSWORD": "p@ss/word:1"}, "redis://:p%40ss%2Fword%3A1@localhost:6379/0"),
        ({"REDIS_USERNAME": "bank", "REDIS_PASSWORD": "secret"}, "redis://bank:secret@localhost:6379/0"),
        ({"REDIS_URL": "rediss://r:1/3", "REDIS_HOST": "other", "REDIS_DB": "9"}, "rediss://r:1/3"),
        ({"REDIS_URL": "", "REDIS_HOST": "other"}, "redis://other:6379/0"),
        ({"REDIS_HOST": "", "REDIS_PORT": "", "REDIS_DB": ""}, "redis://localhost:6379/0"),
    ],
)
def test_the_address_comes_from_the_url_or_from_its_parts(env: dict[str, str], url: str) -> None:
    assert redis_url(env) == url
    assert Settings.from_env(env).redis_url == url


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("QUEUE_CONCURRENCY", "20", "concurrency", 20),
        ("JOB_RETRY_ATTEMPTS", "7", "attempts", 7),
        ("JOB_RETRY_DELAY", "1500", "retry_delay", 1.5),
        ("JOB_RETRY_DELAY", "0", "retry_delay", 0.0),
        ("STREAMQ_RETRY_DELAY", "2.5", "retry_delay", 2.5),
        ("STREAMQ_LEASE", "3.5", "lease", 3.5),
        ("STREAMQ_GRACE", " 10 ", "grace", 10.0),
        ("STREAMQ_MAX_STALLS", "1", "max_stalls", 1),
        ("STREAMQ_MAX_PAYLOAD", "2000000", "max_payload", 2_000_000),
        ("STREAMQ_EVENTS_CAP", "50", "events_cap", 50),
        ("STREAMQ_DEAD_CAP", "50", "dead_cap", 50),
        ("STREAMQ_LOG_CAP", "50", "log_cap", 50),
        ("STREAMQ_TIMEOUT", "1", "timeout", 1.0),
        ("STREAMQ_THREADS", "4", "threads", 4),
    ],
)
def test_a_variable_sets_its_field_and_no_other(name: str, value: str, field: str, expected: Any) -> None:
    found = Settings.from_env({name: value})
    assert getattr(found, field) == expected
    assert msgspec.structs.replace(found, **{field: getattr(DEFAULTS, field)}) == DEFAULTS


def test_every_field_that_a_variable_can_hold_has_one() -> None:
    named = {"concurrency": "QUEUE_CONCURRENCY", "attempts": "JOB_RETRY_ATTEMPTS"}
    for field in msgspec.structs.fields(Settings):
        if field.name in ("redis_url", "keep_completed", "keep_failed", "keep_cancelled"):
            continue
        name = named.get(field.name, f"STREAMQ_{field.name.upper()}")
        assert str(getattr(Settings.from_env({name: "3"}), field.name)) in ("3", "3.0"), name


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    found = Settings.from_env({})
    assert (found.concurrency, found.attempts, found.retry_delay, found.lease) == (5, 3, 5.0, 15.0)
    assert (found.keep_completed.count, found.keep_completed.age) == (100, 86_400)
    assert (found.keep_failed.count, found.keep_failed.age) == (500, 604_800)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_env({"QUEUE_CONCURRENCY": "", "JOB_RETRY_DELAY": ""}) == DEFAULTS


def test_the_milliseconds_of_the_predecessor_win_over_the_seconds() -> None:
    assert Settings.from_env({"JOB_RETRY_DELAY": "100", "STREAMQ_RETRY_DELAY": "9"}).retry_delay == 0.1


def test_the_process_environment_is_read_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_CONCURRENCY", "9")
    assert Settings.from_env().concurrency == 9


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"QUEUE_CONCURRENCY": "many"}, "QUEUE_CONCURRENCY='many' in the environment: Expected `int`, got `str`"),
        ({"QUEUE_CONCURRENCY": "0"}, "QUEUE_CONCURRENCY='0' in the environment must be at least 1"),
        ({"JOB_RETRY_ATTEMPTS": "0"}, "JOB_RETRY_ATTEMPTS='0' in the environment must be at least 1"),
        ({"JOB_RETRY_DELAY": "soon"}, "JOB_RETRY_DELAY='soon' must be milliseconds"),
        ({"JOB_RETRY_DELAY": "-1"}, "JOB_RETRY_DELAY='-1' in the environment must be at least 0"),
        ({"JOB_RETRY_DELAY": "nan"}, "JOB_RETRY_DELAY='nan' in the environment must be at least 0"),
        ({"STREAMQ_LEASE": "0.1"}, "STREAMQ_LEASE='0.1' in the environment must be at least 0.5"),
        ({"STREAMQ_TIMEOUT": "0"}, "STREAMQ_TIMEOUT='0' in the environment must be at least 0.1"),
        ({"STREAMQ_MAX_STALLS": "0"}, "STREAMQ_MAX_STALLS='0' in the environment must be at least 1"),
        ({"STREAMQ_THREADS": "-1"}, "STREAMQ_THREADS='-1' in the environment must be at least 1"),
        ({"STREAMQ_LOG_CAP": "0"}, "STREAMQ_LOG_CAP='0' in the environment must be at least 1"),
        ({"STREAMQ_LEASE": "inf"}, "STREAMQ_LEASE='inf' in the environment must be finite"),
        ({"REDIS_PORT": "six"}, "REDIS_PORT='six' in the environment must be a whole number"),
        ({"REDIS_DB": "-1"}, "REDIS_DB='-1' in the environment must be a whole number"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(env: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Settings.from_env(env)
    assert str(raised.value) == text


@pytest.mark.parametrize("env", [{"REDIS_PORT": "six"}, {"STREAMQ_LEASE": "x"}, {"QUEUE_CONCURRENCY": "0"}])
def test_no_complaint_holds_a_password(env: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as raised:
        Settings.from_env({"REDIS_PASSWORD": "hunter2", **env})
    assert "hunter2" not in str(raised.value)


def test_the_default_wait_between_attempts_comes_from_the_retry_delay() -> None:
    backoff = Settings(retry_delay=2).backoff
    assert (backoff.base, backoff.factor, backoff.max_delay) == (2.0, 2, 3_600)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="lease_ms"):
        Settings(lease_ms=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"concurrency": 0}, "concurrency must be at least 1, not 0"),
        ({"lease": float("nan")}, "lease must be at least 0.5, not nan"),
        ({"grace": float("inf")}, "grace must be finite, not inf"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
    ],
)
def test_a_bad_setting_is_refused_with_its_name(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Settings(**fields)
    assert str(raised.value) == text
