"""What a whole allows, given out to its shards."""

from __future__ import annotations

import pytest

from streamq import InvalidInput, RateLimit, Retention, Settings
from streamq.sharding.shares import by_turns, limit_shares, rate_shares, settings_share, shares


def test_shares_differ_by_one_at_most_and_add_up() -> None:
    assert shares(100, 8) == [13, 13, 13, 13, 12, 12, 12, 12]
    assert shares(3, 5) == [1, 1, 1, 0, 0]


def test_a_rate_is_split_with_its_remainder_and_adds_up() -> None:
    split = rate_shares(RateLimit(100, per=1.0), 8)
    assert [rate and (rate.max, rate.per) for rate in split] == [(13, 1.0)] * 4 + [(12, 1.0)] * 4
    assert rate_shares(None, 3) == [None, None, None]


def test_a_rate_that_is_too_small_to_be_split_is_refused_with_one_that_is_not() -> None:
    with pytest.raises(InvalidInput, match=r"a rate of 2 per 1 s can't be split over 8 shards.*\(8 per 4 s\)"):
        rate_shares(RateLimit(2, per=1.0), 8)


def test_a_limit_below_the_number_of_shards_is_refused() -> None:
    with pytest.raises(InvalidInput, match="concurrency must be at least 8, one for each shard, not 7"):
        limit_shares("concurrency", 7, 8)


def test_what_is_kept_is_split_rounded_up_and_nothing_stays_nothing() -> None:
    split = settings_share(Settings(events_cap=0, dead_cap=10, keep_cancelled=Retention(7, 60)), 3)
    assert (split.events_cap, split.dead_cap, split.keep_cancelled) == (0, 4, Retention(3, 60))


@pytest.mark.parametrize(
    ("there", "limit", "done"), [([5, 0, 9], 10, 10), ([1, 1, 1], 10, 3), ([5, 5, 5], None, 15), ([9, 0, 0], 2, 2)]
)
async def test_what_one_shard_leaves_over_of_its_share_is_done_by_others(
    there: list[int], limit: int | None, done: int
) -> None:
    left = dict(enumerate(there))

    async def call(shard: int, share: int | None) -> list[int]:
        number = left[shard] if share is None else min(share, left[shard])
        left[shard] -= number
        return [shard] * number

    assert len(await by_turns(list(left), limit, call)) == done
    assert sum(left.values()) == sum(there) - done
