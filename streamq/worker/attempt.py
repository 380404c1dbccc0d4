"""One claim being run, from when it is held to its outcome, and what runs the jobs of its name."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streamq._engine.transitions import Claim
from streamq.policy import Batch
from streamq.processor import ActiveJob, Place, Processor
from streamq.worker.verdict import Terms

if TYPE_CHECKING:
    from streamq.worker.gathering import JobBatch


class Attempt:
    """One claim being run."""

    __slots__ = ("batch", "cancelled", "claim", "claimed_at", "ended", "job", "place", "released", "started_at", "task")

    def __init__(self, claim: Claim, claimed_at: float | None = None) -> None:
        self.claim = claim
        self.claimed_at = time.monotonic() if claimed_at is None else claimed_at
        self.started_at = 0.0
        """When it got a slot (monotonic seconds); 0 before."""
        self.task: asyncio.Task[None] | None = None
        self.job: ActiveJob[Any] | None = None
        """What its handler sees, once it is started; it runs in the `place`."""
        self.place: Place = "loop"
        self.batch: JobBatch | None = None
        """The batch that it is gathered for, or runs in."""
        self.ended = False
        """Whether its outcome has been taken."""
        self.released = False
        """Whether the worker has interrupted it, to hand it back."""
        self.cancelled: str | None = None
        """Why it was told to end as cancelled; None if it was not."""


class Known(NamedTuple):
    """What runs the jobs of one name."""

    processor: Processor
    decoder: msgspec.msgpack.Decoder[Any]
    terms: Terms
    place: Place
    batch: Batch | None
