"""forward: dead letters -> jobs of another queue, each once."""

from __future__ import annotations

from streamq._engine import keys
from tests.lua.conftest import Bench, envelope

OTHER = keys.base("other")


async def letters(bench: Bench, count: int = 1) -> list[tuple[str, int, bytes]]:
    """Let jobs fail, and return what `forward` takes of their letters."""
    for _ in range(count):
        await bench.ended("fail", lane=2)
    found = (await bench.store.dead_letters("", 100)).letters
    return [(letter.letter, letter.lane, letter.envelope) for letter in found[-count:]]


def there(bench: Bench) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of the other queue's lane 2."""
    found: list[tuple[bytes, dict[bytes, bytes]]] = bench.redis.xrange(f"{OTHER}:lane:2")
    return found


async def test_it_begins_behind_the_letters_that_are_there_already(bench: Bench) -> None:
    ((letter, _, _),) = await letters(bench)
    assert await bench.store.forward(OTHER, "", "", ()) == letter
    assert bench.redis.hget(bench.key("meta"), "forwarded") == letter.encode()
    assert there(bench) == []


async def test_letters_become_jobs_of_their_lanes_and_stay(bench: Bench) -> None:
    start = await bench.store.forward(OTHER, "", "", ())
    assert start == "0-0"
    jobs = await letters(bench, 2)
    assert await bench.store.forward(OTHER, start, jobs[-1][0], jobs) == jobs[-1][0]
    assert [(entry, fields[b"d"]) for entry, fields in there(bench)] == [(b"1-0", envelope()), (b"2-0", envelope())]
    assert len(bench.dead_letters()) == 2
    assert bench.redis.llen(f"{OTHER}:wake") == 1


async def test_of_two_workers_with_the_same_letters_one_adds_them(bench: Bench) -> None:
    start = await bench.store.forward(OTHER, "", "", ())
    jobs = await letters(bench, 2)
    await bench.store.forward(OTHER, start, jobs[-1][0], jobs)
    before = bench.dump()
    assert await bench.store.forward(OTHER, start, jobs[0][0], jobs[:1]) == jobs[-1][0]
    assert bench.dump() == before


async def test_a_letter_that_was_taken_back_meanwhile_is_passed_over(bench: Bench) -> None:
    start = await bench.store.forward(OTHER, "", "", ())
    jobs = await letters(bench, 2)
    assert await bench.store.retry("1") == "retried"
    assert await bench.store.forward(OTHER, start, jobs[-1][0], jobs) == jobs[-1][0]
    assert len(there(bench)) == 1
