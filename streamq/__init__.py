"""streamq: a background-job engine built directly on Redis Streams.

    queue = Queue("reports")
    job = await queue.add("generate-monthly-report", {"month": 11})
    worker = Worker("reports", processors)
    await worker.run()

The names below are the whole public face; `docs/quickstart.md` starts from nothing.
"""

from streamq.errors import (
    InvalidInput,
    JobFailed,
    JobNotFound,
    RateLimited,
    RetryAfter,
    Snooze,
    StoreUnavailable,
    StreamqError,
    Unrecoverable,
)
from streamq.job import Job, JobOptions, JobSnapshot, JobState, QueueName
from streamq.policy import Backoff, Priority, RateLimit, Retention
from streamq.processor import ActiveJob, Processors
from streamq.queue import Queue, QueueStats
from streamq.schedules import Schedule, ScheduleSnapshot
from streamq.settings import Settings
from streamq.worker import Worker

__all__ = [
    "ActiveJob",
    "Backoff",
    "InvalidInput",
    "Job",
    "JobFailed",
    "JobNotFound",
    "JobOptions",
    "JobSnapshot",
    "JobState",
    "Priority",
    "Processors",
    "Queue",
    "QueueName",
    "QueueStats",
    "RateLimit",
    "RateLimited",
    "Retention",
    "RetryAfter",
    "Schedule",
    "ScheduleSnapshot",
    "Settings",
    "Snooze",
    "StoreUnavailable",
    "StreamqError",
    "Unrecoverable",
    "Worker",
]
