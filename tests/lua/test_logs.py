"""logs: reads lines of a job's log, which keep their numbers when the cap drops the first ones."""

from __future__ import annotations

from streamq._engine.pages import LogPage
from tests.lua.conftest import Bench, done


async def logged(bench: Bench, lines: int, cap: int = 100) -> str:
    claim = await bench.claimed()
    for n in range(lines):
        await bench.call("log", claim.lane, claim.entry, claim.job_id, f"line {n}", cap, 100)
    return claim.job_id


async def test_a_page_holds_the_lines_asked_for(bench: Bench) -> None:
    job_id = await logged(bench, 5)
    assert await bench.store.logs(job_id, 1, 2) == LogPage(1, 5, ["line 1", "line 2"])
    assert await bench.store.logs(job_id, 4, 10) == LogPage(4, 5, ["line 4"])
    assert await bench.store.logs(job_id, 5, 10) == LogPage(5, 5, [])


async def test_lines_that_the_cap_dropped_still_count(bench: Bench) -> None:
    job_id = await logged(bench, 7, cap=3)
    assert await bench.store.logs(job_id, 0, 2) == LogPage(4, 7, ["line 4", "line 5"])
    assert await bench.store.logs(job_id, 6, 2) == LogPage(6, 7, ["line 6"])


async def test_a_log_outlives_the_end_of_its_job(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.store.log(claim.lane, claim.entry, claim.job_id, "last words")
    await bench.tick(outcomes=[done(claim)])
    assert (await bench.store.logs(claim.job_id, 0, 10)).lines == ["last words"]


async def test_an_unknown_job_has_no_lines(bench: Bench) -> None:
    assert await bench.store.logs("nobody", 0, 10) == LogPage(0, 0, [])


async def test_a_line_that_was_cut_inside_a_character_is_read(bench: Bench) -> None:
    job_id = await logged(bench, 1)
    bench.redis.rpush(bench.key(f"log:{job_id}"), b"\xff")
    assert (await bench.store.logs(job_id, 1, 1)).lines == ["\ufffd"]


async def test_lines_are_announced_only_while_somebody_follows(bench: Bench) -> None:
    claim = await bench.claimed()
    await bench.store.log(claim.lane, claim.entry, claim.job_id, "one")
    assert "log" not in bench.events_of(claim.job_id)
    bench.redis.set(bench.key(f"follow:{claim.job_id}"), 1, px=30_000)
    await bench.store.log(claim.lane, claim.entry, claim.job_id, "two")
    assert bench.events_of(claim.job_id)[-1] == "log"
