"""Queues by name, and adds that wait for the transaction's commit."""

from __future__ import annotations

import copy
from typing import Any, Unpack

from django.db import transaction  # type: ignore[import-untyped]

from streamq.contrib.django.conf import read
from streamq.job import queue_name
from streamq.queue import OptionFields
from streamq.sync import Queue
from streamq.sync.background import background

_made: dict[str, Queue] = {}


def get_queue(name: str) -> Queue:
    """Return the queue of this name, as `settings.STREAMQ` describes it; one for all threads, made at its first use.

    Raises:
        InvalidInput: No queue may have this name.
        ImproperlyConfigured: `settings.STREAMQ` makes no sense.
    """
    key = queue_name(name)
    with background.lock:
        if key not in _made:
            said = read()
            _made[key] = Queue(
                key, said.settings.redis_url, shards="stored", defaults=said.defaults, settings=said.settings
            )
        return _made[key]


def add_on_commit(
    queue: str | Queue, name: str, data: Any = None, *, using: str | None = None, **options: Unpack[OptionFields]
) -> None:
    """Add a job when the transaction of the database `using` commits; at once if there is none, never if it rolls back.

    The job is checked now, so one that can't be added fails the transaction. Between the commit and the add the process
    may die, or Redis may be away, which raises after the commit: where that must lose nothing, write to an outbox.

    Raises:
        InvalidInput, PayloadTooLarge: The job does not fit; nothing will be sent.
        StoreError: At the commit: the transaction is committed, the job was not added.
    """
    target = queue if isinstance(queue, Queue) else get_queue(queue)
    target.check(name, data, **options)
    data = copy.deepcopy(data)  # as it is now
    transaction.on_commit(lambda: target.add(name, data, **options), using=using)
