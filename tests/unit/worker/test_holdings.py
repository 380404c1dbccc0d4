"""What a worker holds: slots, claims that wait for one, suspects, outcomes on their way."""

from __future__ import annotations

from typing import Any, cast

import pytest

from streamq._engine import codec
from streamq._engine.transitions import Claim, Outcome
from streamq.batch import BatchJob
from streamq.policy import Batch
from streamq.processor import Processor
from streamq.worker.attempt import Attempt, Known
from streamq.worker.gathering import Gathering, Member
from streamq.worker.holdings import Holdings


class Hand:
    """Holdings, and what they have started."""

    def __init__(self, concurrency: int = 2, max_stalls: int = 3) -> None:
        self.started: list[Attempt] = []
        self.batches: list[list[str]] = []
        self.gathering = Gathering(lambda batch: self.batches.append([m.job.id for m in batch.members]))
        self.holdings = Holdings(concurrency, max_stalls, self._start, self.gathering)

    def _start(self, attempt: Attempt) -> None:
        if attempt.claim.job_id.startswith("b"):
            self.gathering.join(member_of(attempt), known(size=4))
        else:
            self.started.append(attempt)

    @property
    def running(self) -> list[str]:
        return [attempt.claim.job_id for attempt in self.started if not attempt.ended]

    def end(self, job_id: str) -> bool:
        attempt = next(attempt for attempt in self.started if attempt.claim.job_id == job_id)
        return self.holdings.finished(attempt, outcome(attempt.claim))


def known(size: int) -> Known:
    batch = Batch(size, 3_600)
    processor = Processor(name="b", handler=lambda jobs: None, batch=batch)
    return Known(processor, codec.typed_decoder(Any), cast(Any, None), "thread", batch)


def member_of(attempt: Attempt) -> Member:
    claim = attempt.claim
    job: BatchJob[Any] = BatchJob(
        cast(Any, None), claim.job_id, "b", "q", None, attempt=1, attempts=1, stalls=claim.stalls
    )
    return Member(attempt, job, cast(Any, None), cast(Any, None))


def claim(job_id: str, stalls: int = 0) -> Claim:
    found = Claim(3, f"{job_id}-0", job_id, b"", 0)
    found.stalls = stalls
    return found


def outcome(claim: Claim) -> Outcome:
    return Outcome("done", claim.lane, claim.entry, claim.job_id)


def claims(*ids: str) -> list[Claim]:
    return [claim(job_id) for job_id in ids]


def test_as_many_start_as_there_are_slots_and_the_rest_wait_in_order() -> None:
    hand = Hand(2)
    hand.holdings.take(claims("1", "2", "3", "4"))
    assert hand.running == ["1", "2"]
    hand.end("1")
    assert hand.running == ["2", "3"]
    hand.end("2")
    hand.end("3")
    assert hand.running == ["4"]


def test_a_claim_that_is_held_already_is_nothing_new() -> None:
    hand = Hand(5)
    hand.holdings.take(claims("1"))
    hand.holdings.take(claims("1", "2"))
    assert hand.running == ["1", "2"]


def test_an_attempt_ends_once() -> None:
    hand = Hand()
    hand.holdings.take(claims("1"))
    assert hand.end("1")
    assert not hand.end("1")
    assert len(hand.holdings.outcomes) == 1


def test_the_room_is_what_neither_runs_nor_is_asked_for() -> None:
    hand = Hand(5)
    assert hand.holdings.room() == 5
    hand.holdings.reserved = 2
    hand.holdings.take(claims("1"))
    assert hand.holdings.room() == 2
    hand.end("1")
    assert hand.holdings.room() == 3  # its outcome is still to be settled, but its slot is free


def test_outcomes_are_taken_settled_or_put_back_in_order() -> None:
    hand = Hand(5)
    hand.holdings.take(claims("1", "2", "3"))
    for job_id in ("1", "2", "3"):
        hand.end(job_id)
    first = hand.holdings.take_outcomes(2)
    assert hand.holdings.unfinished == 0
    hand.holdings.put_back(first)
    assert [o.job_id for o in hand.holdings.outcomes] == ["1", "2", "3"]
    hand.holdings.settled(hand.holdings.take_outcomes(5))
    assert hand.holdings.mine == {}
    assert hand.holdings.unfinished == 0


def test_suspects_wait_for_their_mark_and_the_last_chance_runs_alone() -> None:
    hand = Hand(5, max_stalls=3)
    hand.holdings.take([claim("1", 1), claim("2", 2), claim("3", 2), claim("4", 1), claim("5")])
    assert hand.running == ["5"]
    first = hand.holdings.next_suspects()
    assert {a.claim.job_id for a in first} == {"1", "4", "2"}
    hand.holdings.marked(first)
    assert hand.holdings.next_suspects() == []
    hand.end("2")
    assert [a.claim.job_id for a in hand.holdings.next_suspects()] == ["3"]


def test_a_mark_that_failed_is_asked_for_again() -> None:
    hand = Hand(5, max_stalls=2)
    hand.holdings.take([claim("1", 1)])
    hand.holdings.unmarked(hand.holdings.next_suspects())
    assert [a.claim.job_id for a in hand.holdings.next_suspects()] == ["1"]


@pytest.mark.parametrize("marked", [True, False])
def test_a_suspect_that_is_let_go_while_it_is_marked_never_starts_and_frees_its_slot(marked: bool) -> None:
    hand = Hand(2, max_stalls=2)
    hand.holdings.take([claim("1", 1), claim("2", 1)])
    marks = hand.holdings.next_suspects()
    hand.holdings.reconcile([claim("2", 1)])
    (hand.holdings.marked if marked else hand.holdings.unmarked)(marks)
    assert hand.running == []
    hand.holdings.marked(hand.holdings.next_suspects())
    assert hand.running == ["2"]
    assert hand.holdings.room() == 1


def test_a_worker_that_stops_starts_nothing_and_gives_back_what_has_not_started() -> None:
    hand = Hand(1)
    hand.holdings.take([*claims("1", "2"), claim("3", 1)])
    hand.holdings.closed = True
    hand.end("1")
    assert hand.running == []
    assert [a.claim.job_id for a in hand.holdings.idle_claims()] == ["2", "3"]
    assert hand.holdings.idle_claims() == []


def test_an_attempt_that_ends_while_it_is_started_frees_its_slot() -> None:
    ended: list[str] = []

    def start(attempt: Attempt) -> None:
        ended.append(attempt.claim.job_id)
        holdings.finished(attempt, outcome(attempt.claim))

    holdings = Holdings(1, 3, start, Gathering(lambda batch: None))
    holdings.take(claims(*map(str, range(5_000))))
    assert ended == [str(n) for n in range(5_000)]
    assert holdings.room() >= 1


@pytest.mark.parametrize("concurrency", [1, 2])
def test_short_jobs_are_claimed_ahead(concurrency: int) -> None:
    hand = Hand(concurrency)
    for n in range(50):
        hand.holdings.take(claims(str(n)))
        hand.started[-1].task = cast(Any, object())  # it took some time, however little
        hand.end(str(n))
    hand.holdings.settled(hand.holdings.take_outcomes(50))
    assert hand.holdings.room() > concurrency


def test_what_redis_does_not_list_is_let_go_with_its_outcome_and_keeps_its_slot_while_it_runs() -> None:
    hand = Hand(2)
    hand.holdings.take(claims("1", "2", "3"))
    hand.end("1")
    assert [attempt.claim.job_id for attempt in hand.holdings.reconcile(claims("2"))] == ["1", "3"]
    assert hand.holdings.outcomes == []
    assert [attempt.claim.job_id for attempt in hand.holdings.mine.values()] == ["2"]
    assert hand.running == ["2", "3"]
    assert hand.end("3")
    assert hand.holdings.outcomes == []
    assert hand.end("2")
    assert [one.job_id for one in hand.holdings.outcomes] == ["2"]


def test_an_entry_that_is_another_jobs_by_now_takes_the_place_of_the_old_one() -> None:
    hand = Hand(2)
    hand.holdings.take(claims("1"))
    again = Claim(3, "1-0", "1", b"", 5)
    assert [attempt.claim.since_ms for attempt in hand.holdings.take([again])] == [0]
    old, new = hand.started
    hand.holdings.finished(old, outcome(old.claim))
    assert hand.holdings.outcomes == []
    hand.holdings.finished(new, outcome(new.claim))
    assert len(hand.holdings.outcomes) == 1


# Batches (of four, of jobs whose id begins with b) --------------------------------------------------------------------


async def test_a_gathered_job_takes_no_slot_and_a_batch_one() -> None:
    hand = Hand(2)
    hand.holdings.take(claims("b1", "1", "b2", "b3", "2"))
    assert hand.running == ["1", "2"]
    hand.holdings.take(claims("b4"))
    assert hand.batches == []  # it is ready to start, and there is no slot
    hand.end("1")
    assert hand.batches == [["b1", "b2", "b3", "b4"]]
    hand.holdings.take(claims("3"))
    assert hand.running == ["2"]
    hand.gathering.on_ended()
    assert hand.running == ["2", "3"]


async def test_a_batch_that_is_due_goes_before_what_waits_for_a_slot() -> None:
    hand = Hand(1)
    hand.holdings.take(claims("b1", "1", "2"))
    hand.gathering.flush()
    hand.end("1")
    assert (hand.batches, hand.running) == ([["b1"]], [])
    hand.gathering.on_ended()
    assert hand.running == ["2"]


async def test_more_is_claimed_for_a_batch_while_it_has_room_and_a_slot_is_free() -> None:
    hand = Hand(2)
    assert hand.holdings.room() == 2
    hand.holdings.take(claims("b1"))
    assert hand.holdings.room() == 2 + 3
    hand.holdings.take(claims("1"))
    assert hand.holdings.room() == 1 + 3
    hand.holdings.take(claims("2"))
    assert hand.holdings.room() == 0
    hand.end("1")
    assert hand.holdings.room() == 1 + 3
    hand.holdings.limited = True
    assert hand.holdings.room() == 1


async def test_nothing_is_claimed_for_a_batch_while_another_job_waits_for_a_slot() -> None:
    hand = Hand(2)
    hand.holdings.take(claims("b1", "1", "2", "3"))
    hand.holdings.reconcile(claims("b1", "1", "3"))  # 2 keeps its slot until it ends
    hand.holdings.closed = True
    hand.end("1")
    assert hand.holdings.waiting
    assert hand.holdings.room() == 0


async def test_jobs_of_other_names_that_have_to_wait_make_the_next_claims_for_batches_smaller() -> None:
    hand = Hand(1)
    hand.gathering.join = lambda member, rule: Gathering.join(hand.gathering, member, known(5_000))  # type: ignore[method-assign]
    hand.holdings.take(claims("b1"))
    few = hand.holdings.room()
    hand.holdings.take(claims("b2"))
    more = hand.holdings.room()
    hand.holdings.take(claims("1", "2"))
    hand.end("1")
    hand.end("2")
    assert few < more
    assert hand.holdings.room() == few


async def test_a_job_that_is_cancelled_while_it_is_gathered_is_taken_out() -> None:
    hand = Hand(1)
    hand.holdings.take(claims("b1", "b2"))
    assert hand.holdings.withdraw(hand.holdings.mine["b1-0"])
    hand.gathering.flush()
    assert hand.batches == [["b2"]]


async def test_a_worker_that_stops_gives_back_what_is_gathered_and_what_is_due() -> None:
    hand = Hand(1)
    hand.holdings.take(claims("1", "2"))
    hand.end("1")
    hand.holdings.take(claims("b1"))
    hand.end("2")
    hand.holdings.take(claims("b1", "b2"))
    hand.holdings.closed = True
    hand.gathering.flush()
    hand.holdings.take(claims("b3"))
    assert [a.claim.job_id for a in hand.holdings.idle_claims()] == ["b3", "b1", "b2"]
    assert hand.batches == []


async def test_a_batch_that_waits_too_long_for_a_slot_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(1)
    hand.holdings.take(claims("b1", "b2", "1"))
    hand.gathering.flush()
    assert hand.holdings.overdue() == []
    monkeypatch.setattr("streamq.worker.holdings.OVERDUE", 0.0)
    assert [attempt.claim.job_id for attempt in hand.holdings.overdue()] == ["b1", "b2"]
    hand.end("1")
    assert hand.batches == []
    assert hand.holdings.room() == 1


async def test_what_redis_does_not_list_is_let_go_from_a_batch_that_fills_up() -> None:
    hand = Hand(1)
    hand.holdings.take(claims("b1", "b2"))
    hand.holdings.reconcile(claims("b2"))
    hand.gathering.flush()
    assert hand.batches == [["b2"]]


async def test_a_job_that_is_gathered_late_frees_its_slot_for_what_is_ready_and_says_so() -> None:
    hand, changes = Hand(1), list[int]()
    hand.holdings.on_change = lambda: changes.append(hand.holdings.room())
    hand.holdings.take(claims("1", "2"))  # the data of 1 is fetched, and then it turns out to be gathered
    (first,) = hand.started
    hand.gathering.join(member_of(first), known(size=4))
    assert hand.running == ["1", "2"]
    assert not first.started_at
    assert changes == [0]
    hand.end("2")
    assert hand.holdings.room() == 1 + 3
