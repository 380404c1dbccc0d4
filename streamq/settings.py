"""Settings from the environment, read once when asked for; nothing is read at import.

`REDIS_URL` wins over `REDIS_HOST`, `REDIS_PORT`, `REDIS_USERNAME`, `REDIS_PASSWORD`, `REDIS_DB`. The three names of
the predecessor (`QUEUE_CONCURRENCY`, `JOB_RETRY_ATTEMPTS`, `JOB_RETRY_DELAY` in milliseconds) keep their meaning;
everything else is `STREAMQ_<FIELD>`, times in seconds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from streamq.errors import InvalidInput
from streamq.policy import KEEP_CANCELLED, KEEP_COMPLETED, KEEP_FAILED, Backoff, Retention

DEFAULT_URL = "redis://localhost:6379/0"

LEAST = {
    "concurrency": 1, "attempts": 1, "retry_delay": 0, "lease": 0.5, "grace": 0, "max_stalls": 1, "max_payload": 1,
    "events_cap": 0, "dead_cap": 1, "log_cap": 1, "timeout": 0.1, "durable_replicas": 0, "durable_timeout": 0.001,
    "threads": 1, "job_timeout": 0.001,
}  # fmt: skip
"""What each setting must be at least; none may be endless."""

_NAMES = {"redis_url": "REDIS_URL", "concurrency": "QUEUE_CONCURRENCY", "attempts": "JOB_RETRY_ATTEMPTS"}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a queue and a worker go by unless a call says otherwise. Times are seconds.

    Attributes:
        redis_url: Where Redis is.
        concurrency: Jobs that one worker runs at once.
        attempts: How often a job may fail, the first time included.
        retry_delay: The base of the default exponential backoff.
        lease: After how long without a sign of life a worker's jobs go to others.
        grace: How long a stopping worker lets its jobs finish.
        max_stalls: How many workers a job may take down before it is failed as poison.
        max_payload: Bytes that a job's data, its result or its progress may take.
        events_cap: Entries that the event stream keeps; 0 writes none, and waits for results then look every 5 s.
        dead_cap: Dead letters that a queue keeps.
        log_cap: Lines that a job's own log keeps.
        timeout: How long one answer of Redis may take.
        durable_replicas: Replicas that must have a job before an add with `durable=True` returns.
        durable_timeout: How long such an add waits for disk and replicas.
        threads: Threads for plain-function processors; None is the worker's concurrency.
        job_timeout: How long one attempt may take, where neither the job nor its processor says so; None has no limit.
        dead_letter_queue: Where workers also add jobs that have failed for good; a queue on the same server.
        keep_completed, keep_failed: Which ended jobs to keep, where the job does not say so.
        keep_cancelled: Which cancelled jobs to keep: whoever cancels a job goes by his own settings.
    """

    redis_url: str = DEFAULT_URL
    concurrency: int = 5
    attempts: int = 3
    retry_delay: float = 5.0
    lease: float = 15.0
    grace: float = 30.0
    max_stalls: int = 3
    max_payload: int = 1_048_576
    events_cap: int = 10_000
    dead_cap: int = 10_000
    log_cap: int = 1_000
    timeout: float = 5.0
    durable_replicas: int = 0
    durable_timeout: float = 2.0
    threads: int | None = None
    job_timeout: float | None = None
    dead_letter_queue: str | None = None
    keep_completed: Retention = KEEP_COMPLETED
    keep_failed: Retention = KEEP_FAILED
    keep_cancelled: Retention = KEEP_CANCELLED

    def __post_init__(self) -> None:
        for name in LEAST:
            value = getattr(self, name)
            if wrong := _out_of_range(name, value):
                raise InvalidInput(f"{name} {wrong}, not {value!r}")

    @property
    def backoff(self) -> Backoff:
        """The default wait between attempts."""
        return Backoff.exponential(self.retry_delay, factor=2, max_delay=3_600, jitter=0.1)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `env` (the process's environment by default).

        Raises:
            InvalidInput: A variable's value does not fit; the message names the variable, never a password.
        """
        env = os.environ if env is None else env
        found: dict[str, Any] = {"redis_url": redis_url(env)}
        for field in msgspec.structs.fields(cls):
            name = variable(field.name)
            if field.name in found or not env.get(name) or field.type is Retention:
                continue
            try:
                found[field.name] = msgspec.convert(env[name].strip(), field.type, strict=False)
            except msgspec.ValidationError as error:
                raise InvalidInput(f"{name}={env[name]!r} in the environment: {error}") from None
        if env.get("JOB_RETRY_DELAY"):
            try:
                found["retry_delay"] = float(env["JOB_RETRY_DELAY"]) / 1000
            except ValueError:
                raise InvalidInput(f"JOB_RETRY_DELAY={env['JOB_RETRY_DELAY']!r} must be milliseconds") from None
        for name in LEAST.keys() & found.keys():
            if wrong := _out_of_range(name, found[name]):
                said = variable(name)
                if name == "retry_delay" and env.get("JOB_RETRY_DELAY"):
                    said = "JOB_RETRY_DELAY"
                raise InvalidInput(f"{said}={env[said]!r} in the environment {wrong}")
        return cls(**found)


def variable(field: str) -> str:
    """Return the environment variable that a field of `Settings` is read from."""
    return _NAMES.get(field, f"STREAMQ_{field.upper()}")


def _out_of_range(name: str, value: float | None) -> str:
    """Say what is wrong with a setting's value; "" if nothing is. NaN is less than anything."""
    if value is None or LEAST[name] <= value < math.inf:
        return ""
    return "must be finite" if value == math.inf else f"must be at least {LEAST[name]}"


def redis_url(env: Mapping[str, str]) -> str:
    """Return the address that the environment names, or the default one."""
    if env.get("REDIS_URL"):
        return env["REDIS_URL"]
    host, port, db = env.get("REDIS_HOST") or "localhost", env.get("REDIS_PORT") or "6379", env.get("REDIS_DB") or "0"
    for name, value in (("REDIS_PORT", port), ("REDIS_DB", db)):
        if not value.isdigit():
            raise InvalidInput(f"{name}={value!r} in the environment must be a whole number")
    user, password = quote(env.get("REDIS_USERNAME") or "", safe=""), quote(env.get("REDIS_PASSWORD") or "", safe="")
    login = f"{user}:{password}@" if user or password else ""
    return f"redis://{login}{host}:{port}/{db}"
