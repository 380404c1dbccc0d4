"""Which shard a job goes to, and which one an id is of: the same in every process, for ever."""

from __future__ import annotations

import inspect

import pytest
from redis.crc import key_slot

from streamq import InvalidInput, JobOptions, Queue, Unique
from streamq._engine import keys
from streamq._engine.shards import MOST, SPAN, first_number, home, shard_of_number, word_of, word_of_job
from streamq.operations import new_job
from streamq.sharding import ShardedQueue
from streamq.sharding.queue import check_shards


def test_a_words_shard_never_changes() -> None:
    assert [home(word, 8) for word in ("k:tenant-1", "u:rebuild", "j:mine")] == [3, 4, 7]
    assert {home(f"j:{n}", 8) for n in range(100)} == set(range(8))


def test_each_shard_is_in_a_slot_of_its_own_and_shard_0_is_the_queue_without_shards() -> None:
    bases = [keys.base("emails", shard) for shard in range(3)]
    assert bases == ["sq:{emails}", "sq:{emails#1}", "sq:{emails#2}"]
    assert len({key_slot(base.encode()) for base in bases}) == 3
    assert keys.base("{bank}emails", 2) == "sq:{bank#2}emails"


def test_a_number_tells_its_shard_and_all_numbers_are_counted_exactly_by_scripts() -> None:
    assert [shard_of_number(str(first_number(shard) + 17)) for shard in (0, 1, 63)] == [0, 1, 63]
    assert first_number(MOST) < 9_000_000_000_000_000  # lua/lib/append.lua
    assert shard_of_number("mine-17") is None
    assert shard_of_number("\u0661\u0667") is None  # digits, but none that Redis gives out
    assert first_number(1) == SPAN


def test_a_key_comes_before_a_unique_key_and_that_before_an_id() -> None:
    assert word_of(key="k", unique="u", own_id="j") == "k:k"
    assert word_of(unique="u", own_id="j") == "u:u"
    assert word_of(own_id="j") == "j:j"
    assert word_of() == ""


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (JobOptions(), ""),
        (JobOptions(delay=5), ""),
        (JobOptions(webhook="https://a.example/"), ""),
        (JobOptions(job_id="mine"), "j:mine"),
        (JobOptions(unique=Unique("u"), job_id="mine"), "u:u"),
        (JobOptions(key="k", unique=Unique("u"), delay=5), "k:k"),
    ],
)
def test_an_encoded_job_is_placed_by_what_its_options_say(options: JobOptions, word: str) -> None:
    assert word_of_job(new_job("a", b"\xc0", options)) == word


@pytest.mark.parametrize("shards", [0, 65, -1, 1.5, "8", "all", True])
def test_a_number_of_shards_that_makes_no_sense_is_refused(shards: object) -> None:
    with pytest.raises(InvalidInput, match="shards must be"):
        check_shards(shards)


def test_a_subclass_can_not_have_shards() -> None:
    class Mine(Queue):
        pass

    with pytest.raises(InvalidInput, match="a Mine can't have shards, only a Queue itself can"):
        Mine("q", "redis://localhost", shards=3)


def test_every_public_method_of_a_queue_is_one_that_knows_of_shards() -> None:
    as_they_are = {"add", "add_many", "name", "redis", "events", "count_shards"}
    """These stand on what a queue with shards does its own way."""
    own = [base for base in ShardedQueue.__mro__ if base.__module__.startswith("streamq.sharding")]
    public = {name for name, _ in inspect.getmembers(Queue) if not name.startswith("_")}
    known = {name for base in own for name in vars(base)}
    assert public - known == as_they_are
