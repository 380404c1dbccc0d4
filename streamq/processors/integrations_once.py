"""Name a piece of work, so that a job's second run is recognised as the same work by whoever it reaches."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from streamq.processor import ActiveJob


def work_key(job: ActiveJob[Any], given: str | None = None) -> str:
    """Return the key of what `job` does: `given` if the request names one, else one made of the job and its data.

    Every attempt of a job gives the same key. The data is part of it because generated job ids start again at 1 when
    Redis is emptied, and a new job must never pass for an old one.
    """
    if given is not None:
        return f"{job.name}:{given}"
    digest = hashlib.sha256(msgspec.msgpack.encode(job.data)).hexdigest()[:32]
    return f"{job.queue}/{job.id}:{digest}"
