"""What each page shows: a function per page, from its address's parameters to what its template is given.

Nothing here changes anything. The part of a template called `live` is drawn anew from the same function while
somebody watches; a page that costs too much for that says so with `live = False`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from streamq.dashboard.charts import SPANS, chart, covered
from streamq.dashboard.desk import Desk
from streamq.errors import InvalidInput, JobNotFound
from streamq.fairness import KeyLimits
from streamq.job import JobSnapshot, JobState
from streamq.queue import Queue

PAGE_JOBS = 50
PAGE_KEYS = 50
FLOW_DEPTH, FLOW_WIDTH, FLOW_JOBS = 10, 50, 500
MOST_WORKER_JOBS = 20
SEARCH_PAGES = 10
"""Pages of 200 jobs that one search for a tag looks at, before it asks whether to go on."""
LOG_LINES = 200

Ask = Mapping[str, str]
Shown = dict[str, Any]


class NotThere(Exception):
    """There is no such queue, job or page."""


class Elsewhere(Exception):
    """What was asked for is on another page."""

    def __init__(self, path: str, **ask: str) -> None:
        super().__init__(path)
        self.path, self.ask = path, ask


class Page(NamedTuple):
    """A page: its path, its template, and what it shows."""

    path: str
    template: str
    load: Callable[[Desk, Ask], Awaitable[Shown]]


def queue_of(desk: Desk, ask: Ask) -> Queue:
    """Return the queue that is asked for.

    Raises:
        NotThere: The dashboard shows no such queue.
    """
    found = desk.queues.get(ask.get("q", ""))
    if found is None:
        raise NotThere("this dashboard shows no such queue")
    return found


async def overview(desk: Desk, ask: Ask) -> Shown:
    """All queues."""
    looks = await desk.looks()
    charts = {look.name: chart(await desk.minutes(look.name, 3_600), 3_600, look.at) for look in looks}
    return {"looks": looks, "charts": charts}


async def queue(desk: Desk, ask: Ask) -> Shown:
    """One queue: counts, rates, charts of the last hours, what can be done to it."""
    name = queue_of(desk, ask).name
    span = ask.get("span") if ask.get("span") in SPANS else "1h"
    seconds = SPANS[str(span)]
    look = await desk.look(name)
    minutes = await desk.minutes(name, seconds)
    return {
        "look": look,
        "span": span,
        "spans": list(SPANS),
        "chart": chart(minutes, seconds, look.at),
        "labels": covered(look.at, seconds),
    }


async def jobs(desk: Desk, ask: Ask) -> Shown:
    """Jobs of one state, and the search."""
    queue = queue_of(desk, ask)
    wanted, name, tag = (ask.get(key, "").strip() for key in ("id", "name", "tag"))
    if wanted and await queue.get_job(wanted) is not None:
        raise Elsewhere("/job", q=queue.name, id=wanted)
    state = JobState(ask["state"]) if ask.get("state") in _LISTED else JobState.WAITING
    newest = ask.get("order", "newest" if state.ended else "oldest") == "newest"
    found, following = await _search(queue, state, ask.get("start", ""), newest, name, tag)
    look = await desk.look(queue.name)
    return {
        "queue": queue.name,
        "look": look,
        "states": _LISTED,
        "state": state,
        "order": "newest" if newest else "oldest",
        "jobs": found,
        "next": following,
        "first": not ask.get("start"),
        "name": name,
        "tag": tag,
        "missed": wanted,
        "now": look.at,
        "live": not (name or tag or ask.get("start") or wanted),
    }


_LISTED = list(JobState)


async def _search(
    queue: Queue, state: JobState, start: str, newest: bool, name: str, tag: str
) -> tuple[list[JobSnapshot], str | None]:
    """Return a page of jobs and where the next one starts. Tags are looked for here, job by job."""
    first: int | str = start or 0
    if not tag:
        page = await queue.jobs(state, first, PAGE_JOBS, newest_first=newest, name=name or None)
        return list(page), page.next
    found: list[JobSnapshot] = []
    for _ in range(SEARCH_PAGES):
        page = await queue.jobs(state, first, 200, newest_first=newest, name=name or None)
        found += [job for job in page if tag in job.tags]
        if page.next is None or len(found) >= PAGE_JOBS:
            return found, page.next
        first = page.next
    return found, str(first)


async def job(desk: Desk, ask: Ask) -> Shown:
    """One job: data, attempts, error, log, timeline."""
    queue = queue_of(desk, ask)
    found = await queue.get_job(ask.get("id", ""))
    if found is None:
        raise NotThere("the job is unknown: it never existed, was removed, or its retention is over")
    look = await desk.look(queue.name)
    start = int(ask["line"]) if ask.get("line", "").isdigit() and len(ask["line"]) < 12 else 0
    lines = await queue.logs(found.id, start, LOG_LINES + 1)
    child = max(int(ask["child"]), 1) if ask.get("child", "").isdigit() and len(ask["child"]) < 9 else 1
    return {
        "queue": queue.name,
        "job": found,
        "events": await desk.timeline(found),
        "lines": lines[:LOG_LINES],
        "line": start,
        "remembered": None if found.state == JobState.COMPLETED else await queue.steps(found.id),
        "children": await queue.children(found.id, child, PAGE_JOBS) if found.children else [],
        "child": child,
        "more_children": child + PAGE_JOBS if child + PAGE_JOBS <= found.children else None,
        "more_lines": start + LOG_LINES if len(lines) > LOG_LINES else None,
        "now": look.at,
    }


async def flow(desk: Desk, ask: Ask) -> Shown:
    """A job and all those that it waits for, as a tree."""
    queue = queue_of(desk, ask)
    try:
        tree = await queue.flow(ask.get("id", ""), depth=FLOW_DEPTH, width=FLOW_WIDTH, most=FLOW_JOBS)
    except JobNotFound as error:
        raise NotThere(str(error)) from None
    return {"queue": queue.name, "tree": tree, "depth": FLOW_DEPTH, "width": FLOW_WIDTH, "most": FLOW_JOBS}


async def keys(desk: Desk, ask: Ask) -> Shown:
    """The keys of a queue's jobs, those with most jobs first."""
    queue = queue_of(desk, ask)
    skip = int(ask["skip"]) if ask.get("skip", "").isdigit() and len(ask["skip"]) < 9 else 0
    found = await queue.keys(PAGE_KEYS, skip)
    return {
        "queue": queue.name,
        "keys": found,
        "set": _as_typed(found.limits),
        "first": not skip,
        "next": skip + PAGE_KEYS if skip + PAGE_KEYS < found.total else None,
    }


async def key(desk: Desk, ask: Ask) -> Shown:
    """One key: what it holds, its limits."""
    queue = queue_of(desk, ask)
    found, others = await asyncio.gather(queue.get_key(ask.get("key", "")), queue.keys(1))
    return {"queue": queue.name, "key": found, "common": others.limits, "set": _as_typed(found.limits)}


def _as_typed(limits: KeyLimits) -> dict[str, str]:
    """Return limits as they are typed into a form."""
    rate = ""
    if limits.rate is not None:
        seconds, rest = divmod(limits.rate.per_ms, 1000)
        rate = f"{limits.rate.max}/{limits.rate.per_ms}ms" if rest else f"{limits.rate.max}/{seconds}s"
    return {"rate": rate, "concurrency": str(limits.concurrency or ""), "weight": str(limits.weight or "")}


async def workers(desk: Desk, ask: Ask) -> Shown:
    """All workers and what they run now."""
    looks = await desk.looks()
    found = [(look.name, worker) for look in looks for worker in look.workers]
    found.sort(key=lambda pair: (not pair[1].alive, -pair[1].running, pair[0], pair[1].id))
    return {"workers": found, "total": sum(look.workers.total for look in looks)}


async def schedules(desk: Desk, ask: Ask) -> Shown:
    """All schedules, the next one due first."""
    found = [(name, snapshot) for name, queue in desk.queues.items() for snapshot in await queue.schedules()]
    found.sort(key=lambda pair: (pair[1].next_at is None, pair[1].next_at or pair[1].created_at, pair[0], pair[1].id))
    looks = await desk.looks()
    return {"schedules": found, "now": max(look.at for look in looks)}


async def dead(desk: Desk, ask: Ask) -> Shown:
    """Dead letters of a queue."""
    queue = queue_of(desk, ask) if "q" in ask else next(iter(desk.queues.values()))
    start = ask.get("start") or None
    page = await queue.dead_letters(start, PAGE_JOBS, newest_first=True)
    looks = await desk.looks()
    look = next(look for look in looks if look.name == queue.name)
    return {
        "queue": queue.name,
        "looks": looks,
        "look": look,
        "letters": list(page),
        "next": page.next,
        "first": start is None,
        "now": look.at,
        "live": start is None,
    }


PAGES = (
    Page("/", "overview.html", overview),
    Page("/queue", "queue.html", queue),
    Page("/jobs", "jobs.html", jobs),
    Page("/job", "job.html", job),
    Page("/flow", "flow.html", flow),
    Page("/keys", "keys.html", keys),
    Page("/key", "key.html", key),
    Page("/workers", "workers.html", workers),
    Page("/schedules", "schedules.html", schedules),
    Page("/dead", "dead.html", dead),
)

WRONG = (InvalidInput, ValueError)
"""What a page raises when its parameters make no sense."""
