"""The queues of the flat functions: one for each name, shared by all threads, made at its first use."""

from __future__ import annotations

from streamq.job import queue_name
from streamq.queue import Shards
from streamq.sync.background import background
from streamq.sync.queue import Queue

_made: dict[str, Queue] = {}


def get_queue(name: str, shards: Shards = None) -> Queue:
    """Return the queue of this name, made from the environment at the first call.

    Raises:
        InvalidInput: The name or the environment makes no sense.
    """
    key = queue_name(name)
    with background.lock:
        if key not in _made:
            _made[key] = Queue(key, shards=shards)
        return _made[key]


def close_all_queues() -> None:
    """Close the queues that these functions have made; they can be used again. The interpreter's end does it too."""
    with background.lock:
        queues = list(_made.values())
        _made.clear()
    for queue in queues:
        queue.close()


def _queue(queue: str | Queue) -> Queue:
    return queue if isinstance(queue, Queue) else get_queue(queue)
