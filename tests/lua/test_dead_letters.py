"""dead_letters: reads dead letters, the oldest or the newest first."""

from __future__ import annotations

import pytest

from streamq._engine import codec
from streamq._engine.pages import StoredLetter
from tests.lua.conftest import Bench, envelope, envelope_of_size, fail


async def pages(bench: Bench, count: int, *, newest_first: bool = False) -> list[list[StoredLetter]]:
    found, cursor = [], ""
    while True:
        page = await bench.store.dead_letters(cursor, count, newest_first=newest_first)
        found.append(page.letters)
        cursor = page.cursor
        if not cursor:
            return found


async def test_a_letter_tells_all_that_is_known(bench: Bench) -> None:
    claim = await bench.ended("fail", lane=2, body=envelope("work", [1]))
    (letter,) = (await bench.store.dead_letters("", 10)).letters
    assert (letter.job_id, letter.lane, letter.envelope, letter.is_kept) == (
        claim.job_id, 2, envelope("work", [1]), True,
    )  # fmt: skip
    assert codec.decode_error(letter.error).type == "ValueError"


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 100])
async def test_pages_hold_all_letters_once_in_order(bench: Bench, count: int, newest_first: bool) -> None:
    ids = [(await bench.ended("fail")).job_id for _ in range(5)]
    found = await pages(bench, count, newest_first=newest_first)
    assert all(len(page) <= count for page in found)
    told = [letter.job_id for page in found for letter in page]
    assert told == (ids[::-1] if newest_first else ids)


async def test_a_letter_knows_that_its_job_has_gone(bench: Bench) -> None:
    gone = await bench.claimed()
    await bench.tick(outcomes=[fail(gone, keep=0)])
    (letter,) = (await bench.store.dead_letters("", 10)).letters
    assert not letter.is_kept


async def test_a_page_of_large_letters_ends_early(bench: Bench) -> None:
    for _ in range(8):
        claim = await bench.claimed(body=envelope_of_size(1_000_000))
        await bench.tick(outcomes=[fail(claim, keep=0)])
    found = await pages(bench, 100)
    assert [len(page) for page in found] == [5, 3]


async def test_a_queue_without_any_has_none(bench: Bench) -> None:
    page = await bench.store.dead_letters("", 10)
    assert (page.letters, page.cursor) == ([], "")
