"""What becomes of a job when an attempt has ended: the policy's word, as an outcome for the next tick.

Pure: it looks at the claim, the job's options, the processor and the exception, and decides.
"""

from __future__ import annotations

import logging
import math

import msgspec

from streamq._engine import codec
from streamq._engine.transitions import Claim, Outcome
from streamq.errors import (
    InvalidInput,
    JobExpired,
    PayloadTooLarge,
    RateLimited,
    ResultNotEncodable,
    ResultTooLarge,
    RetryAfter,
    Snooze,
    UnencodableData,
    UnknownProcessor,
    Unrecoverable,
    WaitForChildren,
)
from streamq.payload import PLAIN, Codec
from streamq.policy import MAX_SECONDS, Backoff, Retention
from streamq.processor import Processor
from streamq.settings import Settings
from streamq.worker.failure import describe

log = logging.getLogger("streamq.worker")

MAX_RELEASES = 20
"""How often a job is handed on for want of a processor before it is failed."""
RELEASE_DELAY, LONGEST_RELEASE = 1.0, 300.0


class Terms(msgspec.Struct, frozen=True):
    """What holds for one job: its own options, then its processor's, then the worker's settings."""

    attempts: int
    backoff: object
    timeout: float | None
    keep_completed: Retention
    keep_failed: Retention

    @classmethod
    def of(cls, options: codec.EnvelopeOptions | None, processor: Processor, settings: Settings) -> Terms:
        """Lay the three over one another."""
        if options is None:
            options = codec.EnvelopeOptions()
        return cls(
            options.a or processor.attempts or settings.attempts,
            options.b or processor.backoff or settings.backoff,
            options.t or processor.timeout or settings.job_timeout,
            options.c or settings.keep_completed,
            options.f or settings.keep_failed,
        )


class Verdicts:
    """Makes the outcomes of one worker."""

    def __init__(self, settings: Settings, sealer: Codec = PLAIN) -> None:
        self._settings, self._sealer = settings, sealer
        self.shards = 1
        """Over how many shards the queue is spread: each keeps its share of the ended jobs."""
        self.bound = False
        """Whether the queue has had bound jobs; set by each tick. Then results are told even if they are not kept."""

    def done(self, claim: Claim, terms: Terms, result: object, started_ms: int) -> Outcome:
        """The handler returned."""
        try:
            body = b"" if result is None else codec.encode_result(result, self._settings.max_payload)
        except PayloadTooLarge as error:
            return self.failed(claim, terms, ResultTooLarge(str(error)), started_ms, for_good=True)
        except UnencodableData as error:
            return self.failed(claim, terms, ResultNotEncodable(str(error)), started_ms, for_good=True)
        keep = terms.keep_completed if self.shards == 1 else self._share(terms.keep_completed)
        body = body if keep.count or self.bound else b""
        if body and self._sealer is not PLAIN:
            body = self._sealer.seal(body)
        return Outcome(
            "done", claim.lane, claim.entry, claim.recorded_id, body, keep.count, keep.age_ms,
            started_ms, claim.attempts_made + 1,
        )  # fmt: skip

    def failed(
        self, claim: Claim, terms: Terms | None, error: BaseException, started_ms: int, *, for_good: bool = False
    ) -> Outcome:
        """The handler raised, or the job could not be started (then there may be no terms)."""
        if isinstance(error, Snooze):
            return self.released(claim, error.seconds, counter="")
        if isinstance(error, WaitForChildren):
            return self.waits(claim, error)
        if isinstance(error, RateLimited):
            return self.released(claim, error.seconds, counter="", kind="hold")
        made = claim.attempts_made + 1
        body = codec.encode_error(describe(error))
        if not for_good and not isinstance(error, Unrecoverable) and terms is not None and made < terms.attempts:
            delay = error.seconds if isinstance(error, RetryAfter) else self._backoff(terms, made, error)
            return Outcome(
                "retry", claim.lane, claim.entry, claim.recorded_id, body, math.ceil(delay * 1000), 0, started_ms, made
            )
        keep = self._share(terms.keep_failed if terms is not None else self._settings.keep_failed)
        return Outcome(
            "fail", claim.lane, claim.entry, claim.recorded_id, body, keep.count, keep.age_ms, started_ms, made
        )  # fmt: skip

    def expired(self, claim: Claim, options: codec.EnvelopeOptions, now_ms: int) -> Outcome | None:
        """Fail a job that has waited longer than its `expires_in` for its first start; None if it may run."""
        if options.x is None or claim.attempts_made or claim.stalls or claim.interruptions:
            return None
        waited = (now_ms - claim.since_ms) / 1000
        if waited <= options.x:
            return None
        body = codec.encode_error(describe(JobExpired(claim.job_id, waited, options.x)))
        keep = self._share(options.f or self._settings.keep_failed)
        return Outcome("fail", claim.lane, claim.entry, claim.recorded_id, body, keep.count, keep.age_ms)

    def _share(self, keep: Retention) -> Retention:
        return Retention(-(-keep.count // self.shards), keep.age) if self.shards > 1 else keep

    def released(self, claim: Claim, delay: float = 0.0, *, counter: str = "i", kind: str = "release") -> Outcome:
        """The job goes back unfinished, and no attempt is used. `counter`: which of the record's counters is raised."""
        return Outcome(
            kind, claim.lane, claim.entry, claim.recorded_id, b"", math.ceil(delay * 1000), counter, 0,
            claim.attempts_made,
        )  # fmt: skip

    def cancelled(self, claim: Claim, reason: str, started_ms: int = 0) -> Outcome:
        """The job was cancelled while it ran; or before it started (`started_ms` of 0), and no attempt is used."""
        keep, made = self._settings.keep_cancelled, claim.attempts_made + (started_ms > 0)
        return Outcome(
            "cancel",
            claim.lane,
            claim.entry,
            claim.recorded_id,
            reason.encode(),
            keep.count,
            keep.age_ms,
            started_ms,
            made,
        )

    def waits(self, claim: Claim, wait: WaitForChildren) -> Outcome:
        """The job has staged children: they are added, it waits for them, and no attempt is used."""
        return Outcome(
            "wait", claim.lane, claim.entry, claim.recorded_id, f"{wait.batch} {wait.keeping}".encode(), wait.children,
            wait.parts, 0, claim.attempts_made,
        )  # fmt: skip

    def returned(self, claim: Claim) -> Outcome:
        """The job never started: it goes back to the front of its lane as it was."""
        return Outcome("return", claim.lane, claim.entry, claim.recorded_id)

    def unknown(self, claim: Claim, name: str) -> Outcome:
        """No processor of this worker has the job's name: hand it on to one that has, later and later."""
        if claim.releases >= MAX_RELEASES:
            why = f"no worker has a processor for {name!r}: handed on {claim.releases} times"
            return self.failed(claim, None, UnknownProcessor(why), 0, for_good=True)
        return self.released(claim, min(RELEASE_DELAY * 2**claim.releases, LONGEST_RELEASE), counter="n")

    def _backoff(self, terms: Terms, attempt: int, error: BaseException) -> float:
        rule = terms.backoff
        if isinstance(rule, Backoff):
            return rule.delay(attempt)
        try:
            delay = float(rule(attempt, error))  # type: ignore[operator]
            if not 0 <= delay <= MAX_SECONDS:
                raise InvalidInput(f"it returned {delay!r}")
            return delay
        except Exception:
            log.exception("a processor's backoff function failed; its job waits as long as the settings say")
            return self._settings.backoff.delay(attempt)


def error_of(outcome: Outcome) -> str:
    """Return the type of the error that an outcome reports, "" if none."""
    return codec.decode_error(outcome.body).type if outcome.kind in ("retry", "fail") else ""
