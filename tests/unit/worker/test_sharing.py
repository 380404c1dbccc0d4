"""The slots of a worker that serves several shards."""

from __future__ import annotations

from typing import Any

from streamq._engine.transitions import Claim
from streamq.worker.attempt import Attempt
from streamq.worker.gathering import Gathering
from streamq.worker.sharing import SharedHoldings, Slots


class Stage:
    """Some shards that share slots; attempts run until `end`."""

    def __init__(self, slots: int, shards: int) -> None:
        self.slots = Slots(slots)
        self.running: list[tuple[int, Attempt]] = []
        self.rung: list[int] = []
        self.shards = [self._shard(at) for at in range(shards)]
        self._number = 0

    def _shard(self, at: int) -> SharedHoldings:
        def start(attempt: Attempt) -> None:
            self.running.append((at, attempt))

        found = SharedHoldings(self.slots, 3, start, Gathering(lambda batch: None))
        found.on_change = lambda: self.rung.append(at)
        return found

    def claim(self, at: int, number: int = 1) -> None:
        claims: list[Any] = []
        for _ in range(number):
            self._number += 1
            claims.append(Claim.__new__(Claim))
            claims[-1].entry, claims[-1].since_ms, claims[-1].stalls = f"{self._number}-0", 0, 0
        self.shards[at].take(claims)

    def end(self, at: int) -> None:
        place = next(i for i, (shard, _) in enumerate(self.running) if shard == at)
        _, attempt = self.running.pop(place)
        self.shards[at].finished(attempt, object())

    def runs(self) -> list[int]:
        return sorted(shard for shard, _ in self.running)


def test_no_more_run_than_there_are_slots_whichever_shards_they_are_of() -> None:
    stage = Stage(slots=3, shards=2)
    stage.claim(0, 2)
    stage.claim(1, 2)
    assert stage.runs() == [0, 0, 1]
    assert all(shard.room() <= 0 for shard in stage.shards)


def test_a_claim_that_waits_gets_the_slot_that_another_shard_frees() -> None:
    stage = Stage(slots=2, shards=2)
    stage.claim(0, 2)
    stage.claim(1, 1)
    stage.end(0)
    assert stage.runs() == [0, 1]


def test_a_lone_shard_gets_all_slots() -> None:
    stage = Stage(slots=5, shards=8)
    assert stage.shards[3].room() == 5


def test_a_shard_that_is_short_is_rung_when_a_slot_comes_free_and_has_the_first_turn() -> None:
    stage = Stage(slots=2, shards=2)
    stage.claim(0, 2)
    assert stage.shards[1].room() <= 0
    stage.end(0)
    assert 1 in stage.rung
    assert stage.shards[0].room() == 0  # it has more than the other one, which is short
    assert stage.shards[1].room() == 1


def test_a_shard_that_needs_no_room_passes_its_turn_on() -> None:
    stage = Stage(slots=2, shards=2)
    stage.claim(0, 2)
    assert stage.shards[1].room() <= 0
    stage.end(0)
    assert stage.shards[0].room() == 0
    stage.rung.clear()
    assert stage.shards[1].room() == 1  # and it claims nothing
    assert stage.rung == [0]
    assert stage.shards[0].room() == 1


def test_no_slot_stays_empty_between_shards_that_have_equally_much() -> None:
    stage = Stage(slots=5, shards=2)
    stage.claim(0, 3)
    stage.claim(1, 2)
    assert stage.shards[0].room() <= 0
    assert stage.shards[1].room() <= 0
    stage.end(0)
    assert max(stage.shards[0].room(), stage.shards[1].room()) == 1


def test_a_parked_tick_reserves_nothing_from_the_other_shards() -> None:
    stage = Stage(slots=2, shards=3)
    for shard in stage.shards[:2]:
        assert shard.reserve_parked(2) == 1
    assert stage.shards[2].room() == 2
    stage.shards[2].reserved += 2
    assert stage.shards[0].room() <= 0
    stage.rung.clear()
    stage.shards[2].reserved -= 2
    assert stage.rung == [0]
