"""The machine that drives a real queue and its model side by side, and compares all that can be seen after each step.

It has one rule, which draws what to do next by weight: jobs have to be added and run often for the rest to matter. What
exactly is done follows from the rule's seed; what fails is told with all that was drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamq import JobOptions, JobState, Priority, RateLimit
from streamq._engine.operators import UNCHANGED
from streamq._engine.scheduling import StoredSchedule
from streamq._engine.transitions import NewJob, added, bound_start
from streamq.errors import DuplicateJob, QueueBusy, QueueFull
from tests.model import chance as st
from tests.model import keyspace
from tests.model.chance import Chance
from tests.model.clock import set_clock
from tests.model.model import Found, Model
from tests.model.real import KEEP_CANCELLED, STATES, Real, envelope, expected

START = 1_790_000_000_000
WORKERS = ("ann", "bob", "cyd")
OWN_IDS = ("x", "y", "z")
PARENT_IDS = [*"pqrstu"]
UNIQUE_KEYS = ("u", "v")
KEYS = ("a", "b")
SCHEDULES = {"daily": None, "twice": 2}
EVERY_MS = 10_000
LEASE_MS = 1_000
DAY_MS = 86_400_000
LOG_CAP = 1_000
TTL_FACTOR = 1_000
"""A unique key's time in Redis beside that in the model: the machine ends it, by the test's clock, and not Redis."""
LOOK_EVERY = 4
"""Steps between two looks at the keys themselves."""
KEPT = KEEP_CANCELLED[0], round(KEEP_CANCELLED[1] * 1000)

WEIGHTS = {
    "add": 6,
    "add_again": 1,
    "stage_and_commit": 1,
    "claim": 5,
    "settle": 6,
    "settle_late": 2,
    "time_goes_by": 3,
    "leases": 2,
    "report": 2,
    "one_job": 6,
    "many_jobs": 2,
    "limits": 2,
    "keys": 3,
    "forward": 1,
    "upsert_schedule": 1,
    "fire": 1,
    "one_schedule": 1,
}
ACTIONS = [name for name, weight in WEIGHTS.items() for _ in range(weight)]

seeds = strategies.integers(0, 2**64 - 1)
names = st.sampled_from(["report", "mail"])
whats = st.tuples(names, st.integers(0, 9))
lanes = st.integers(1, 4)
starts = st.sampled_from(["0", "0", "0", "0", "+0", "+1", "+500", "+5000", "@1", f"@{START + 2_000}"])
parent_ids = st.sampled_from(PARENT_IDS)
own_ids = st.sampled_from(["", "", "", *OWN_IDS])
uniques = st.fixed_dictionaries(
    {
        "key": st.sampled_from(UNIQUE_KEYS),
        "mode": st.sampled_from("prk"),
        "ttl": st.sampled_from([None, None, 5_000]),
        "conflict": st.sampled_from(["return_existing", "raise", "replace", "keep_latest", "keep_latest"]),
    }
)
job = {"lane": lanes, "start": starts, "id": own_ids, "what": whats}
keyed = {"key": st.sampled_from(KEYS), "lane": st.sampled_from([3, 3, 1])}
plain_jobs = st.fixed_dictionaries(job)
unique_jobs = st.fixed_dictionaries({**job, "unique": uniques})
keyed_jobs = st.fixed_dictionaries({**job, **keyed})
both_jobs = st.fixed_dictionaries({**job, **keyed, "unique": uniques})
THEMES = {
    "plain": plain_jobs,
    "unique": plain_jobs | unique_jobs,
    "keys": plain_jobs | keyed_jobs,
    "flows": plain_jobs,
    "all": plain_jobs | unique_jobs | keyed_jobs | both_jobs,
}
"""What the jobs of a run are mostly like: they have to meet their like to matter to each other."""
kinds = st.sampled_from(["done", "done", "retry", "fail", "fail", "release", "return", "return", "hold"])
keeps = st.sampled_from([0, 1, 2, 100, 100])
ages = st.sampled_from([500, DAY_MS, DAY_MS])
delays = st.sampled_from([0, 0, 1, 300, 5_000])
errors = st.sampled_from([("ValueError", "bad"), ("KeyError", "gone")])
error_types = st.sampled_from([None, None, "ValueError", "WorkerLost"])
one_job = st.sampled_from(
    [
        *("retry", "retry", "cancel", "cancel", "promote", "promote", "reschedule"),
        *("remove", "change_priority", "update_data", "update_data"),
    ]
)
many_jobs = st.sampled_from(
    [
        *("clean", "clean", "drain", "retry_many", "retry_many", "cancel_many", "cancel_many"),
        *("redrive", "redrive", "purge_dead", "obliterate"),
    ]
)


class Machine(RuleBasedStateMachine):
    """One queue, three workers, clients. Whoever runs it sets `real`, the seed of the `run`, and what counts it."""

    real: Real
    run: int
    counts: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(START)
        self.claims: list[Found] = []
        self.reported: set[int] = set()
        self.seen: list[StoredSchedule] = []
        self.letters_read: list[Found] = []
        self.read_from: tuple[int, int] | None = None
        self.calls = self.steps = 0
        self.gone: set[str] = set()

    @initialize(seed=seeds)
    def begin(self, seed: int) -> None:
        """A queue whose jobs are bound from the start on, or from some later step on."""
        self.seed, data = seed, Chance(self.run, seed)
        self.theme = data.draw(st.sampled_from([*THEMES, "flows", "all"]))
        self.bound_from = data.draw(st.sampled_from([0, 0, 15]))
        self.real.begin(START)
        self._limit(None, data.draw(st.sampled_from([None, None, None, 1, 2])))
        self.calls += 1
        self._add("n", self.calls, data.draw(st.lists(plain_jobs, min_size=2, max_size=6)))

    @rule(seed=seeds)
    def step(self, seed: int) -> None:
        self.steps += 1
        data = Chance(self.run, self.seed, seed)
        action = data.draw(st.sampled_from(ACTIONS))
        self.counts.update(["steps", action])
        getattr(self, action)(data)

    # Producers --------------------------------------------------------------------------------------------------------

    def add(self, data: Chance) -> None:
        self.calls += 1
        jobs = data.draw(st.lists(self._jobs(), min_size=1, max_size=5))
        if self.theme in ("flows", "all") and self.steps > self.bound_from and data.draw(st.integers(0, 2)):
            jobs = self._flow(jobs, data)
        self._add(data.draw(st.sampled_from(["n", "m"])), self.calls, jobs, all_or_none=data.draw(st.booleans()))

    def add_again(self, data: Chance) -> None:
        """A call that arrives again, or after a later one."""
        if self.model.answers:
            nonce = data.draw(st.sampled_from(sorted(self.model.answers)))
            number, _ = self.model.answers[nonce]
            jobs = data.draw(st.lists(self._jobs(), min_size=1, max_size=2))
            self._add(nonce, number - data.draw(st.integers(0, 2)), jobs)

    def _flow(self, jobs: list[Found], data: Chance) -> list[Found]:
        """These jobs below a parent, and some of them below another one as well that stands between."""
        token = f"{self.calls:012x}"
        top, middle = data.draw(st.permutations([data.draw(parent_ids), f"m{self.calls}"]))
        between = data.draw(st.integers(0, len(jobs)))
        links: list[list[tuple[str, int, str]]] = [[] for _ in jobs]
        places = {top: 0, middle: 0}
        policies = st.sampled_from("ffcir")

        def below(parent: str) -> tuple[str, int, str]:
            places[parent] += 1
            return parent, places[parent], data.draw(policies)

        for at in range(between):
            links[at].append(below(middle))
        above = [below(top)] if between else []
        for at in range(len(jobs)):
            if at >= between or data.draw(st.integers(0, 2)) == 0:
                links[at].append(below(top))

        def family(parents: list[tuple[str, int, str]], count: int) -> Found:
            keep, only = data.draw(st.sampled_from([100, 100, 0])), count and data.draw(st.sampled_from([0, 0, 0, 1]))
            return {"token": token, "parents": parents, "children": count, "keep": keep, "only": bool(only)}

        ids = [(top, []), (middle, above)] if between else [(top, [])]
        flow = [
            {**_not_next(data.draw(self._jobs())), "id": parent, "family": family(parents, places[parent])}
            for parent, parents in ids
        ]
        return flow + [{**one, "family": family(link, 0)} for one, link in zip(jobs, links, strict=True)]

    def _jobs(self) -> st.Drawn:
        return THEMES[self.theme if self.steps > self.bound_from else "plain"]

    def _add(self, nonce: str, number: int, jobs: list[Found], *, all_or_none: bool = False) -> None:
        sent = laid_out(jobs)
        self.counts["jobs"] += len(jobs)
        known = self.model.answers.get(nonce, (0, None))
        wanted = self.model.add(nonce, number, jobs, all_or_none=all_or_none)
        try:
            reply = self.real.run(self.real.store.add(nonce, number, sent, within=5, all_or_none=all_or_none))
        except DuplicateJob as error:
            reply = ["refused", error.job_id, error.key]
        except QueueFull as error:
            reply = ["full", error.size, error.limit]
        if isinstance(wanted, tuple):
            assert tuple(reply) == wanted
        elif wanted == "overtaken":
            assert reply == [-1]
        elif known[0] == number:  # a repeated answer speaks of the jobs of the first call
            assert reply[0] + len(wanted) - 1 <= self.model.counter
        else:
            assert [(job.job_id, job.is_new) for job in added(sent, reply)] == wanted

    def stage_and_commit(self, data: Chance) -> None:
        self.calls += 1
        batch, store, twice = f"b{self.calls}", self.real.store, data.draw(st.booleans())
        parts = data.draw(st.lists(st.lists(self._jobs(), min_size=1, max_size=2), min_size=1, max_size=2))
        for at, part in enumerate(parts):
            for _ in range(1 + twice):
                self.real.run(store.stage(batch, at, laid_out(part)))
        jobs = [job for part in parts for job in part]
        full = self.model.max_size is not None and self.model.size() + len(jobs) > self.model.max_size
        try:
            more, *reply = self.real.run(store.commit(batch, 1, batch, len(parts)))
        except QueueFull as error:
            refused = error
            assert full
            assert refused.size == self.model.size()
            return
        assert (full, more) == (False, 0)
        wanted = self.model.enqueue(jobs)
        assert [(job.job_id, job.is_new) for job in added(laid_out(jobs), reply)] == wanted
        if twice:
            assert self.real.run(store.commit(batch, 1, batch, len(parts))) == [more, *reply]

    # Workers ----------------------------------------------------------------------------------------------------------

    def claim(self, data: Chance) -> None:
        self._tick(data.draw(st.sampled_from(WORKERS)), data.draw(st.integers(1, 4)))

    def settle(self, data: Chance) -> None:
        """By a worker that holds jobs: some of them have ended, some suspects start."""
        holders = sorted({entry["who"] for entry in self.model.active()})
        worker = data.draw(st.sampled_from(holders or WORKERS))
        current = {(entry["id"], entry["n"]) for entry in self.model.held_by(worker)}
        mine = [c for c in self.claims if c["worker"] == worker and (c["id"], c["n"]) in current]
        ended = data.draw(st.integers(0, len(mine)))
        suspects = [claim["id"] for claim in mine[ended:] if claim["stalls"]]
        marks = suspects if data.draw(st.booleans()) else []
        outcomes = [self._outcome(claim, data) for claim in mine[:ended]]
        stalls = data.draw(st.sampled_from([1, 2, 2, 3]))
        self._tick(worker, data.draw(st.integers(0, 2)), outcomes, marks=marks, stalls=stalls)

    def settle_late(self, data: Chance) -> None:
        """By a worker that was frozen, or whose last reply was lost: it also asks for all that it holds."""
        if self.claims:
            worker = data.draw(st.sampled_from(sorted({claim["worker"] for claim in self.claims})))
            mine = [claim for claim in self.claims if claim["worker"] == worker]
            picked = data.draw(st.lists(st.sampled_from(mine), min_size=1, max_size=3))
            self._tick(worker, data.draw(st.integers(0, 1)), [self._outcome(c, data) for c in picked], held=True)

    def _tick(
        self,
        worker: str,
        want: int,
        outcomes: Sequence[Found] = (),
        *,
        marks: Sequence[str] = (),
        held: bool = False,
        stalls: int = 2,
    ) -> None:
        said = {"lease": LEASE_MS, "max_stalls": stalls, "marks": marks, "list_held": held}
        wanted = self.model.tick(worker, want, outcomes, **said)
        told = self.real.tick(worker, want, outcomes, **said)
        assert told == wanted, difference(told, wanted)
        self.claims += [{**claim, "worker": worker, "ended": None} for claim in wanted["claimed"]]

    def _outcome(self, claim: Found, data: Chance) -> Found:
        """How an attempt ends: once, and then always the same, as what is sent again is."""
        if claim["ended"] is None:
            kind = data.draw(kinds)
            if kind == "return" and claim["n"] in self.reported:
                kind = "release"  # what has reported has started
            ran = kind in ("done", "fail", "retry")
            claim["ended"] = {
                **{"kind": kind, "lane": claim["lane"], "n": claim["n"], "id": claim["id"]},
                **{"attempts": claim["attempts"] + ran, "started": self.model.now if ran else 0},
                **{"keep": data.draw(keeps), "age": data.draw(ages), "result": data.draw(st.sampled_from([None, 7]))},
                **{"error": data.draw(errors), "delay": data.draw(delays)},
                "counter": data.draw(st.sampled_from(["interruptions", "releases", ""])) if kind == "release" else "",
            }
        return dict(claim["ended"])

    def time_goes_by(self, data: Chance) -> None:
        self.model.now += data.draw(st.sampled_from([1, 100, 400, 999, 1_000, 1_001, 1_001, 6_000, 20_000, DAY_MS]))
        set_clock(self.real.client, self.model.now)
        for key in self.model.unique.expire():
            assert self.real.client.delete(f"{self.real.base}:unique:{key}") == 1

    def leases(self, data: Chance) -> None:
        worker, store, model = data.draw(st.sampled_from(WORKERS)), self.real.store, self.model
        if data.draw(st.booleans()):
            holds, cancels = self.real.run(store.renew(worker, LEASE_MS))
            assert (holds, sorted(int(entry[:-2]) for entry in cancels)) == model.renew(worker, LEASE_MS)
        else:
            assert self.real.run(store.leave(worker)) == model.leave(worker)

    def report(self, data: Chance) -> None:
        """On a claim, perhaps one that has moved on long ago; none that was given back before it started."""
        able = [claim for claim in self.claims if claim["ended"] is None or claim["ended"]["kind"] != "return"]
        if not able:
            return
        claim, store, model = data.draw(st.sampled_from(able)), self.real.store, self.model
        lane, entry, job_id = claim["lane"], f"{claim['n']}-0", claim["id"]
        self.reported.add(claim["n"])
        what = data.draw(st.sampled_from(["progress", "log", "remember", "recall"]))
        if what == "remember":
            field, text = data.draw(st.sampled_from(["c", "sone", "stwo"])), data.draw(st.sampled_from(["5", "6"]))
            taken = self.real.run(store.remember(lane, entry, job_id, field, text.encode()))
            assert taken == model.remember(lane, claim["n"], job_id, field, text)
        elif what == "recall":
            steps = self.real.run(store.recall(lane, entry, job_id))
            told = steps if steps is None else {field: value.decode() for field, value in steps.items()}
            assert told == model.recall(lane, claim["n"], job_id)
        elif what == "progress":
            value = data.draw(st.integers(0, 100))
            taken = self.real.run(store.progress(lane, entry, job_id, bytes([value])))
            assert taken == model.progress(lane, claim["n"], job_id, value)
        else:
            line = data.draw(st.sampled_from(["one", "two"]))
            assert self.real.run(store.log(lane, entry, job_id, line)) == model.log(
                lane, claim["n"], job_id, line, LOG_CAP
            )

    # Clients and operators --------------------------------------------------------------------------------------------

    def one_job(self, data: Chance) -> None:
        what, known = data.draw(one_job), sorted(self.model.jobs)
        job_id = data.draw(st.sampled_from([*known, *known, *sorted(self.gone)[:2], "nobody"]))
        model, store = self.model, self.real.store
        if what == "remove":
            force = data.draw(st.booleans())
            reply, wanted = store.remove(job_id, force=force), model.remove(job_id, force)
        elif what == "cancel":
            reply, wanted = store.cancel(job_id, "unwanted"), model.cancel(job_id, *KEPT)
        elif what == "reschedule":
            start = data.draw(st.sampled_from(["+0", "+700", "@5", f"@{START + 3_000}"]))
            reply, wanted = store.reschedule(job_id, start), model.reschedule(job_id, start)
        elif what == "change_priority":
            lane = data.draw(lanes)
            reply, wanted = store.change_priority(job_id, lane), model.change_priority(job_id, lane)
        elif what == "update_data":
            job, after = model.jobs.get(job_id), data.draw(whats)
            before = data.draw(st.sampled_from([job["what"], job["what"], ("other", 0)])) if job else after
            reply = store.update_data(job_id, envelope(before), envelope(after))
            wanted = model.update_data(job_id, before, after)
        else:
            reply, wanted = getattr(store, what)(job_id), getattr(model, what)(job_id)
        try:
            assert self.real.run(reply) == wanted
        except DuplicateJob as error:
            refused = error
            assert ("held", refused.job_id) == wanted

    def many_jobs(self, data: Chance) -> None:
        model, queue, what = self.model, self.real.queue, data.draw(many_jobs)
        name, error = data.draw(st.none() | names), data.draw(error_types)
        everything = name is None and error is None
        if what == "clean":
            state = data.draw(st.sampled_from([state for state in STATES if state != "active"]))
            grace = data.draw(st.sampled_from([0, 0, 1, 400, 10_000]))
            limit = None if state == "delayed" else data.draw(st.sampled_from([None, 1, 2]))
            ids = self.real.run(queue.clean(grace / 1000, limit, JobState(state)))
            assert ids == model.clean(state, grace, limit or 10_000)
        elif what == "drain":
            delayed = data.draw(st.booleans())
            assert self.real.run(queue.drain(delayed)) == model.drain(delayed)
        elif what == "retry_many":
            state, count = (
                data.draw(st.sampled_from(["failed", "completed", "cancelled"])),
                data.draw(st.sampled_from([None, 1])),
            )
            ids = self.real.run(queue.retry_many(JobState(state), count, name=name, error_type=error))
            assert ids == model.retry_many(state, count, name, error)
        elif what == "cancel_many":
            state = data.draw(st.sampled_from(["waiting", "delayed", "active", "waiting_children"]))
            count = data.draw(st.sampled_from([None, 2]))
            ids = self.real.run(queue.cancel_many(JobState(state), count, name=name, reason="unwanted"))
            assert ids == model.cancel_many(state, count, name, *KEPT)
        elif what == "redrive":
            done = self.real.run(queue.redrive(everything=everything, name=name, error_type=error))
            assert (done.job_ids, done.stayed) == model.redrive(name, error)
        elif what == "purge_dead":
            gone = self.real.run(queue.purge_dead(everything=everything, name=name, error_type=error))
            assert gone == model.purge_dead(name, error)
        else:
            self._obliterate(data.draw(st.booleans()))

    def _obliterate(self, force: bool) -> None:
        wanted: int | str = self.model.obliterate(force)
        reply: int | str
        try:
            reply = self.real.run(self.real.queue.obliterate(force))
            self.real.last_event = "-"
        except QueueBusy:
            reply = "active"
        assert reply == wanted

    def limits(self, data: Chance) -> None:
        """Mostly none, or lifted again."""
        store, model = self.real.store, self.model
        what = data.draw(st.sampled_from(["pause", "resume", "resume", "limit", "size"]))
        if what == "limit":
            rate = data.draw(st.sampled_from([None, None, None, 1, 3]))
            self._limit(rate, data.draw(st.sampled_from([None, 1, 2, 2])))
        elif what == "size":
            most = data.draw(st.sampled_from([None, None, None, 3, 8]))
            self.real.run(store.max_size(most))
            model.max_size = most
        else:
            assert self.real.run(getattr(store, what)()) == getattr(model, what)()

    def _limit(self, rate: int | None, active: int | None) -> None:
        limit = None if rate is None else RateLimit(rate, per=60.0)
        self.real.run(self.real.store.limit(limit, active))
        self.model.limit(limit and (limit.max, limit.per_ms), active)

    def keys(self, data: Chance) -> None:
        """Limits of one key of jobs, or of all; or one is paused."""
        store, places, key = self.real.store, self.model.places, data.draw(st.sampled_from(KEYS))
        what = data.draw(st.sampled_from(["pause", "resume", "resume", "one", "one", "all"]))
        if what in ("pause", "resume"):
            assert self.real.run(getattr(store, f"{what}_key")(key)) == places.pause(key, on=what == "pause")
            return
        key = key if what == "one" else ""
        field = data.draw(st.sampled_from(["active", "active", "rate", "weight"]))
        value = data.draw(st.sampled_from([None, 1, 2, 3]))
        rate = RateLimit(value, per=60.0) if value and field == "rate" else None
        changes: dict[str, Any] = {field: rate and (rate.max, rate.per_ms) if field == "rate" else value}
        said = {"active": UNCHANGED, "rate": UNCHANGED, "weight": UNCHANGED, field: rate if field == "rate" else value}
        self.real.run(store.limit_key(key, said["rate"], said["active"], said["weight"]))
        places.limit(key, changes)

    def forward(self, data: Chance) -> None:
        """Dead letters go to another queue: those that a worker reads now, or has read some steps ago."""
        real, model = self.real, self.model
        for letter, at in zip(model.letters, real.letters(), strict=True):
            letter["at"] = at
        if data.draw(st.booleans()) or not self.letters_read:
            after = [letter for letter in model.letters if letter["at"] > (model.forwarded or (0, 0))]
            self.letters_read, self.read_from = after[: data.draw(st.integers(1, 3))], model.forwarded
        letters = self.letters_read if self.read_from else []
        jobs = [(letter["at"], letter["lane"], envelope(letter["what"])) for letter in letters]
        assert real.forward(self.read_from, jobs) == model.forward(self.read_from, letters)
        assert real.forwarded() == sorted(model.other, key=lambda job: job[0])

    # Schedules --------------------------------------------------------------------------------------------------------

    def upsert_schedule(self, data: Chance) -> None:
        name, what, lane = data.draw(st.sampled_from(sorted(SCHEDULES))), data.draw(whats), data.draw(lanes)
        overlap = data.draw(st.sampled_from(["allow", "skip", "queue", "cancel_previous"]))
        limit, options = SCHEDULES[name], JobOptions(priority=Priority(lane))
        job = {"name": what[0], "data": what[1], "options": options}
        self.real.run(self.real.queue.upsert_schedule(name, every=10, limit=limit, overlap=overlap, **job))
        first = self._stored(name).next_ms
        assert first is not None or name in self.model.schedules
        self.model.schedule(name, lane=lane, what=what, overlap=overlap, limit=limit, first=first or 0)

    def _stored(self, name: str) -> StoredSchedule:
        return self.real.run(self.real.store.schedules([name]))[0]

    def fire(self, data: Chance) -> None:
        """Perhaps by a worker that has read the schedule some time ago."""
        if self.seen and data.draw(st.integers(0, 2)) == 0:
            seen = data.draw(st.sampled_from(self.seen))
        elif self.model.schedules:
            seen = self._stored(data.draw(st.sampled_from(sorted(self.model.schedules))))
            self.seen.append(seen)
        else:
            return
        following, slots = seen.next_ms, []
        while following is not None and following <= self.model.now and len(slots) < 3:
            slots.append(following)
            following += EVERY_MS
        run = [(slot, slot) for slot in slots]
        fired = self.real.run(self.real.store.fire(seen, following, run=run, missed=0, missed_slots=[]))
        wanted = self.model.fire(seen.id, int(seen.rev), seen.next_ms, slots, following, KEPT)
        assert (fired and (fired.added, fired.skipped)) == wanted

    def one_schedule(self, data: Chance) -> None:
        name = data.draw(st.sampled_from([*sorted(self.model.schedules), "nobody"]))
        what = data.draw(st.sampled_from(["trigger", "trigger", "suspend", "restart", "restart", "unschedule"]))
        if what == "trigger":
            self.calls += 1
            made = self.real.run(self.real.store.trigger(name, f"t{self.calls}"))
            assert (made and made.job_id) == self.model.trigger(name)
        elif what == "suspend":
            self.real.run(self.real.store.suspend(name))
            self.model.suspend(name)
        elif what == "unschedule":
            known = self.model.schedules.pop(name, None) is not None
            assert self.real.run(self.real.queue.remove_schedule(name)) == known
        elif name in self.model.schedules:
            self.real.run(self.real.queue.resume_schedule(name))
            self.model.restart(name, self._stored(name).next_ms or 0)

    # After each step --------------------------------------------------------------------------------------------------

    @invariant()
    def all_that_is_told_is_what_the_model_says(self) -> None:
        known = sorted(self.model.jobs)
        also = [*known[self.steps % (len(known) or 1) :][:2], *sorted(self.gone - set(known))[-1:]]
        told, wanted = self.real.run(self.real.view(also)), expected(self.model, also)
        assert told == wanted, difference(told, wanted)
        events, self.model.events = self.model.events, []
        assert self.real.new_events() == events
        assert int(self.real.client.get(f"{self.real.base}:id") or 0) == self.model.counter
        self.gone.update(known)

    @invariant()
    def the_keys_agree_with_one_another(self) -> None:
        if self.steps % LOOK_EVERY:
            return  # what is wrong with the keys stays wrong for a while
        assert keyspace.faults(self.real.client, self.real.base) == []


def laid_out(jobs: Sequence[Found]) -> list[NewJob]:
    """Jobs of the model, as `add` takes them."""
    return [NewJob(job["lane"], _start(job), job["id"], envelope(job["what"])) for job in jobs]


def _not_next(job: Found) -> Found:
    """A job with children can't be next for its unique key: who adds it is told so."""
    unique = job.get("unique")
    return job if not unique else {**job, "unique": {**unique, "conflict": "replace"}}


def _family(family: Found) -> Found:
    bonds: Found = {"t": family["token"]}
    if family["parents"]:
        bonds["p"] = [("", *link) for link in family["parents"]]
    if family["children"]:
        keep = f"{family['keep']}:{DAY_MS}"
        bonds |= {"n": family["children"], "k": f"{keep}:{keep}:10000{'!' if family['only'] else ''}"}
    return bonds


def _start(job: Found) -> str | bytes:
    unique, bonds = job.get("unique"), {}
    if unique:
        conflict = {"return_existing": "e", "raise": "x", "replace": "r", "keep_latest": "l"}[unique["conflict"]]
        bonds["u"] = {"k": unique["key"], "w": unique["mode"], "c": conflict}
        if unique["ttl"] is not None:
            bonds["u"]["t"] = unique["ttl"] * TTL_FACTOR
    if job.get("key"):
        bonds["k"] = job["key"]
    if job.get("family"):
        bonds["f"] = _family(job["family"])
    return bound_start(job["start"], bonds) if bonds else str(job["start"])


def difference(told: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The parts that differ, one a line."""
    parts = [part for part in wanted if told[part] != wanted[part]]
    return "\n".join(f"{part}: {told[part]} is told, not {wanted[part]}" for part in parts)
