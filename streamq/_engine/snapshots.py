"""From what Redis holds of a job to the snapshot that users see."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from streamq._engine import codec
from streamq._engine.transitions import StoredJob
from streamq.errors import UnreadablePayload
from streamq.job import JobError, JobSnapshot, JobState
from streamq.payload import PLAIN, Codec
from streamq.policy import Priority

_ATTEMPT = re.compile(r"x[1-9][0-9]{0,8}")
LAST_MOMENT = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which there is no datetime."""


def snapshot(queue: str, job_id: str, stored: StoredJob, opener: Codec = PLAIN) -> JobSnapshot:
    """Return a job as users see it. What can't be read is None; the name of a job whose envelope can't be is ""."""
    try:
        envelope = codec.decode_envelope(stored.envelope)
        name, data, options = envelope.name, readable(bytes(envelope.data), opener), envelope.options
    except codec.BadEnvelope:
        name, data, options = "", None, None
    record = stored.record
    return JobSnapshot(
        id=job_id,
        queue=queue,
        name=name,
        data=data,
        state=JobState(stored.state),
        priority=Priority(stored.lane),
        progress=readable(record.get("g", b"")),
        attempts_made=stored.number("a") or 0,
        stalls=stored.number("k") or 0,
        interruptions=stored.number("i") or 0,
        result=readable(record.get("r", b""), opener) if stored.state == "completed" else None,
        error=codec.decode_error(record["x"]) if record.get("x") else None,
        errors=_errors(stored),
        created_at=moment(stored.created_ms),
        started_at=moment(stored.started_ms),
        finished_at=moment(stored.number("f")) if stored.state in ("completed", "failed", "cancelled") else None,
        cancel_reason=record.get("w", b"").decode("utf-8", "replace") if stored.state == "cancelled" else None,
        run_at=moment(stored.number("u")) if stored.state == "delayed" else None,
        tags=options.g if options is not None else (),
        headers=(options.h or {}) if options is not None else {},
        unique_key=record["uk"].decode(errors="replace") if "uk" in record else None,
        parents=_parents(queue, record.get("fl")),
        children=stored.number("fn") or 0,
        open_children=stored.number("fo") or 0,
        key=options.k if options is not None else None,
    )


def snapshots(queue: str, jobs: Iterable[tuple[str, StoredJob]], opener: Codec = PLAIN) -> list[JobSnapshot]:
    """Return jobs as `snapshot` does each."""
    return [snapshot(queue, job_id, stored, opener) for job_id, stored in jobs]


def _parents(queue: str, body: bytes | None) -> tuple[tuple[str, str], ...]:
    if not body:
        return ()
    try:
        parents = msgspec.msgpack.decode(body, type=list[tuple[str, str, int, str]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    return tuple((parent[0] or queue, parent[1]) for parent in parents)


def _errors(stored: StoredJob) -> dict[int, JobError]:
    """Return how earlier attempts failed, and how the last one did if the job is failed.

    A record may still hold errors from before it was retried by hand: those of attempts that are not made yet, or that
    went well this time, do not count.
    """
    made = stored.number("a") or 0
    upto = made if stored.state in ("waiting", "active", "delayed", "waiting_children") else made - 1
    # By the fields there are: how many attempts it made is what a record says, and somebody else may have written it.
    kept = sorted(int(field[1:]) for field in stored.record if _ATTEMPT.fullmatch(field))
    errors = {n: codec.decode_error(body) for n in kept if n <= upto and (body := stored.record[f"x{n}"])}
    if stored.state == "failed" and stored.record.get("x"):
        errors[made] = codec.decode_error(stored.record["x"])
    return errors


def readable(body: bytes, opener: Codec = PLAIN) -> Any:
    """Decode a value; None if this version can't, so that one such job does not hide the others."""
    try:
        return codec.decode(opener.open(body)) if body else None
    except (ValueError, msgspec.DecodeError, UnreadablePayload):
        return None


def moment(ms: int | None) -> datetime | None:
    """Return milliseconds since 1970 as an aware datetime in UTC."""
    return None if ms is None or ms > LAST_MOMENT else datetime.fromtimestamp(ms / 1000, UTC)
