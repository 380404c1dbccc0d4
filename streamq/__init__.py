"""streamq: a background-job engine built directly on Redis Streams.

    queue = Queue("reports")
    job = await queue.add("generate-monthly-report", {"month": 11})
    worker = Worker("reports", processors)
    await worker.run()

The names below are the whole public face; `docs/quickstart.md` starts from nothing.
"""

from streamq.batch import BatchJob
from streamq.dead_letters import DeadLetter
from streamq.errors import (
    DuplicateJob,
    InvalidInput,
    JobCancelled,
    JobFailed,
    JobNotFound,
    QueueFull,
    RateLimited,
    RetryAfter,
    Snooze,
    StoreUnavailable,
    StreamqError,
    Unrecoverable,
    WaitForChildren,
    WrongState,
)
from streamq.events import Event
from streamq.flat import (
    add_job,
    cancel_job,
    clean_queue,
    close_all_queues,
    create_queue_events,
    create_worker,
    get_job,
    get_queue,
    get_queue_stats,
    pause_queue,
    remove_job,
    resume_queue,
    retry_job,
)
from streamq.flow import ChildEnd, FlowJob, FlowNode, chain, group
from streamq.job import Job, JobOptions, JobSnapshot, JobState, QueueName
from streamq.policy import Backoff, Batch, Priority, RateLimit, Retention
from streamq.processor import ActiveJob, Processors
from streamq.queue import Queue, QueueStats
from streamq.schedule import Schedule, ScheduleSnapshot
from streamq.settings import Settings
from streamq.task import Task, TaskJob
from streamq.unique import Unique
from streamq.worker import Worker

__all__ = [
    "ActiveJob",
    "Backoff",
    "Batch",
    "BatchJob",
    "ChildEnd",
    "DeadLetter",
    "DuplicateJob",
    "Event",
    "FlowJob",
    "FlowNode",
    "InvalidInput",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobOptions",
    "JobSnapshot",
    "JobState",
    "Priority",
    "Processors",
    "Queue",
    "QueueFull",
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
    "Task",
    "TaskJob",
    "Unique",
    "Unrecoverable",
    "WaitForChildren",
    "Worker",
    "WrongState",
    "add_job",
    "cancel_job",
    "chain",
    "clean_queue",
    "close_all_queues",
    "create_queue_events",
    "create_worker",
    "get_job",
    "get_queue",
    "get_queue_stats",
    "group",
    "pause_queue",
    "remove_job",
    "resume_queue",
    "retry_job",
]
