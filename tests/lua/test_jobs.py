"""jobs: reads jobs of one state, in order."""

from __future__ import annotations

import pytest

from streamq._engine import codec
from tests.lua.conftest import Bench, done, envelope, envelope_of_size, retry

STATES = ["waiting", "active", "delayed", "completed", "failed"]


async def listed(
    bench: Bench, state: str, count: int, *, skip: int = 0, name: str = "", newest: bool = False
) -> list[str]:
    """Go through all pages."""
    found, cursor = [], ""
    wanted = codec.encode_text(name) if name else b""
    while True:
        page = await bench.store.jobs(state, cursor, skip, count, newest_first=newest, name=wanted)
        assert len(page.jobs) <= count
        found += [job_id for job_id, job in page.jobs if job.state == state]
        cursor, skip = page.cursor, skip - page.skipped
        if not cursor:
            return found


async def fill(bench: Bench, state: str) -> list[str]:
    """Add jobs of `state`, seven of them in three lanes; returns their ids in the order in which they are told."""
    lanes = [3, 1, 4, 3, 1, 3, 4]
    ids = []
    for n, lane in enumerate(lanes):
        start = f"+{60_000 + n * 10}" if state == "delayed" else "0"
        ids.append(await bench.add(f"own-{n}" if n % 2 else "", lane=lane, start=start))
    in_order = [ids[n] for n in sorted(range(7), key=lambda n: (lanes[n], n))]
    if state == "active":
        await bench.claim(want=7)
    if state in ("completed", "failed"):
        for claim in await bench.claim(want=7):
            await bench.tick(
                outcomes=[done(claim) if state == "completed" else done(claim)._replace(kind="fail", body=b"x")]
            )
        ended = bench.now_ms() - 5_000
        for n, job_id in enumerate(in_order):
            bench.redis.zadd(bench.key(state), {job_id: ended + n // 2})
        return sorted(in_order, key=lambda job_id: (in_order.index(job_id) // 2, job_id))
    return ids if state == "delayed" else in_order


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("state", STATES)
async def test_pages_hold_all_jobs_once_in_order(bench: Bench, state: str, count: int, newest: bool) -> None:
    ids = await fill(bench, state)
    for other in {"delayed", "completed", "failed"} - {state}:
        if state not in ("waiting", "active"):  # bringing a job there claims one
            await bench.in_state(other)
    assert await listed(bench, state, count, newest=newest) == (ids[::-1] if newest else ids)


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("skip", [0, 1, 3, 6, 7, 50])
@pytest.mark.parametrize("state", STATES)
async def test_jobs_can_be_skipped(bench: Bench, state: str, skip: int, newest: bool) -> None:
    ids = await fill(bench, state)
    assert await listed(bench, state, 2, skip=skip, newest=newest) == (ids[::-1] if newest else ids)[skip:]


async def test_waiting_and_active_jobs_of_a_lane_are_told_apart(bench: Bench) -> None:
    claims = [await bench.claimed() for _ in range(3)]
    waiting = [await bench.add() for _ in range(2)]
    await bench.tick(outcomes=[retry(claims[1])])
    assert await listed(bench, "active", 10) == [claims[0].job_id, claims[2].job_id]
    assert await listed(bench, "waiting", 10) == [*waiting, claims[1].job_id]


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("state", ["waiting", "active", "delayed", "completed"])
async def test_a_name_picks(bench: Bench, state: str, count: int) -> None:
    for name in ("works", "work", "wor", "work"):
        await bench.in_state(state, body=envelope(name))
    assert await listed(bench, state, count, name="work") == ["2", "4"]


async def test_a_job_is_told_as_get_tells_it(bench: Bench) -> None:
    for state in ("completed", "failed", "active", "delayed", "waiting"):
        job_id = await bench.in_state(state, lane=2, body=envelope("work", {"month": 11}))
        ((told, job),) = (await bench.store.jobs(state, "", 0, 10)).jobs
        got = await bench.store.get(job_id)
        assert told == job_id
        assert got is not None
        if state == "active":
            assert job.started_ms is not None
            assert abs(job.started_ms - (got.started_ms or 0)) < 1_000
            assert (job.envelope, job.created_ms) == (got.envelope, got.created_ms)
        else:
            assert job == got


@pytest.mark.parametrize("newest", [False, True])
async def test_a_page_goes_on_where_the_last_job_stood_though_that_has_gone(bench: Bench, newest: bool) -> None:
    ids = await fill(bench, "delayed")
    ids = ids[::-1] if newest else ids
    page = await bench.store.jobs("delayed", "", 0, 3, newest_first=newest)
    await bench.store.remove(ids[2])
    page = await bench.store.jobs("delayed", page.cursor, 0, 100, newest_first=newest)
    assert [job_id for job_id, _ in page.jobs] == ids[3:]


@pytest.mark.parametrize("newest", [False, True])
async def test_jobs_that_were_claimed_between_two_pages_are_not_told_to_wait(bench: Bench, newest: bool) -> None:
    ids = [await bench.add() for _ in range(6)]
    page = await bench.store.jobs("waiting", "", 0, 2, newest_first=newest)
    await bench.claim(want=4)
    page = await bench.store.jobs("waiting", page.cursor, 0, 10, newest_first=newest)
    assert [job_id for job_id, _ in page.jobs] == ([] if newest else ids[4:])


async def test_a_page_of_large_jobs_ends_early(bench: Bench) -> None:
    for _ in range(6):
        await bench.add(body=envelope_of_size(1_000_000))
    page = await bench.store.jobs("waiting", "", 0, 100)
    assert 1 <= len(page.jobs) < 6
    assert page.cursor
    assert await listed(bench, "waiting", 100) == [str(n) for n in range(1, 7)]


async def test_a_call_looks_at_a_thousand_jobs_at_most(bench: Bench) -> None:
    for _ in range(3):
        await bench.add(count=1_000, body=envelope("other"))
    wanted = await bench.add(body=envelope("work"))
    page = await bench.store.jobs("waiting", "", 0, 10, name=codec.encode_text("work"))
    assert (page.jobs, bool(page.cursor)) == ([], True)
    assert await listed(bench, "waiting", 10, name="work") == [wanted]
    assert await listed(bench, "waiting", 10, skip=2_999) == ["3000", wanted]


@pytest.mark.parametrize("state", STATES)
async def test_an_empty_queue_has_no_jobs_and_nothing_is_written(bench: Bench, state: str) -> None:
    assert await listed(bench, state, 10) == []
    assert bench.dump() == {}
