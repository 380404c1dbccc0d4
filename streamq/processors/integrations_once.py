"""Name a piece of work, so that a job's second run is recognised as the same work by whoever it reaches."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from streamq.errors import InvalidInput, Unrecoverable
from streamq.job import check_text
from streamq.processor import ActiveJob

MAX_KEY = 200
"""Bytes that a key given by a request may take."""


def work_key(job: ActiveJob[Any], given: str | None = None) -> str:
    """Return the key of what `job` does: `given` if the request names one, else one made of the job and its data.

    Every attempt of a job gives the same key. The data is part of it because generated job ids start again at 1 when
    Redis is emptied, and a new job must never pass for an old one.

    Raises:
        Unrecoverable: The given key is empty, too long, or could break a header that it is sent in.
    """
    if given is not None:
        try:
            return f"{job.name}:{check_text('idempotencyKey', given, MAX_KEY)}"
        except InvalidInput as error:
            raise Unrecoverable(str(error)) from error
    digest = hashlib.sha256(msgspec.msgpack.encode(job.data)).hexdigest()[:32]
    return f"{job.queue}/{job.id}:{digest}"
