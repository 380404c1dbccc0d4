"""What a queue is to do, in plain Python: dicts, lists and a clock that is moved by hand.

Knows nothing of Redis and imports nothing of streamq. It is written from docs/state-machine.md: where it and the
scripts disagree, one of them is wrong. Each method answers as the transition of that name does, and notes the events
to expect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from tests.model.families import Families, end_of
from tests.model.key_places import Places
from tests.model.unique import UniqueKeys

LANES = (1, 2, 3, 4)
SPARE = "spare"
ERRORS_KEPT = 10
POISON_KEEP, POISON_AGE_MS = 500, 604_800_000
AUDIT_MS = 30_000
UNENDED = ("waiting", "active", "delayed", "waiting_children")
HAND_OUT_MS, LOOK_AGAIN_MS = 1_000, 500
PARKED = 9_000_000_000_000_000

Found = dict[str, Any]


class Model:
    """One queue. `jobs` holds what is known of each job, `lanes` the entries of each lane in order.

    What binds jobs to others is told by models of its own: `unique`, `places` and `families`.
    """

    def __init__(self, now: int) -> None:
        self.now = now
        self.counter = 0
        self.events: list[tuple[str, str]] = []
        self.other: list[tuple[int, Any]] = []
        """Lanes and jobs of the queue that dead letters are forwarded to."""
        self.forget_everything()

    def forget_everything(self) -> None:
        """Be an empty queue, but for the counter."""
        self.jobs: dict[str, Found] = {}
        self.lanes: dict[int, list[Found]] = {lane: [] for lane in LANES}
        self.last = dict.fromkeys(LANES, 0)
        """The newest entry that each lane has had."""
        self.letters: list[Found] = []
        self.leases: dict[str, int] = {}
        self.schedules: dict[str, Found] = {}
        self.paused = False
        self.rate: tuple[int, int] | None = None
        self.max_active: int | None = None
        self.max_size: int | None = None
        self.hold_until: int | None = None
        self.starts: list[tuple[int, int]] = []
        self.full_at = 0
        self.ages: dict[str, int] = {}
        self.cancels: dict[int, Found] = {}
        self.answers: dict[str, tuple[int, Any]] = {}
        self.audit_at = 0
        self.forwarded: Any = None
        self.bound = False
        self.unique, self.places, self.families = UniqueKeys(self), Places(self), Families(self)
        self._ages: dict[str, int] = {}
        self._told: dict[str, list[str]] = {}
        self._keep: dict[str, int] = {}

    # Looking ----------------------------------------------------------------------------------------------------------

    def in_state(self, state: str) -> list[str]:
        """Ids of the jobs of a state, in the order in which they are told."""
        if state in ("waiting", "active"):
            found = [e["id"] for lane in LANES for e in self.lanes[lane] if _is_active(e) == (state == "active")]
            return found + [job["id"] for job in self.places.parked_jobs() if state == "waiting"]
        at = {"delayed": "look", "waiting_children": "since"}.get(state, "finished")
        return self._sorted((job for job in self.jobs.values() if job["state"] == state), at)

    def state(self, job_id: str) -> str | None:
        """The state of a job; None if it is unknown."""
        job = self.jobs.get(job_id)
        if job is None:
            return None
        entry = self._entry(job)
        if entry is None:
            return "waiting" if job["state"] == "parked" else str(job["state"])
        return "active" if _is_active(entry) else "waiting"

    def waiting(self, lane: int) -> int:
        """How many jobs of a lane wait, those that are parked included."""
        return sum(not _is_active(e) for e in self.lanes[lane]) + len(self.places.parked_jobs(lane))

    def active(self) -> list[Found]:
        """Entries that workers hold."""
        return [e for lane in LANES for e in self.lanes[lane] if _is_active(e)]

    def held_by(self, worker: str, lane: int | None = None) -> list[Found]:
        """Entries that one worker holds."""
        return [e for at in LANES if lane in (None, at) for e in self.lanes[at] if e["who"] == worker]

    def oldest(self, lane: int) -> int | None:
        """How long the job that is next in a lane has waited, ms."""
        found = [e for e in self.lanes[lane] if e["who"] == SPARE] or [e for e in self.lanes[lane] if e["who"] is None]
        return max(self.now - found[0]["t"], 0) if found else None

    def size(self) -> int:
        """How many jobs wait, run or are delayed."""
        return sum(map(len, self.lanes.values())) + len(self.places.parked_jobs()) + len(self.in_state("delayed"))

    def pending_entry(self, lane: int, number: int) -> Found | None:
        """An entry, if it is pending."""
        return next((e for e in self.lanes[lane] if e["n"] == number and e["who"] is not None), None)

    # Producers --------------------------------------------------------------------------------------------------------

    def add(self, nonce: str, number: int, jobs: Sequence[Found], *, all_or_none: bool = False) -> Any:
        """Jobs have `lane`, `start` (0, or "+ms", "@ms"), `id`, what they are, and perhaps `unique`, `key`, `family`.

        Answers [(id, is new) …]; `overtaken`; ("full", size, limit); ("refused", who holds the key, the key).
        """
        if nonce in self.answers:
            last, answer = self.answers[nonce]
            if last >= number:
                return answer if last == number else "overtaken"
        new = [job for job in jobs if not job["id"] or job["id"] not in self.jobs]
        verdicts = [(*self.unique.judge(job["unique"]), job["unique"]["key"]) for job in new if job.get("unique")]
        if self.max_size is not None:
            instead = sum(how not in ("free", "next") for how, _, _ in verdicts)
            if self.size() + len(new) - instead > self.max_size:
                return "full", self.size(), self.max_size
        for how, there, key in verdicts:
            if all_or_none and how == "refused":
                return "refused", there, key
        answer = self.enqueue(jobs)
        self.answers[nonce] = number, answer
        return answer

    def enqueue(self, jobs: Sequence[Found]) -> list[tuple[str, bool]]:
        first = self.counter + 1
        self.counter += len(jobs)
        answer: list[tuple[str, bool]] = []
        told: dict[str, list[str]] = {"added": [], "delayed": []}
        for number, new in enumerate(jobs, first):
            job_id = new["id"] or str(number)
            there = job_id if job_id in self.jobs else self._add_one(job_id, number, new, told)
            answer.append((there or job_id, there is None))
            if there is not None and new.get("family"):
                self._go_on(self.families.adopt(there, new["family"]))
        self._tell("added", told["added"])
        self._tell("delayed", told["delayed"])
        self.places.settle()
        return answer

    def _add_one(self, job_id: str, number: int, new: Found, told: dict[str, list[str]]) -> str | None:
        """Answers who is there instead."""
        unique, key, due = new.get("unique"), new.get("key"), self._due(new["start"])
        family = new.get("family")
        if family and family["parents"]:
            family = {**family, "parents": self.families.willing(family)}
            if not family["parents"]:
                return job_id  # nobody waits for it
        self.bound = self.bound or bool(unique or key or family)
        how = "free"
        if unique:
            how, there = self.unique.judge(unique)
            if how == "replaced":
                self._become(self.jobs[str(there)], new, number)
            if how not in ("free", "next"):
                return there
            self.unique.take(job_id, unique, how)
        job = self._new_job(job_id, new["lane"], new["what"], unique, key)
        if family:
            self.families.join(job, family)
        if job["open"]:
            job["due"] = due
            self._await_children(job)
        elif due is None and how == "free":
            self._enter(job, number=number, has_envelope=not (unique or key or family))
            told["added"].append(job_id)
        else:
            due = self.now if due is None else due
            job.update(state="delayed", due=due, look=PARKED if how == "next" else due)
            told["delayed"].append(job_id)
        return None

    def _due(self, start: str) -> int | None:
        return None if start == "0" else int(start[1:]) + (self.now if start[0] == "+" else 0)

    def _become(self, job: Found, new: Found, number: int) -> None:
        """A job that has not started is a newer one from now on, but for its id and what it is bound to."""
        due, entry = self._due(new["start"]), self._entry(job)
        keeps_place = job["state"] == "parked" or (entry is not None and not entry["has_envelope"])
        if job["state"] == "waiting_children" or (job["state"] == "delayed" and job["look"] == PARKED):
            job.update(due=self.now if due is None else due, lane=new["lane"])
        elif due is None and keeps_place and job["lane"] == new["lane"]:
            pass
        else:
            self.places.leave(job)
            self._leave_lane(job)
            job.update(lane=new["lane"])
            if due is None:
                self._enter(job, number=number)
            else:
                job.update(state="delayed", due=due, look=due)
        job.update(what=new["what"], attempts=0, stalls=0, releases=0, started=None)
        job.update(progress=None, mark=None, error=None)
        self._tell("updated", [job["id"]])

    # A worker's turn --------------------------------------------------------------------------------------------------

    def tick(
        self,
        worker: str,
        want: int,
        outcomes: Sequence[Found] = (),
        *,
        lease: int,
        max_stalls: int,
        marks: Sequence[str] = (),
        list_held: bool = False,
    ) -> Found:
        """Everything that one call does; `outcomes` have `kind`, `lane`, `n`, `id` and what goes with the kind."""
        self._begin()
        self._short = False
        joined = worker not in self.leases
        self._renew(worker, lease)
        stale = [-1] if joined else self._settle(worker, outcomes)
        for entry in self.held_by(worker):
            if entry["id"] in marks:
                self.jobs[entry["id"]]["mark"] = entry["n"]
        self._audit(at_once=joined)
        requeued = self._sweep(max_stalls)
        promoted = self._promote_due()
        due = self._hand_out()
        if self.bound:
            self.places.look()
            self.places.settle()
        self._retain()
        may, next_at = (0, None) if self.paused or not want else self._allowed(want)
        claimed = self._claim(worker, may)
        held = self.held_by(worker) if list_held else []
        self._finish()
        return {
            "stale": sorted(stale),
            "claimed": [self._claim_of(e) for e in claimed],
            "held": [self._claim_of(e) for e in held],
            "requeued": requeued,
            "promoted": promoted,
            "due": due,
            "next": self._next_ms(next_at),
        }

    def _claim_of(self, entry: Found) -> Found:
        job = self.jobs[entry["id"]]
        counts = {name: job[name] for name in ("attempts", "stalls", "interruptions", "releases")}
        cursor = job["steps"].get("c")
        return {"id": job["id"], "lane": job["lane"], "n": entry["n"], "what": job["what"], "cursor": cursor, **counts}

    def _audit(self, *, at_once: bool) -> None:
        if self.audit_at <= self.now or at_once:
            self.audit_at = self.now + AUDIT_MS
            if self.bound:
                self.places.audit()

    def _settle(self, worker: str, outcomes: Sequence[Found]) -> list[int]:
        stale, fresh = [], []

        def never_began(outcome: Found) -> bool:
            asked = self.cancels.get(outcome["n"])
            return outcome["kind"] == "return" and not (asked and asked["worker"] == worker)

        # An end counts before a claim of the same entry that never began.
        for at, outcome in sorted(enumerate(outcomes), key=lambda found: never_began(found[1])):
            entry = self.pending_entry(outcome["lane"], outcome["n"])
            if never_began(outcome):
                if entry is None or entry["who"] != worker:
                    stale.append(at)
                else:
                    entry["who"] = SPARE
                    self.unique.retake(self.jobs[entry["id"]])
            elif entry is None:
                stale.append(at)
            else:
                self.lanes[outcome["lane"]].remove(entry)
                fresh.append((outcome, entry))
        fresh = [(self._as_asked(outcome), entry) for outcome, entry in fresh]
        passing = _passing([outcome for outcome, _ in fresh])
        for outcome, entry in fresh:
            if outcome["kind"] == "done" and passing > 0:
                outcome = {**outcome, "keep": 0}
                passing -= 1
            self._settle_one(outcome, entry)
        return stale

    def _as_asked(self, outcome: Found) -> Found:
        """An outcome, or, if the job is to be cancelled, one that says so."""
        asked = self.cancels.pop(outcome["n"], None)
        if asked is None:
            return outcome
        attempts = self.jobs[outcome["id"]]["attempts"] if outcome["kind"] == "return" else outcome["attempts"]
        return {**outcome, "kind": "cancel", "attempts": attempts, "keep": asked["keep"], "age": asked["age"]}

    def _settle_one(self, outcome: Found, entry: Found) -> None:
        kind, job = outcome["kind"], self.jobs[outcome["id"]]
        job["attempts"] = outcome["attempts"]
        if outcome["started"]:
            job["started"] = outcome["started"]
        if kind == "done":
            job["result"] = outcome["result"]
            self._end(job, "completed", outcome["keep"], outcome["age"])
            self._note("completed", job["id"])
        elif kind == "fail":
            self._fail(job, outcome["error"], outcome["keep"], outcome["age"])
        elif kind == "cancel":
            self._cancel(job, outcome["keep"], outcome["age"])
        else:
            if kind == "retry":
                job["error"] = job["errors"][outcome["attempts"]] = outcome["error"]
                job["errors"].pop(outcome["attempts"] - ERRORS_KEPT, None)
                self._note("retrying", job["id"])
            elif outcome["counter"]:
                job[outcome["counter"]] += 1
            if kind == "hold":
                self.hold_until = self.now + outcome["delay"]
            if outcome["delay"]:
                due = self.now + outcome["delay"]
                job.update(state="delayed", due=due, look=due)
                self._note("delayed", job["id"])
                self.places.rest(job)
            else:
                self._place(job, has_envelope=entry["has_envelope"])

    def _end(self, job: Found, state: str, keep: int, age: int) -> None:
        job.update(state=state, finished=self.now)
        self._unbind(job, state)
        if not keep:
            self._forget(job)
            return
        if state == "completed":
            job["steps"] = {}
        self._keep[state] = keep
        if self._ages.get(state) != age:
            self._ages[state] = self.ages[state] = age

    def _fail(self, job: Found, error: Any, keep: int, age: int) -> None:
        self._write_letter(job, error)
        self._end(job, "failed", keep, age)
        self._note("failed", job["id"])
        self._note("dead", job["id"])

    def _write_letter(self, job: Found, error: Any) -> None:
        letter = {name: job[name] for name in ("id", "what", "lane", "unique", "key")} | {"error": error}
        self.letters.append(letter)
        job.update(error=error, letter=letter)

    def _cancel(self, job: Found, keep: int, age: int) -> None:
        self._end(job, "cancelled", keep, age)
        self._note("cancelled", job["id"])

    def _sweep(self, max_stalls: int) -> int:
        lapsed = sorted((until, name) for name, until in self.leases.items() if until <= self.now)
        taken = 0
        for _, worker in lapsed:
            for entry in self.held_by(worker):
                taken += 1
                job = self.jobs[entry["id"]]
                self.lanes[job["lane"]].remove(entry)
                if job["stalls"] == 0 or job["mark"] == entry["n"]:
                    job["stalls"] += 1
                asked = self.cancels.pop(entry["n"], None)
                if asked is not None:
                    self._cancel(job, asked["keep"], asked["age"])
                elif job["stalls"] >= max_stalls:
                    text = f"its worker was lost {job['stalls']} times while running it"
                    self._fail(job, ("WorkerLost", text), POISON_KEEP, POISON_AGE_MS)
                else:
                    self._place(job, has_envelope=entry["has_envelope"])
                    self._note("stalled", job["id"])
            del self.leases[worker]
        return taken

    def _promote_due(self) -> int:
        due = [job_id for job_id in self.in_state("delayed") if self.jobs[job_id]["look"] <= self.now]
        for job_id in due:
            self._enter(self.jobs[job_id], since=self.jobs[job_id]["look"])
            self._note("promoted", job_id)
        return len(due)

    def _hand_out(self) -> list[str]:
        looks = sorted((s["look"], name) for name, s in self.schedules.items() if s["look"] <= self.now)
        for _, name in looks:
            self.schedules[name]["look"] = self.now + HAND_OUT_MS
        return [name for _, name in looks]

    def _retain(self) -> None:
        for state in ("completed", "failed", "cancelled"):
            self._retain_one(state)

    def _retain_one(self, state: str) -> None:
        ids = self.in_state(state)
        excess = len(ids) - self._keep[state] if state in self._keep else 0
        gone = ids[: max(excess, 0)]
        if state in self._ages:
            gone += [i for i in ids if i not in gone and self.jobs[i]["finished"] <= self.now - self._ages[state]]
        for job_id in gone:
            self._forget(self.jobs[job_id])

    def _allowed(self, want: int) -> tuple[int, int | None]:
        if self.hold_until is not None and self.hold_until > self.now:
            return 0, self.hold_until
        next_at = None
        if self.max_active is not None:
            want = max(min(want, self.max_active - len(self.active())), 0)
        if self.rate is not None and want:
            room, next_at = self._room_in_window(*self.rate)
            self._short = want > room
            want = min(want, room)
        return want, next_at if self._short else None

    def _room_in_window(self, most: int, per: int) -> tuple[int, int | None]:
        """While a backlog stands at the limit, a tenth of the window may start a tenth of the rate, and some more."""
        window = per + min(-(-per * 2 // 100), 50)
        pace = max(window / 10, 50)
        self.starts = [(at, count) for at, count in self.starts if self.now - window < at <= self.now]
        lately = [(at, count) for at, count in self.starts if at + pace > self.now]
        room = max(most - sum(count for _, count in self.starts), 0)
        if self.full_at + 2 * window > self.now:
            share = max(math.ceil(most * pace / window * 1.25) - sum(count for _, count in lately), 0)
            if share < room:
                return share, math.ceil((lately[0][0] if lately else self.now) + pace)
        return room, self.starts[0][0] + window if self.starts else None

    def _claim(self, worker: str, may: int) -> list[Found]:
        claimed: list[Found] = []
        stepped_back: list[Found] = []
        for lane in LANES:
            brought = False
            while len(claimed) < may:
                entries = self._next_entries(lane)
                if not entries:
                    brought = bool(self.places.top_up(lane, may - len(claimed)))
                    if not brought:
                        break
                    continue
                entry = entries[0]
                job = self.jobs[entry["id"]]
                if job["key"] is not None and not brought and not self.places.may_start(job):
                    self.lanes[lane].remove(entry)
                    self.places.step_back(job, entry["t"])
                    stepped_back.append(job)
                    continue
                entry.update(who=worker, claimed=self.now)
                claimed.append(entry)
                self.unique.release(job, "started")
                self._note("active", job["id"])
        self.places.end_claim(stepped_back)
        if claimed and self.rate is not None:
            self.starts.append((self.now, len(claimed)))
        if self._short and len(claimed) == may and any(e["who"] is None for lane in LANES for e in self.lanes[lane]):
            self.full_at = self.now
        return claimed

    def _next_entries(self, lane: int) -> list[Found]:
        """What waits in a lane: what was given back comes first."""
        given_back = [e for e in self.lanes[lane] if e["who"] == SPARE]
        return given_back + [e for e in self.lanes[lane] if e["who"] is None]

    def _next_ms(self, next_at: int | None) -> int:
        moments = [] if next_at is None else [next_at]
        moments += [job["look"] for job in self.jobs.values() if job["state"] == "delayed" and job["look"] < PARKED]
        moments += self.places.looks.values() if self.bound else []
        moments += self.leases.values()
        moments += [s["look"] for s in self.schedules.values() if s["look"] < PARKED]
        return max(min(moments) - self.now, 0) if moments else -1

    # A worker, otherwise ----------------------------------------------------------------------------------------------

    def renew(self, worker: str, lease: int) -> tuple[bool, list[int]]:
        """Answers whether the lease is there, and which of its entries are to end."""
        if worker not in self.leases:
            return False, []
        self._renew(worker, lease)
        return True, sorted(n for n, asked in self.cancels.items() if asked["worker"] == worker)

    def _renew(self, worker: str, lease: int) -> None:
        """Where all leases have lapsed it was Redis that was away: those that were not given up begin anew."""
        if self.leases and max(self.leases.values()) < self.now:
            self.leases = {name: self.now + lease if until else 0 for name, until in self.leases.items()}
        self.leases[worker] = self.now + lease

    def leave(self, worker: str) -> int:
        """Answers how many jobs it held, which are now anybody's."""
        held = len(self.held_by(worker))
        if held:
            self.leases[worker] = 0
        else:
            self.leases.pop(worker, None)
        return held

    def progress(self, lane: int, number: int, job_id: str, value: Any) -> bool:
        """Answers whether it was taken."""
        if self.pending_entry(lane, number) is None:
            return False
        self.jobs[job_id]["progress"] = value
        self._tell("progress", [job_id])
        return True

    def log(self, lane: int, number: int, job_id: str, line: str, cap: int) -> bool:
        """Answers whether it was taken."""
        if self.pending_entry(lane, number) is None:
            return False
        job = self.jobs[job_id]
        job["log"] = [*job["log"], line][-cap:]
        job["logged"] += 1
        return True

    def remember(self, lane: int, number: int, job_id: str, field: str, value: Any) -> bool:
        """Answers whether it was taken."""
        if self.pending_entry(lane, number) is None:
            return False
        self.jobs[job_id]["steps"][field] = value
        return True

    def recall(self, lane: int, number: int, job_id: str) -> Found | None:
        """Answers what the job has remembered; None if it is no longer this attempt's."""
        return None if self.pending_entry(lane, number) is None else dict(self.jobs[job_id]["steps"])

    # One job ----------------------------------------------------------------------------------------------------------

    def retry(self, job_id: str) -> Any:
        """Answers `retried`, `unknown`, the state that forbids it, or ("held", by whom)."""
        if self.state(job_id) not in ("failed", "cancelled"):
            return self.state(job_id) or "unknown"
        holder = self._rebind(self.jobs[job_id])
        if holder is not None:
            return "held", holder
        if self._revive(self.jobs[job_id]):
            self._tell("added", [job_id])
        return "retried"

    def _rebind(self, job: Found) -> str | None:
        """A job is to come back, with parents that failed because of it. Answers who holds its unique key by now."""
        holder = self.unique.retake(job)
        coming = [job] if holder is None else []
        for one in coming:
            for parent in self.families.rejoin(one):
                if self.unique.retake(parent) is None:
                    self._come_back(parent)
                    self._await_children(parent)
                    coming.append(parent)
        return holder

    def _revive(self, job: Found) -> bool:
        """Answers whether it is in its lane, or parked; else it waits for those of its children that have not ended."""
        self._come_back(job)
        if job["open"]:
            self._await_children(job)
            return False
        self._enter(job)
        self.places.settle()
        return True

    def _come_back(self, job: Found) -> None:
        self.letters = [letter for letter in self.letters if letter is not job["letter"]]
        job.update(attempts=0, stalls=0, releases=0, started=None, progress=None, result=None, letter=None, mark=None)
        job.update(finished=None, failed_by_child=False)

    def _await_children(self, job: Found) -> None:
        job.update(state="waiting_children", since=self.now)
        self._tell("waiting_children", [job["id"]])

    def remove(self, job_id: str, force: bool) -> str:
        """Answers `removed`, `unknown`, or `active`."""
        state = self.state(job_id)
        if state is None or (state == "active" and not force):
            return state or "unknown"
        self._take_out(job_id)
        return "removed"

    def _take_out(self, job_id: str) -> None:
        job = self.jobs[job_id]
        self._unbind(job, "removed")
        self.places.settle()
        self._leave_lane(job)
        del self.jobs[job_id]
        self.letters = [letter for letter in self.letters if letter is not job["letter"]]
        self._tell("removed", [job_id])

    def cancel(self, job_id: str, keep: int, age: int) -> str:
        """Answers `cancelled`, `asked`, `unknown`, `already`, or how it has ended."""
        state = self.state(job_id)
        if state not in UNENDED:
            return {None: "unknown", "cancelled": "already"}.get(state, str(state))
        self._begin()
        answer = self._begin_cancel(job_id, keep, age)
        self._retain()
        self._finish()
        return answer

    def _begin_cancel(self, job_id: str, keep: int, age: int) -> str:
        job, entry = self.jobs[job_id], self._entry(self.jobs[job_id])
        if entry is not None and _is_active(entry):
            asked = {"worker": entry["who"], "keep": keep, "age": age}
            self.cancels.setdefault(entry["n"], asked)
            return "asked"
        self._leave_lane(job)
        job["due"] = None
        self._cancel(job, keep, age)
        return "cancelled"

    def cancel_many(self, state: str, count: int | None, name: str | None, keep: int, age: int) -> list[str]:
        """Answers the ids of those that are cancelled, or whose workers are asked."""
        ids: list[str] = []

        def take(found: Iterable[str]) -> int:
            taken = 0
            for job_id in found:
                # A parent may have started or ended with the child before it.
                if len(ids) != count and self.state(job_id) == state and _matches(self.jobs[job_id], name, None):
                    self._begin_cancel(job_id, keep, age)
                    ids.append(job_id)
                    taken += 1
            return taken

        def step(*parts: Callable[[], Iterable[str]]) -> int:
            self._begin()
            taken = sum(take(list(part())) for part in parts)
            self._retain()
            self._finish()
            return taken

        if state != "waiting":
            step(lambda: self.in_state(state))
            return ids
        while step(lambda: [job["id"] for job in self.places.parked_jobs()]):
            pass
        step(*(partial(self._in_lane, lane) for lane in LANES))
        return ids

    def _in_lane(self, lane: int) -> list[str]:
        return [entry["id"] for entry in self.lanes[lane]]

    def promote(self, job_id: str) -> str:
        """Answers `promoted`, `unknown`, `parked` (it waits for another job's end), or the state that forbids it."""
        if self.state(job_id) != "delayed":
            return self.state(job_id) or "unknown"
        if self.jobs[job_id]["look"] == PARKED:
            return "parked"
        self._enter(self.jobs[job_id])
        self.places.settle()
        self._tell("promoted", [job_id])
        return "promoted"

    def reschedule(self, job_id: str, start: str) -> str:
        """Answers `rescheduled`, `unknown`, `parked` (it waits for another job's end), or the state that forbids it."""
        if self.state(job_id) != "delayed":
            return self.state(job_id) or "unknown"
        if self.jobs[job_id]["look"] == PARKED:
            return "parked"
        due = self._due(start)
        self.jobs[job_id].update(due=due, look=due)
        self._tell("rescheduled", [job_id])
        return "rescheduled"

    def change_priority(self, job_id: str, lane: int) -> str:
        """Answers `changed`, `same`, `unknown`, or the state that forbids it."""
        state, job = self.state(job_id), self.jobs.get(job_id)
        if job is None or state not in ("waiting", "delayed"):
            return state or "unknown"
        if job["lane"] == lane:
            return "same"
        entry = self._entry(job)
        if state == "waiting":
            # One with a key has waited since it came; any other one since now.
            since = None if job["key"] is None else entry["t"] if entry else job["since"]
            self.places.leave(job)
            self._leave_lane(job)
            job["lane"] = lane
            self._enter(job, since=since, has_envelope=bool(entry and entry["has_envelope"]))
        job["lane"] = lane
        self.places.changed_lane(job)
        self.places.settle()
        self._tell("reprioritized", [job_id])
        return "changed"

    def update_data(self, job_id: str, before: Any, what: Any) -> str:
        """Answers `updated`, `changed`, `unknown`, or the state that forbids it."""
        state, job = self.state(job_id), self.jobs.get(job_id)
        if job is None or state not in ("waiting", "delayed", "failed"):
            return state or "unknown"
        if job["what"] != before:
            return "changed"
        job["what"] = what
        entry = self._entry(job)
        if entry is not None and entry["has_envelope"]:
            self.lanes[job["lane"]].remove(entry)
            self._place(job, has_envelope=True)
        self._tell("updated", [job_id])
        return "updated"

    # Many jobs --------------------------------------------------------------------------------------------------------

    def clean(self, state: str, grace: int, limit: int) -> list[str]:
        """Answers the ids of those that went."""
        cutoff = self.now - grace
        if state == "waiting":
            ids = self._discard_waiting(cutoff, limit)
        else:
            at = {"delayed": "created", "waiting_children": "since"}.get(state, "finished")
            ids = [i for i in self.in_state(state) if self.jobs[i][at] <= cutoff][:limit]
            self._drop(ids)
        self._tell("cleaned", [""])
        return ids

    def _discard_waiting(self, cutoff: int, limit: int) -> list[str]:
        """Those that are parked go first. What becomes of the rest of a key then is seen to before the lanes are."""
        ids: list[str] = []
        while some := self._old_parked(cutoff, limit - len(ids)):
            self._drop(some)
            ids += some
        some = self._old_waiting(cutoff, limit - len(ids))
        self._drop(some)
        return ids + some

    def _old_parked(self, cutoff: int, limit: int) -> list[str]:
        ids: list[str] = []
        for key in self.places.names():
            for lane in reversed(LANES):
                for job in self.places.parked[lane, key]:
                    if job["since"] > cutoff:
                        break
                    ids.append(job["id"])
        return ids[:limit]

    def _old_waiting(self, cutoff: int, limit: int) -> list[str]:
        ids: list[str] = []
        for lane in reversed(LANES):
            spare = [e for e in self.lanes[lane] if e["who"] == SPARE][: limit - len(ids)]
            ids += [e["id"] for e in spare if e["t"] <= cutoff]
            for entry in self.lanes[lane]:
                if entry["who"] is None:
                    if len(ids) >= limit or entry["t"] > cutoff:
                        break
                    ids.append(entry["id"])
        return ids

    def _drop(self, ids: Iterable[str]) -> None:
        ids = list(ids)
        for job_id in ids:
            self._leave_lane(self.jobs[job_id])
            if self.jobs[job_id]["state"] == "waiting_children":
                self.jobs[job_id]["state"] = "gone"
        for job_id in ids:
            self._unbind(self.jobs[job_id], "removed")
        self.places.settle()
        for job_id in ids:
            del self.jobs[job_id]
        self._tell("removed", ids)

    def drain(self, delayed: bool) -> int:
        """Answers how many went."""
        waiting = self._discard_waiting(self.now, self.size())
        late = self.in_state("delayed") if delayed else []
        self._drop(late)
        self._tell("drained", [""])
        return len(waiting) + len(late)

    def obliterate(self, force: bool) -> int | str:
        """Answers how many jobs went, or `active`."""
        if self.active() and not force:
            return "active"
        gone = len(self.jobs)
        answers = self.answers
        self.forget_everything()
        self.answers = answers
        self.events = []
        self._tell("obliterated", [""])
        return gone

    def retry_many(self, state: str, count: int | None, name: str | None, error: str | None) -> list[str]:
        """Answers the ids of those that wait again."""
        ids: list[str] = []
        added: list[str] = []
        # Parents come after the children that failed them: by then they may wait for those again.
        found = [self.jobs[i] for i in self.in_state(state) if _matches(self.jobs[i], name, error)][:count]
        for job in sorted(found, key=lambda job: job["failed_by_child"]):
            if job["state"] == state and self._rebind(job) is None:
                ids.append(job["id"])
                added += [job["id"]] if self._revive(job) else []
        self._tell("added", added)
        return ids

    def redrive(self, name: str | None, error: str | None) -> tuple[list[str], int]:
        """Answers the ids of the jobs that wait again, and how many letters stay though they match."""
        ids, stay = [], 0
        for letter in [letter for letter in self.letters if _matches(letter, name, error)]:
            job = self.jobs.get(letter["id"])
            if job is not None and job["letter"] is letter and self._rebind(job) is None:
                self._revive(job)
            elif job is not None or not self._add_again(letter):
                stay += 1
                continue
            self.places.settle()
            ids.append(letter["id"])
        self._tell("redriven", ids)
        return ids, stay

    def _add_again(self, letter: Found) -> bool:
        unique, key = letter["unique"], letter["key"]
        if unique and self.unique.holder(unique["key"]) not in (None, letter["id"]):
            return False
        self.letters = [other for other in self.letters if other is not letter]
        self.bound = self.bound or bool(unique or key)
        job = self._new_job(letter["id"], letter["lane"], letter["what"], unique, key)
        if unique:
            self.unique.hold(job["id"], unique)
        self._enter(job, has_envelope=key is None)
        return True

    def purge_dead(self, name: str | None, error: str | None) -> int:
        """Answers how many letters went."""
        gone = [letter for letter in self.letters if _matches(letter, name, error)]
        self.letters = [letter for letter in self.letters if letter not in gone]
        self._tell("purged", [letter["id"] for letter in gone])
        return len(gone)

    def forward(self, seen: Any, letters: Sequence[Found]) -> Any:
        """Answers up to which letter all were forwarded; what was there before the first call is not."""
        if self.forwarded is None:
            self.forwarded = self.letters[-1]["at"] if self.letters else (0, 0)
        if letters and seen == self.forwarded:
            left = [letter for letter in letters if any(letter is other for other in self.letters)]
            self.other += [(letter["lane"], letter["what"]) for letter in left]
            self.forwarded = letters[-1]["at"]
        return self.forwarded

    # The queue --------------------------------------------------------------------------------------------------------

    def pause(self) -> bool:
        """Answers whether it ran."""
        if self.paused:
            return False
        self.paused = True
        self._tell("paused", [""])
        return True

    def resume(self) -> bool:
        """Answers whether it was paused."""
        if not self.paused:
            return False
        self.paused = False
        self._tell("resumed", [""])
        return True

    def limit(self, rate: tuple[int, int] | None, max_active: int | None) -> None:
        """Set both limits; None lifts one."""
        if rate is None:
            self.full_at = 0
        self.rate, self.max_active = rate, max_active

    # Schedules --------------------------------------------------------------------------------------------------------

    def schedule(self, name: str, *, lane: int, what: Any, overlap: str, limit: int | None, first: int) -> None:
        """A new schedule, or other jobs for one that is there (its timing stays)."""
        found = self.schedules.get(name)
        if found is None:
            self.schedules[name] = {
                **{"fired": 0, "skipped": 0, "last": None, "waiting": None, "paused": False},
                **{"lane": lane, "what": what, "overlap": overlap, "limit": limit, "next": first, "look": first},
            }
            self._revise(self.schedules[name])
        elif (found["lane"], found["what"], found["overlap"]) != (lane, what, overlap):
            found.update(lane=lane, what=what, overlap=overlap)
            self._revise(found)

    def _revise(self, schedule: Found) -> None:
        self.counter += 1
        schedule["rev"] = self.counter

    def fire(
        self,
        name: str,
        rev: int,
        seen: int | None,
        slots: Sequence[int],
        following: int | None,
        keep_cancelled: tuple[int, int],
    ) -> tuple[int, int] | None:
        """Answers how many jobs were added and how many slots skipped; None if the schedule is elsewhere by now."""
        found = self.schedules.get(name)
        if found is None or found["paused"] or (found["rev"], found["next"]) != (rev, seen):
            return None
        overlap, jobs, skipped = found["overlap"], [], []
        left = 10**9 if found["limit"] is None else found["limit"] - found["fired"]
        busy = overlap != "allow" and self.state(found["last"] or "") in UNENDED
        waiting, last = found["waiting"], found["last"]
        gone = None

        def run(slot: int) -> None:
            nonlocal left, last, busy
            last = f"{name}@{slot}"
            jobs.append({"lane": found["lane"], "start": "0", "id": last, "what": found["what"]})
            left -= 1
            busy = overlap != "allow"

        if waiting is not None and not busy:
            run(waiting)
            waiting = None
        for at, slot in enumerate(slots):
            if left - (waiting is not None) <= 0:
                break
            if overlap == "cancel_previous" and at == len(slots) - 1:
                gone = last if busy and not jobs else None
                run(slot)
            elif overlap == "cancel_previous" or (busy and (overlap == "skip" or waiting is not None)):
                skipped.append(f"{name}@{slot}")
            elif busy:
                waiting = slot
            else:
                run(slot)
        next_slot = following if left - (waiting is not None) > 0 else None
        self._begin()
        if gone is not None:
            self._begin_cancel(gone, *keep_cancelled)
        self._retain()
        self._finish()
        answer = self.enqueue(jobs) if jobs else []
        added = sum(is_new for _, is_new in answer)
        self._tell("skipped", skipped)
        look = PARKED if next_slot is None else next_slot
        if waiting is not None:
            look = min(look, self.now + LOOK_AGAIN_MS)
        found.update(next=next_slot, waiting=waiting, last=last, look=look)
        found["fired"] += added
        found["skipped"] += len(skipped)
        return added, len(skipped)

    def trigger(self, name: str) -> str | None:
        """Answers the id of the job; None if the schedule is unknown."""
        found = self.schedules.get(name)
        if found is None:
            return None
        at = self.now
        while f"{name}@{at}" in self.jobs:
            at += 1
        job_id = f"{name}@{at}"
        self.enqueue([{"lane": found["lane"], "start": "0", "id": job_id, "what": found["what"]}])
        if self.state(found["last"] or "") not in UNENDED:
            found["last"] = job_id
        return job_id

    def suspend(self, name: str) -> None:
        """Pause a schedule."""
        found = self.schedules.get(name)
        if found is not None and not found["paused"]:
            found["skipped"] += found["waiting"] is not None
            found.update(paused=True, waiting=None, look=PARKED)

    def restart(self, name: str, following: int) -> None:
        """Let a paused schedule run again."""
        found = self.schedules.get(name)
        if found is not None and found["paused"]:
            next_slot = None if found["next"] is None else following
            found.update(paused=False, next=next_slot, look=PARKED if next_slot is None else next_slot)
            self._revise(found)

    # Words ------------------------------------------------------------------------------------------------------------

    def _new_job(self, job_id: str, lane: int, what: Any, unique: Found | None = None, key: str | None = None) -> Found:
        job = {
            **{"unique": unique, "key": key, "look": None, "since": None, "steps": {}, "failed_by_child": False},
            **{"parents": [], "children": {}, "open": 0, "had": 0, "guilty": 0, "token": None, "keep": 0},
            **{"id": job_id, "lane": lane, "what": what, "state": "lane", "created": self.now, "n": 0, "due": None},
            **{"attempts": 0, "stalls": 0, "interruptions": 0, "releases": 0, "mark": None, "letter": None},
            **{"started": None, "finished": None, "progress": None, "result": None, "error": None, "errors": {}},
            **{"log": [], "logged": 0},
        }
        self.jobs[job_id] = job
        return job

    def _place(
        self, job: Found, *, number: int | None = None, since: int | None = None, has_envelope: bool = False
    ) -> None:
        if number is None or number <= self.last[job["lane"]]:
            self.counter += 1  # its own number is no use behind one of a parent that started while it was added
            number = self.counter
        self.last[job["lane"]] = number
        since = self.now if since is None else since
        entry = {"n": number, "id": job["id"], "t": since, "who": None, "has_envelope": has_envelope}
        self.lanes[job["lane"]].append(entry)
        job.update(state="lane", n=number, finished=None)

    def _enter(
        self, job: Found, *, number: int | None = None, since: int | None = None, has_envelope: bool = False
    ) -> None:
        """A job comes in: at the end of its lane, or where its key has it wait."""
        if job["key"] is None:
            self._place(job, number=number, since=since, has_envelope=has_envelope)
            return
        if number is None:
            self.counter += 1
            number = self.counter
        self.places.enter(job, number, self.now if since is None else since)

    def _leave_lane(self, job: Found) -> None:
        entry = self._entry(job)
        if entry is not None:
            self.lanes[job["lane"]].remove(entry)
            self.cancels.pop(entry["n"], None)
            job["state"] = "gone"

    def _unbind(self, job: Found, how: str) -> None:
        """A job goes its last step: `completed`, `failed`, `cancelled` or `removed`. Parents may end with it."""
        self.unique.release(job, how)
        self.places.leave(job)
        self._go_on(self.families.leave(job, how, end_of(job)))

    def _go_on(self, going: list[tuple[Found, str, Any]]) -> None:
        for parent, how, body in going:
            self.unique.release(parent, how)
            self.places.leave(parent)
            going += self.families.leave(parent, how, body)
            if not parent["keep"]:
                self._forget(parent)

    def _forget(self, job: Found) -> None:
        """Nothing of an ended job is kept, or no longer."""
        self.unique.release(job, "forgotten")
        del self.jobs[job["id"]]

    def _begin(self) -> None:
        self._told, self._keep, self._ages = {}, {}, dict(self.ages)

    def _finish(self) -> None:
        self.places.settle()
        for kind, ids in self._told.items():
            self._tell(kind, ids)

    def _entry(self, job: Found) -> Found | None:
        if job["state"] != "lane":
            return None
        return next(e for e in self.lanes[job["lane"]] if e["n"] == job["n"])

    def _sorted(self, jobs: Iterable[Found], at: str) -> list[str]:
        return [job["id"] for job in sorted(jobs, key=lambda job: (job[at], job["id"].encode()))]

    def _note(self, kind: str, job_id: str) -> None:
        self._told.setdefault(kind, []).append(job_id)

    def _tell(self, kind: str, ids: Iterable[str]) -> None:
        self.events += [(kind, job_id) for job_id in ids]


def _is_active(entry: Found) -> bool:
    return entry["who"] not in (None, SPARE)


def _matches(found: Found, name: str | None, error: str | None) -> bool:
    return name in (None, found["what"][0]) and error in (None, found["error"] and found["error"][0])


def _passing(outcomes: Sequence[Found]) -> int:
    """Of many jobs that complete in one call with one retention, how many of the first are not kept at all."""
    keeps = [outcome["keep"] for outcome in outcomes if outcome["kind"] == "done"]
    return max(len(keeps) - keeps[0], 0) if keeps and len(set(keeps)) == 1 else 0
