"""Who holds a unique key and who is next, in plain Python; written from docs/unique.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.model.model import Model

Found = dict[str, Any]
NOT_STARTED = ("waiting", "delayed", "waiting_children")


class UniqueKeys:
    """The unique keys of one queue. A job's `unique` has `key`, `mode` (p, r, k: how long it is held) and `ttl`."""

    def __init__(self, queue: Model) -> None:
        self.queue = queue
        self.holders: dict[str, tuple[str, int | None]] = {}
        """Key -> who holds it, and until when at most."""
        self.nexts: dict[str, str] = {}

    def holder(self, key: str) -> str | None:
        return self.holders[key][0] if key in self.holders else None

    def expire(self) -> list[str]:
        """Keys that were held for as long as their `ttl` says are free. Returns them."""
        gone = [key for key, (_, until) in self.holders.items() if until is not None and until <= self.queue.now]
        for key in gone:
            del self.holders[key]
        return gone

    def hold(self, job_id: str, unique: Found) -> None:
        until = None if unique["ttl"] is None else self.queue.now + unique["ttl"]
        self.holders[unique["key"]] = job_id, until

    def judge(self, unique: Found) -> tuple[str, str | None]:
        """What becomes of a new job, and who is there: `free`, `known`, `refused`, `replaced`, `next`."""
        holder, conflict = self.holder(unique["key"]), unique["conflict"]
        if holder is None:
            return "free", None
        if conflict in ("return_existing", "raise"):
            return ("known" if conflict == "return_existing" else "refused"), holder
        older = self.nexts.get(unique["key"], holder) if conflict == "keep_latest" else holder
        state = self.queue.state(older)
        if state in NOT_STARTED:
            return "replaced", older
        return ("next" if state == "active" and conflict == "keep_latest" else "refused"), holder

    def take(self, job_id: str, unique: Found, how: str) -> None:
        """A new job is the holder, or next: while there is one, the holder's time does not run out."""
        if how == "next":
            self.nexts[unique["key"]] = job_id
            self.holders[unique["key"]] = self.holders[unique["key"]][0], None
        else:
            self.hold(job_id, unique)

    def retake(self, job: Found) -> str | None:
        """A job is to wait again. Answers who else holds its key by now."""
        if job["unique"] is None:
            return None
        holder = self.holder(job["unique"]["key"])
        if holder is None:
            self.hold(job["id"], job["unique"])
        return holder if holder != job["id"] else None

    def release(self, job: Found, how: str) -> None:
        """A job has `started`; or is `completed`, `failed`, `cancelled`, `removed`; or its record is `forgotten`."""
        unique, left = job["unique"], how != "started"
        if unique is None or (not left and unique["mode"] != "p"):
            return
        key = unique["key"]
        if self.holder(key) != job["id"]:
            if left and self.nexts.get(key) == job["id"]:
                del self.nexts[key]
        elif left and key in self.nexts:
            after = self.queue.jobs[self.nexts.pop(key)]
            self.hold(after["id"], after["unique"])
            after["look"] = max(self.queue.now, after["due"])
        elif not (unique["mode"] == "k" and how in ("completed", "failed")) and not (
            how == "forgotten" and self.holders[key][1] is not None
        ):
            del self.holders[key]
