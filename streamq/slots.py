"""When a schedule falls due: its slots, and what to do with those that are due.

Pure: no I/O, and no clock but the `now` that it is given, which is the server's. Times are milliseconds since 1970.

A slot is fixed by the schedule alone and never computed from the moment at which something ran, so nothing drifts:
`every` has its slots at anchor + k * every, whatever the clocks on the wall do; cron has them where the expression
matches the local time. If hour and minute are given (neither begins with `*`), a local time that a change of the clocks
skips falls due at the end of the gap, and one that it repeats falls due the first time: once that day. With a wildcard
in one of them it is real time that counts: skipped times are not there, repeated ones come twice. That is the rule
of Debian's cron, here for expressions with seconds too.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from streamq.errors import InvalidInput

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

RUNS_PER_FIRE = 100
"""Slots that one call runs at most, the oldest first; the rest stay due."""
MISSED_NAMED = 100
"""Missed slots that one call names in events, the latest ones."""
MISSED_COUNTED = 10_000
"""Missed slots of a cron expression that are counted at most for one outage (counting them takes computing each)."""

_NEAR = timedelta(hours=3)
"""No clock is put back by more than this."""
_FIRST = datetime(1970, 1, 1)


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker needs to know of a schedule to compute its slots; stored, and opaque to the scripts."""

    v: int = 1
    cron: str | None = None
    every_ms: int | None = None
    tz: str = "UTC"
    start_ms: int | None = None
    end_ms: int | None = None
    missed: str = "skip"
    grace_ms: int = 30_000
    jitter_ms: int = 0


def timing_of(spec: Spec, limit: int | None) -> str:
    """Return a digest of what fixes the slots and their end: while it stays the same, so does the next slot."""
    said = f"{spec.cron}|{spec.every_ms}|{spec.tz}|{spec.start_ms}|{spec.end_ms}|{limit}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def check_cron(expression: str) -> str:
    """Return a cron expression (five fields, or six with seconds first) with aliases such as `@daily` replaced.

    Raises:
        InvalidInput: It can't be read, or no time ever matches it.
    """
    if not isinstance(expression, str):
        raise InvalidInput(f"cron must be text, not {expression!r}")
    text = " ".join(expression.split())
    if text.startswith("@"):
        if text.lower() not in ALIASES:
            raise InvalidInput(f"cron {expression!r} is no alias; there are {', '.join(ALIASES)}")
        text = ALIASES[text.lower()]
    try:
        next(CronSim(text, _FIRST))
    except StopIteration:
        raise InvalidInput(f"cron {expression!r} matches no time") from None
    except (CronSimError, ValueError, AssertionError, TypeError) as error:
        raise InvalidInput(f"cron {expression!r}: {error or 'can not be read'}") from None
    return text


def slots(spec: Spec, anchor: int, after: int) -> Iterator[int]:
    """Yield the slots later than `after`, in order, from the schedule's start to its end (both may be slots)."""
    if spec.start_ms is not None:
        after = max(after, spec.start_ms - 1)
    if spec.every_ms is not None:
        found = _spaced(anchor, spec.every_ms, after)
    else:
        found = (slot for slot in _matching(spec.cron or "", ZoneInfo(spec.tz), after) if slot > after)
    return found if spec.end_ms is None else takewhile(lambda slot: slot <= spec.end_ms, found)  # type: ignore[operator]


def next_slot(spec: Spec, anchor: int, after: int) -> int | None:
    """Return the first slot later than `after`, None if none follows."""
    return next(slots(spec, anchor, after), None)


def _spaced(anchor: int, every: int, after: int) -> Iterator[int]:
    slot = anchor + max((after - anchor) // every + 1, 0) * every
    while True:
        yield slot
        slot += every


# Cron in local time ---------------------------------------------------------------------------------------------------


def _matching(expression: str, zone: ZoneInfo, after: int) -> Iterator[int]:
    """Yield the slots of a cron expression from about `after` on, in order; the first ones may not be later."""
    moment = datetime.fromtimestamp(after // 1000, UTC)
    local = moment.astimezone(zone)
    minute, hour = expression.split()[-5:-3]
    if not minute.startswith("*") and not hour.startswith("*"):
        return _once_a_day(CronSim(expression, local.replace(tzinfo=None)), zone)
    put_back = local.utcoffset() - (moment + _NEAR).astimezone(zone).utcoffset()  # type: ignore[operator]
    start = local.replace(tzinfo=None) - max(put_back, timedelta(0))
    return _as_time_passes(CronSim(expression, start), zone)


def _once_a_day(walls: Iterator[datetime], zone: ZoneInfo) -> Iterator[int]:
    last = None
    for wall in walls:
        slot = _instant(wall, zone)
        if slot is None:  # the clocks skip it: the end of the gap
            there = wall.replace(second=0)
            while slot is None:
                there += timedelta(minutes=1)
                slot = _instant(there, zone)
        if slot != last:
            yield slot
        last = slot


def _as_time_passes(walls: Iterator[datetime], zone: ZoneInfo) -> Iterator[int]:
    again: list[int] = []  # second occurrences of repeated times, until everything before them has been told
    for wall in walls:
        first = _instant(wall, zone)
        if first is None:
            continue
        while again and again[0] < first:
            yield heapq.heappop(again)
        yield first
        second = _instant(wall, zone, fold=1)
        if second is not None and second != first:
            heapq.heappush(again, second)
    yield from sorted(again)


def _instant(wall: datetime, zone: ZoneInfo, fold: int = 0) -> int | None:
    """Return when the clocks on the wall show `wall`, None if they skip it."""
    there = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    return int(there.timestamp()) * 1000 if there.astimezone(zone).replace(tzinfo=None) == wall else None


# What to do with what is due ------------------------------------------------------------------------------------------


class Plan(msgspec.Struct, frozen=True):
    """What a firing does: the slots to run, how many it misses and the latest of them, and the next slot after that."""

    run: list[int]
    next: int | None
    missed: int = 0
    missed_slots: list[int] = []


def plan(spec: Spec, anchor: int, due: int, now: int) -> Plan:
    """Say what to do at `now` about a schedule whose next slot was `due`.

    skip   Slots that are late by more than the grace are missed; the others run.
    once   The latest slot runs, and stands for all the others.
    all    Every slot runs, the oldest first.
    """
    if due > now:
        return Plan([], due)
    if spec.missed == "all":
        return _run(spec, anchor, due - 1, now)
    first = due
    if spec.missed == "once":
        first = _latest(spec, anchor, due, now)
    elif now - due > spec.grace_ms:
        following = next_slot(spec, anchor, now - spec.grace_ms - 1)
        if following is None:
            return Plan([], None, *_missed(spec, anchor, due, now + 1))
        first = following
    if first == due:
        return _run(spec, anchor, due - 1, now)
    rest = _run(spec, anchor, first - 1, now)
    return Plan(rest.run, rest.next, *_missed(spec, anchor, due, first))


def _run(spec: Spec, anchor: int, after: int, now: int) -> Plan:
    run: list[int] = []
    for slot in slots(spec, anchor, after):
        if slot > now or len(run) >= RUNS_PER_FIRE:
            return Plan(run, slot)
        run.append(slot)
    return Plan(run, None)


def _latest(spec: Spec, anchor: int, due: int, now: int) -> int:
    """Return the last slot from `due` to `now`, looking back no further than it has to."""
    for span in (60, 3_600, 86_400, 32 * 86_400, 366 * 86_400):
        found = due
        for slot in slots(spec, anchor, max(due, now - span * 1000) - 1):
            if slot > now:
                break
            found = slot
        if found != due:
            return found
    return due


def _missed(spec: Spec, anchor: int, due: int, first: int) -> tuple[int, list[int]]:
    """Count the slots from `due` to before `first`, and name the latest of them."""
    if spec.every_ms is not None:
        until = first if spec.end_ms is None else min(first, spec.end_ms + 1)
        count = -((due - until) // spec.every_ms)
        return count, [due + k * spec.every_ms for k in range(max(count - MISSED_NAMED, 0), count)]
    found: list[int] = []
    for slot in slots(spec, anchor, due - 1):
        if slot >= first or len(found) >= MISSED_COUNTED:
            break
        found.append(slot)
    return len(found), found[-MISSED_NAMED:]


def jitter(schedule_id: str, slot: int, jitter_ms: int) -> int:
    """Return how much later than its slot a job starts: up to `jitter_ms`, the same for everybody who asks."""
    if not jitter_ms:
        return 0
    digest = hashlib.sha256(f"{schedule_id}@{slot}".encode()).digest()
    return int.from_bytes(digest[:8]) % (jitter_ms + 1)
