"""A real queue on a real server, as the model sees one: what it holds is read by the public views."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import redis

from streamq import JobSnapshot, JobState, Queue, Retention, Settings
from streamq._engine import codec
from streamq._engine.store import Store
from streamq._engine.transitions import Claim, Outcome, TickArgs, TickReply
from streamq.events import unfold
from streamq.fairness import KeyLimits
from streamq.job import JobError
from tests.model.clock import set_clock
from tests.model.key_places import NOTHING, Places
from tests.model.model import Found, Model

T = TypeVar("T")
STATES = ("waiting", "active", "delayed", "completed", "failed", "cancelled", "waiting_children")
OTHER = "sq:{other}"
EVENTS_CAP = 1_000_000
KEEP_CANCELLED = 2, 60.0
"""How many cancelled jobs stay, for how many seconds."""


def envelope(what: tuple[str, Any]) -> bytes:
    """A job's name and data, encoded."""
    return codec.encode_envelope(what[0], codec.encode_data("data", what[1], 10_000_000), None)


def what_of(body: bytes) -> tuple[str, Any]:
    """The other way round."""
    found = codec.decode_envelope(body)
    return found.name, codec.decode(bytes(found.data))


def encode_error(error: tuple[str, str]) -> bytes:
    """How an attempt failed."""
    return codec.encode_error(JobError(*error))


class Real:
    """The queue under test. Owns a loop, since hypothesis' machines are plain functions."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.runner = asyncio.Runner()
        self.queue = Queue(
            "q", settings=Settings(redis_url=url, events_cap=EVENTS_CAP, keep_cancelled=Retention(*KEEP_CANCELLED))
        )
        self.store: Store = self.queue._store
        self.base = self.store.base
        self._others = Queue("q", settings=self.queue.settings)
        """Other processes', which learn by themselves whether the queue has had bound jobs."""

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for a call."""
        return self.runner.run(call)

    def close(self) -> None:
        """Close the connections."""
        self.run(self.queue.close())
        self.run(self._others.close())
        self.runner.close()
        self.client.close()

    def begin(self, now: int) -> None:
        """Be empty, at a time."""
        self.client.flushdb()
        self.last_event = "-"
        for queue in (self.queue, self._others):
            queue._store._bound = False
        set_clock(self.client, now)

    # A worker's turn --------------------------------------------------------------------------------------------------

    def tick(
        self,
        worker: str,
        want: int,
        outcomes: list[Found],
        *,
        lease: int,
        max_stalls: int,
        marks: list[str],
        list_held: bool,
    ) -> Found:
        """Tick, and tell the reply as the model does."""
        args = TickArgs(worker=worker, lease_ms=lease, max_stalls=max_stalls, events_cap=EVENTS_CAP, dead_cap=10_000)
        sent = [_outcome(outcome) for outcome in outcomes]
        store = self.store if worker == "ann" else self._others._store
        reply = self.run(store.tick(args, want, sent, list_held=list_held, marks=marks))
        return _told(reply)

    # Another queue ----------------------------------------------------------------------------------------------------

    def letters(self) -> list[tuple[int, int]]:
        """The ids of the dead letters."""
        return [_pair(letter.decode()) for letter, _ in self.client.xrange(f"{self.base}:dead")]

    def forward(self, seen: tuple[int, int] | None, jobs: list[tuple[tuple[int, int], int, bytes]]) -> tuple[int, int]:
        """Forward jobs, each with its letter and lane."""
        upto = _text(jobs[-1][0]) if jobs else ""
        sent = [(_text(letter), lane, body) for letter, lane, body in jobs]
        return _pair(self.run(self.store.forward(OTHER, _text(seen) if jobs else "", upto, sent)))

    def forwarded(self) -> list[tuple[int, Any]]:
        """What the other queue holds, lane by lane."""
        return [
            (lane, what_of(fields[b"d"])) for lane in (1, 2, 3, 4)
            for _, fields in self.client.xrange(f"{OTHER}:lane:{lane}")
        ]  # fmt: skip

    # Looking ----------------------------------------------------------------------------------------------------------

    def new_events(self) -> list[tuple[str, str]]:
        """Events since the last look."""
        found: list[tuple[str, str]] = []
        for entry, fields in self.client.xrange(f"{self.base}:events", self.last_event, "+"):
            self.last_event = f"({entry.decode()}"
            flat = [part for pair in fields.items() for part in pair]
            found += [(event.kind, event.job_id) for event in unfold(entry.decode(), flat)]
        return found

    async def view(self, also: list[str]) -> Found:
        """All that the public views tell, in the form of `expected`; `also` are ids to look up one by one."""
        queue = self.queue
        pages = dict(
            zip(STATES, await asyncio.gather(*(queue.jobs(JobState(s), count=1000) for s in STATES)), strict=True)
        )
        stats, workers, letters, limits, schedules, keys = await asyncio.gather(
            queue.stats(),
            queue.workers(),
            queue.dead_letters(count=1000),
            queue.limits(),
            queue.schedules(),
            queue.keys(),
        )
        jobs = await asyncio.gather(*map(queue.get_job, also))
        logs = await asyncio.gather(*map(queue.logs, also))
        parents = [job.id for job in jobs if job is not None and job.children]
        families = await asyncio.gather(*map(queue.children, parents))
        return {
            "jobs": {state: [_job(job) for job in page] for state, page in pages.items()},
            "get": {job_id: _job(job) for job_id, job in zip(also, jobs, strict=True)},
            "logs": dict(zip(also, logs, strict=True)),
            "children": {
                parent: [(c.place, c.id, c.state and str(c.state), c.result, _error(c.error)) for c in children]
                for parent, children in zip(parents, families, strict=True)
            },
            "counts": {
                **{state: getattr(stats, state) for state in STATES},
                **{"dead": stats.dead, "paused": stats.paused, "workers": stats.workers},
            },
            "waiting": {int(lane): count for lane, count in stats.waiting_by_priority.items()},
            "oldest": {int(lane): age and round(age * 1000) for lane, age in stats.oldest_by_priority.items()},
            "workers": {
                w.id: (round(w.lease_left * 1000), [w.held[lane] for lane in sorted(w.held)], [j.id for j in w.jobs])
                for w in workers
            },
            "letters": [
                (l.job_id, (l.name, l.data), int(l.priority), (l.error.type, l.error.message), l.is_kept)
                for l in letters  # noqa: E741
            ],
            "limits": (
                limits.paused,
                limits.rate and (limits.rate.max, limits.rate.per_ms),
                limits.concurrency,
                limits.max_size,
            ),
            "schedules": {s.id: (s.fired, s.skipped, s.paused, s.last_job_id) for s in schedules},
            "keys": [(k.key, k.jobs, k.parked, k.paused, *_limits(k.limits)) for k in keys],
            "keys in all": (keys.total, *_limits(keys.limits)),
            "unique": {kind: self._texts(kind) for kind in ("unique", "next")},
        }

    def _texts(self, kind: str) -> dict[str, str]:
        """Keys whose values are job ids: no view tells of them."""
        prefix = f"{self.base}:{kind}:"
        return {
            key.decode().removeprefix(prefix): self.client.get(key).decode()
            for key in self.client.scan_iter(match=f"{prefix}*", count=1000)
        }


def expected(model: Model, also: list[str]) -> Found:
    """What the public views are to tell."""
    ids = {state: model.in_state(state) for state in STATES}
    return {
        "jobs": {state: [_expected_job(model, job_id) for job_id in ids[state]] for state in STATES},
        "get": {job_id: _expected_job(model, job_id) for job_id in also},
        "logs": {job_id: model.jobs[job_id]["log"] if job_id in model.jobs else [] for job_id in also},
        "children": {
            job_id: [
                (place, child["id"], *_expected_end(child["ended"]))
                for place, child in sorted(model.jobs[job_id]["children"].items())
                if child["ended"] is None or not child["ended"][2]
            ]
            for job_id in also
            if job_id in model.jobs and model.jobs[job_id]["had"]
        },
        "counts": {
            **{state: len(ids[state]) for state in STATES},
            **{"dead": len(model.letters), "paused": model.paused},
            "workers": sum(until >= model.now for until in model.leases.values()),
        },
        "waiting": {lane: model.waiting(lane) for lane in model.lanes},
        "oldest": {lane: model.oldest(lane) for lane in model.lanes},
        "workers": {
            worker: (
                max(until - model.now, 0),
                [len(model.held_by(worker, lane)) for lane in model.lanes],
                [entry["id"] for entry in model.held_by(worker)],
            )
            for worker, until in model.leases.items()
        },
        "letters": [
            (
                *(letter["id"], letter["what"], letter["lane"], letter["error"]),
                (model.jobs.get(letter["id"]) or {}).get("letter") is letter,
            )
            for letter in model.letters
        ],
        "limits": (model.paused, model.rate, model.max_active, model.max_size),
        "schedules": {name: (s["fired"], s["skipped"], s["paused"], s["last"]) for name, s in model.schedules.items()},
        "keys": [_expected_key(model.places, key) for key in model.places.names()],
        "keys in all": (len(model.places.names()), *model.places.common.values()),
        "unique": {
            "unique": {key: holder for key, (holder, _) in model.unique.holders.items()},
            "next": model.unique.nexts,
        },
    }


def _expected_end(ended: tuple[str, Any, bool] | None) -> tuple[Any, ...]:
    how, body, _ = ended or (None, None, False)
    return how, body if how == "completed" else None, body if how == "failed" else None


def _expected_key(places: Places, key: str) -> tuple[Any, ...]:
    parked = places.count(key) - len(places.placed[key])
    return key, places.count(key), parked, key in places.paused, *places.own.get(key, NOTHING).values()


def _limits(limits: KeyLimits) -> tuple[Any, ...]:
    return limits.concurrency, limits.rate and (limits.rate.max, limits.rate.per_ms), limits.weight


def _job(job: JobSnapshot | None) -> Found | None:
    if job is None:
        return None
    started = job.started_at
    return {
        **{"id": job.id, "what": (job.name, job.data), "state": str(job.state), "lane": int(job.priority)},
        **{"attempts": job.attempts_made, "stalls": job.stalls, "interruptions": job.interruptions},
        **{"progress": job.progress, "result": job.result, "error": _error(job.error)},
        "errors": {attempt: _error(error) for attempt, error in job.errors.items()},
        "created": _ms(job.created_at),
        "started": "running" if job.state is JobState.ACTIVE and started else _ms(started),
        **{"finished": _ms(job.finished_at), "due": _ms(job.run_at), "unique": job.unique_key},
        **{"parents": [parent for _, parent in job.parents], "children": (job.children, job.open_children)},
    }


def _expected_job(model: Model, job_id: str) -> Found | None:
    state, job = model.state(job_id), model.jobs.get(job_id)
    if job is None:
        return None
    made = job["attempts"]
    upto = made - 1 if state in ("completed", "failed", "cancelled") else made
    errors = {attempt: error for attempt, error in job["errors"].items() if attempt <= upto}
    if state == "failed":
        errors[made] = job["error"]
    names = ("id", "what", "lane", "attempts", "stalls", "interruptions", "progress", "error", "created")
    return {
        **{name: job[name] for name in names},
        **{"state": state, "errors": errors, "started": "running" if state == "active" else job["started"]},
        "result": job["result"] if state == "completed" else None,
        "finished": job["finished"] if state in ("completed", "failed", "cancelled") else None,
        "due": job["due"] if state == "delayed" else None,
        "unique": job["unique"] and job["unique"]["key"],
        **{"parents": [link[0] for link in job["parents"]], "children": (job["had"], job["open"])},
    }


def _text(letter: tuple[int, int] | None) -> str:
    return "" if letter is None else f"{letter[0]}-{letter[1]}"


def _pair(letter: str) -> tuple[int, int]:
    ms, _, count = letter.partition("-")
    return int(ms), int(count)


def _error(error: JobError | None) -> tuple[str, str] | None:
    return None if error is None else (error.type, error.message)


def _ms(moment: Any) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _outcome(outcome: Found) -> Outcome:
    kind, lane, entry, job_id = outcome["kind"], outcome["lane"], f"{outcome['n']}-0", outcome["id"]
    ran = outcome.get("started", 0), outcome.get("attempts", 0)
    if kind == "done":
        body = b"" if outcome["result"] is None else codec.encode_result(outcome["result"], 1_000)
        return Outcome(kind, lane, entry, job_id, body, outcome["keep"], outcome["age"], *ran)
    if kind == "fail":
        body = encode_error(outcome["error"])
        return Outcome(kind, lane, entry, job_id, body, outcome["keep"], outcome["age"], *ran)
    if kind == "retry":
        return Outcome(kind, lane, entry, job_id, encode_error(outcome["error"]), outcome["delay"], 0, *ran)
    letter = {"interruptions": "i", "releases": "n"}.get(outcome.get("counter", ""), "")
    return Outcome(kind, lane, entry, job_id, b"", outcome.get("delay", 0), letter, *ran)


def _told(reply: TickReply) -> Found:
    return {
        **{
            "stale": sorted(reply.stale),
            "requeued": reply.requeued,
            "promoted": reply.promoted,
            "due": reply.schedules,
        },
        "claimed": [_claim(claim) for claim in reply.claimed],
        "held": [_claim(claim) for claim in reply.held],
        "next": reply.next_ms,
    }


def _claim(claim: Claim) -> Found:
    counts = {"attempts": claim.attempts_made, "stalls": claim.stalls}
    more = {"interruptions": claim.interruptions, "releases": claim.releases}
    number = int(claim.entry.partition("-")[0])
    what, cursor = what_of(claim.envelope), claim.cursor.decode() or None
    return {"id": claim.job_id, "lane": claim.lane, "n": number, "what": what, "cursor": cursor, **counts, **more}
