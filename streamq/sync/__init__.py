"""streamq for code that blocks: Flask, Django, scripts. The same names, without await.

    from streamq.sync import Queue

    emails = Queue("emails")            # at import, before a server forks, for all threads
    job = emails.add("send-welcome", {"to": "ada@example.com"})

A thin face: each call runs the asynchronous one on an event loop that all threads of the process share, so concurrent
adds of many threads go out together. Safe to use from any thread, and after a fork. Workers are not here: they run as
`python -m streamq.worker`.
"""

from streamq.sync.facade import Watch
from streamq.sync.flat import (
    add_job,
    cancel_job,
    clean_queue,
    get_job,
    get_queue_stats,
    pause_queue,
    remove_job,
    resume_queue,
    retry_job,
)
from streamq.sync.queue import Job, Queue
from streamq.sync.queues import close_all_queues, get_queue

__all__ = [
    "Job",
    "Queue",
    "Watch",
    "add_job",
    "cancel_job",
    "clean_queue",
    "close_all_queues",
    "get_job",
    "get_queue",
    "get_queue_stats",
    "pause_queue",
    "remove_job",
    "resume_queue",
    "retry_job",
]
