"""When schedules fall due, and what is done about slots that are late: pure, on any day of any year."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from streamq.errors import InvalidInput
from streamq.slots import (
    MISSED_COUNTED,
    MISSED_NAMED,
    RUNS_PER_FIRE,
    Plan,
    Spec,
    check_cron,
    jitter,
    next_slot,
    plan,
    slots,
    timing_of,
)

MINUTE = timedelta(minutes=1)
CHANGES = {
    "Europe/Berlin": ["2025-03-30", "2025-10-26", "2026-03-29", "2026-10-25"],
    "America/New_York": ["2025-03-09", "2025-11-02", "2026-03-08", "2026-11-01"],
    "Australia/Lord_Howe": ["2025-04-06", "2025-10-05", "2026-04-05", "2026-10-04"],  # by half an hour
}
FIXED = [
    "30 2 * * *",
    "30 1 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "0,15,45 1-3 * * *",
    "59 1,2 * * *",
    "0 6 * * 1",
    "0 0 * * *",
]
WILDCARD = ["*/30 * * * *", "0 * * * *", "* * * * *", "*/15 2 * * *", "*/15 1 * * *", "20 */2 * * *", "45 * * * 0"]


def ms(*when: int, tz: str = "UTC") -> int:
    """Return a local time in milliseconds since 1970."""
    return int(datetime(*when, tzinfo=ZoneInfo(tz)).timestamp() * 1000)  # type: ignore[misc,arg-type]


def due(spec: Spec, after: int, until: int, anchor: int = 0) -> list[int]:
    """Return the slots later than `after`, up to `until`."""
    found = []
    for slot in slots(spec, anchor, after):
        if slot > until:
            break
        found.append(slot)
    return found


# Cron over the changes of the clocks, against a walker that looks at the clock every minute --------------------------


def numbers(field: str, low: int, high: int) -> set[int]:
    """Read one field of the expressions above: numbers, lists, ranges, steps of everything."""
    found: set[int] = set()
    for term in field.split(","):
        if term.startswith("*"):
            found.update(range(low, high + 1, int(term.partition("/")[2] or 1)))
        else:
            first, _, last = term.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return found


def matches(expression: str, wall: datetime) -> bool:
    """Say whether a clock that shows `wall` matches."""
    minute, hour, _, _, weekday = expression.split()
    return (
        wall.minute in numbers(minute, 0, 59)
        and wall.hour in numbers(hour, 0, 23)
        and wall.isoweekday() % 7 in numbers(weekday, 0, 6)
    )


def walked(expression: str, zone: str, first: datetime, last: datetime) -> list[int]:
    """Walk from minute to minute and note when something is due: each skipped time at the gap's end, each time once."""
    once = not any(field.startswith("*") for field in expression.split()[:2])
    found: list[int] = []
    shown: set[datetime] = set()
    for moment, wall, skipped in clock(zone, first, last):
        showing = [*skipped, wall] if once else [wall]
        if any(matches(expression, w) and not (once and w in shown) for w in showing):
            found.append(moment)
        shown.update(showing)
    return found


@cache
def clock(zone: str, first: datetime, last: datetime) -> list[tuple[int, datetime, list[datetime]]]:
    """Return each minute, what the clock shows then, and what it skipped just before."""
    found = []
    before = None
    for moment in minutes(first, last):
        wall = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        skipped = list(minutes(before + MINUTE, wall - MINUTE)) if before is not None else []
        found.append((int(moment.timestamp() * 1000), wall, skipped))
        before = wall
    return found


def minutes(first: datetime, last: datetime) -> Iterator[datetime]:
    """Yield each minute from one to the other."""
    while first <= last:
        yield first
        first += MINUTE


@pytest.mark.parametrize("expression", [*FIXED, *WILDCARD])
@pytest.mark.parametrize(("zone", "day"), [(zone, day) for zone, days in CHANGES.items() for day in days])
def test_cron_falls_due_when_a_walker_with_a_clock_would_say_so(zone: str, day: str, expression: str) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC)
    first, last = noon - timedelta(hours=40), noon + timedelta(hours=30)
    expected = walked(expression, zone, first, last)
    after, until = int(first.timestamp() * 1000) - 1, int(last.timestamp() * 1000)
    spec = Spec(cron=expression, tz=zone)
    assert due(spec, after, until) == expected
    # And from any moment on: computing slots anew, as each firing does, gives the same ones.
    for hours in range(0, 70, 3):
        start = int((first + timedelta(hours=hours, minutes=7)).timestamp() * 1000)
        later = next((slot for slot in expected if slot > start), None)
        if later is not None:
            assert next_slot(spec, 0, start) == later


@pytest.mark.parametrize("expression", [*FIXED, *WILDCARD])
@pytest.mark.parametrize(
    ("zone", "day"),
    [
        *(("Europe/Berlin", day) for day in CHANGES["Europe/Berlin"]),
        *(("America/New_York", day) for day in CHANGES["America/New_York"]),
        ("Australia/Sydney", "2026-10-04"),
        ("Africa/Casablanca", "2026-02-15"),
        ("Asia/Kathmandu", "2026-01-01"),
    ],
)
def test_cron_agrees_with_cronsim_where_clocks_change_by_whole_hours(zone: str, day: str, expression: str) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=1)
    theirs = (int(when.timestamp()) * 1000 for when in CronSim(expression, begin.astimezone(ZoneInfo(zone))))
    expected = list(dict.fromkeys(islice(theirs, 200)))
    found = list(islice(slots(Spec(cron=expression, tz=zone), 0, int(begin.timestamp() * 1000)), len(expected)))
    assert found == expected


def test_a_time_with_seconds_that_the_clocks_skip_or_repeat_falls_due_once() -> None:
    skipped = Spec(cron="20 30 2 * * *", tz="Europe/Berlin")
    assert due(skipped, ms(2025, 3, 30), ms(2025, 3, 31)) == [ms(2025, 3, 30, 3, 0, tz="Europe/Berlin")]
    repeated = due(skipped, ms(2025, 10, 25, 12), ms(2025, 10, 26, 12))
    assert repeated == [ms(2025, 10, 26, 2, 30, 20, tz="Europe/Berlin")]


def test_every_second_falls_due_every_second_while_the_clocks_go_back() -> None:
    since = ms(2025, 10, 26, 0, 59, 50)
    assert due(Spec(cron="* * * * * *", tz="Europe/Berlin"), since, since + 20_000) == [
        since + k * 1000 for k in range(1, 21)
    ]


def test_monday_at_six_comes_once_a_week_all_year() -> None:
    spec = Spec(cron="0 6 * * MON", tz="America/New_York")
    found = [
        datetime.fromtimestamp(s / 1000, ZoneInfo("America/New_York"))
        for s in islice(slots(spec, 0, ms(2025, 1, 1)), 52)
    ]
    assert {(when.weekday(), when.hour, when.minute) for when in found} == {(0, 6, 0)}
    assert {(later.date() - earlier.date()).days for earlier, later in pairwise(found)} == {7}


def test_an_alias_is_its_expression() -> None:
    assert check_cron("@Daily") == "0 0 * * *"
    assert check_cron("  0   6 * *  MON ") == "0 6 * * MON"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("0 25 * * *", "Bad hour"),
        ("61 * * * *", "Bad minute"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("* * *", "Wrong number of fields"),
        ("", "Wrong number of fields"),
        ("0 0 * * MON#6", "Bad day-of-week"),
        ("@reboot", "no alias"),
    ],
)
def test_a_bad_expression_is_refused_with_the_reason(expression: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        check_cron(expression)
    assert "cron" in str(caught.value)


@given(st.text(alphabet="0123456789*/,-#LW MONjan@", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = check_cron(text)
    except InvalidInput:
        return
    assert next_slot(Spec(cron=read, tz="Europe/Berlin"), 0, ms(2025, 1, 1)) is not None


# Every ----------------------------------------------------------------------------------------------------------------


@given(anchor=st.integers(0, 2**41), every=st.integers(100, 10**9), after=st.integers(0, 2**41))
def test_every_has_its_slots_at_the_anchor_and_whole_distances_from_it(anchor: int, every: int, after: int) -> None:
    spec = Spec(every_ms=every)
    slot = next_slot(spec, anchor, after)
    assert slot is not None
    assert slot > after
    assert (slot - anchor) % every == 0
    assert slot == anchor or slot - every <= after


def test_every_keeps_real_distances_while_the_clocks_change() -> None:
    spec = Spec(every_ms=3_600_000, tz="Europe/Berlin")
    found = due(spec, ms(2025, 10, 25), ms(2025, 10, 27), anchor=ms(2025, 10, 25))
    assert {later - earlier for earlier, later in pairwise(found)} == {3_600_000}


@pytest.mark.parametrize("spec", [Spec(every_ms=1_000), Spec(cron="* * * * * *")])
def test_no_slot_lies_before_the_start_or_after_the_end(spec: Spec) -> None:
    start, end = ms(2026, 1, 1), ms(2026, 1, 1, 0, 0, 3)
    bounded = Spec(cron=spec.cron, every_ms=spec.every_ms, start_ms=start, end_ms=end)
    assert list(slots(bounded, start, ms(2025, 1, 1))) == [start, start + 1_000, start + 2_000, end]
    assert next_slot(bounded, start, end) is None


def test_the_timing_is_another_when_the_slots_are_and_only_then() -> None:
    spec = Spec(every_ms=1_000)
    assert timing_of(spec, None) == timing_of(Spec(every_ms=1_000, missed="all", grace_ms=1, jitter_ms=5), None)
    others = [
        Spec(every_ms=1_001),
        Spec(every_ms=1_000, start_ms=5),
        Spec(cron="* * * * *"),
        Spec(every_ms=1_000, tz="Asia/Tokyo"),
    ]
    digests = {timing_of(spec, None), timing_of(spec, 3), *(timing_of(other, None) for other in others)}
    assert len(digests) == 6


# What is due ----------------------------------------------------------------------------------------------------------

SECOND = Spec(every_ms=1_000, grace_ms=5_000)


def with_(missed: str, **fields: int) -> Spec:
    """Return a schedule of one slot a second."""
    return Spec(every_ms=1_000, missed=missed, **{"grace_ms": 5_000, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_a_slot_on_time_runs_and_the_next_one_is_next(missed: str) -> None:
    assert plan(with_(missed), 0, 10_000, 10_003) == Plan([10_000], 11_000)


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_nothing_runs_before_it_is_due(missed: str) -> None:
    assert plan(with_(missed), 0, 10_000, 9_999) == Plan([], 10_000)


def test_skip_runs_late_slots_within_the_grace_and_misses_older_ones() -> None:
    assert plan(with_("skip"), 0, 10_000, 18_500) == Plan(
        [14_000, 15_000, 16_000, 17_000, 18_000], 19_000, 4, [10_000, 11_000, 12_000, 13_000]
    )


def test_skip_with_no_slot_in_the_grace_goes_on_with_the_next_one() -> None:
    spec = Spec(every_ms=60_000, grace_ms=5_000)
    assert plan(spec, 0, 60_000, 80_000) == Plan([], 120_000, 1, [60_000])
    assert plan(spec, 0, 60_000, 65_000) == Plan([60_000], 120_000)
    assert plan(spec, 0, 60_000, 65_001) == Plan([], 120_000, 1, [60_000])


@pytest.mark.parametrize("cron", ["* * * * *", None])
def test_once_runs_the_latest_slot_for_all(cron: str | None) -> None:
    spec = Spec(cron=cron, every_ms=None if cron else 60_000, missed="once")
    assert plan(spec, 0, 60_000, 200_000) == Plan([180_000], 240_000, 2, [60_000, 120_000])


def test_all_runs_every_slot_the_oldest_first_and_a_bounded_number_at_once() -> None:
    spec = with_("all")
    first = plan(spec, 0, 1_000, 250_500)
    assert first == Plan([k * 1_000 for k in range(1, RUNS_PER_FIRE + 1)], (RUNS_PER_FIRE + 1) * 1_000)
    run, at = list(first.run), first.next
    while at is not None and at <= 250_500:
        step = plan(spec, 0, at, 250_500)
        run, at = run + step.run, step.next
    assert run == [k * 1_000 for k in range(1, 251)]
    assert at == 251_000


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_a_schedule_whose_end_has_passed_has_no_next_slot(missed: str) -> None:
    ended = plan(with_(missed, end_ms=12_000), 0, 11_000, 100_000)
    assert ended.next is None
    expected = {"skip": ([], 2), "once": ([12_000], 1), "all": ([11_000, 12_000], 0)}
    assert (ended.run, ended.missed) == expected[missed]


@pytest.mark.parametrize("missed", ["skip", "once"])
def test_a_year_without_workers_is_over_in_one_step(missed: str) -> None:
    year = 366 * 86_400_000
    done = plan(Spec(every_ms=100, missed=missed, grace_ms=0), 0, 100, year)
    assert (done.run, done.next) == ([year], year + 100)
    assert done.missed == year // 100 - 1
    assert len(done.missed_slots) == MISSED_NAMED
    assert done.missed_slots[-1] == year - 100
    by_cron = plan(Spec(cron="* * * * * *", missed=missed, grace_ms=0), 0, 1_000, year)
    assert (by_cron.run, by_cron.next, by_cron.missed) == ([year], year + 1_000, MISSED_COUNTED)


@given(
    missed=st.sampled_from(["skip", "once", "all"]),
    cron=st.booleans(),
    late=st.integers(0, 400_000),
    grace=st.integers(0, 200_000),
)
def test_every_due_slot_is_run_or_missed_once(missed: str, cron: bool, late: int, grace: int) -> None:
    spec = Spec(cron="* * * * *" if cron else None, every_ms=None if cron else 60_000, missed=missed, grace_ms=grace)
    now = 600_000 + late
    done = plan(spec, 0, 600_000, now)
    assert sorted(done.run + done.missed_slots) == due(spec, 599_999, now)
    assert done.missed == len(done.missed_slots)
    assert done.next == next_slot(spec, 0, now)


# Jitter ---------------------------------------------------------------------------------------------------------------


def test_jitter_is_the_same_for_everybody_and_spreads_over_its_span() -> None:
    found = [jitter("nightly", slot, 1_000) for slot in range(0, 60_000_000, 60_000)]
    assert found == [jitter("nightly", slot, 1_000) for slot in range(0, 60_000_000, 60_000)]
    assert min(found) < 50
    assert 950 < max(found) <= 1_000
    assert jitter("nightly", 5, 0) == 0
    assert jitter("hourly", 60_000, 1_000_000) != jitter("nightly", 60_000, 1_000_000)
