"""Batches until they start: what they take, when they are due, and what is taken out of them again."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from streamq._engine import codec
from streamq._engine.transitions import Claim
from streamq.batch import BatchJob
from streamq.policy import Batch
from streamq.processor import Processor
from streamq.worker.attempt import Attempt, Known
from streamq.worker.gathering import Gathering, JobBatch, Member
from streamq.worker.verdict import Terms

LONG = 3_600.0


async def handle(jobs: Any) -> None: ...


def known(name: str = "a", size: int = 3, max_wait: float = LONG) -> Known:
    batch = Batch(size, max_wait)
    processor = Processor(name=name, handler=handle, batch=batch)
    return Known(processor, codec.typed_decoder(Any), cast(Terms, None), "loop", batch)


def member(number: int, stalls: int = 0) -> Member:
    claim = Claim(3, f"{number}-0", str(number), b"", 0)
    claim.stalls = stalls
    job: BatchJob[Any] = BatchJob(cast(Any, None), str(number), "a", "q", None, attempt=1, attempts=1, stalls=stalls)
    return Member(Attempt(claim), job, cast(Any, None), cast(Terms, None))


def numbers(batch: JobBatch) -> list[str]:
    return [member.job.id for member in batch.members]


class Desk:
    """A gathering and what it has told."""

    def __init__(self) -> None:
        self.started: list[JobBatch] = []
        self.joined: list[str] = []
        self.became_due = asyncio.Event()
        self.gathering = Gathering(self.started.append)
        self.gathering.on_joined = lambda attempt: self.joined.append(attempt.claim.job_id)
        self.gathering.on_due = self.became_due.set


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_batch_is_due_when_it_is_full_and_the_next_job_opens_another_one(desk: Desk) -> None:
    rule, gathering = known(size=3), desk.gathering
    for number in range(1, 5):
        gathering.join(member(number), rule)
        assert desk.became_due.is_set() == (number >= 3)
    assert [numbers(batch) for batch in gathering.due] == [["1", "2", "3"]]
    assert numbers(gathering.filling["a"]) == ["4"]
    assert gathering.missing() == 2
    assert desk.joined == ["1", "2", "3", "4"]
    assert desk.started == []


async def test_a_batch_of_one_is_due_at_once(desk: Desk) -> None:
    desk.gathering.join(member(1), known(size=1))
    assert len(desk.gathering.due) == 1
    assert not desk.gathering.filling


async def test_a_batch_that_does_not_fill_up_is_due_when_it_has_waited(desk: Desk) -> None:
    for number in (1, 2):
        desk.gathering.join(member(number), known(max_wait=0.01))
    assert not desk.gathering.due
    async with asyncio.timeout(10):
        await desk.became_due.wait()
    assert [numbers(batch) for batch in desk.gathering.due] == [["1", "2"]]


async def test_each_name_has_a_batch_of_its_own(desk: Desk) -> None:
    for number, name in enumerate(["a", "b", "a"]):
        desk.gathering.join(member(number), known(name, size=5))
    assert {name: numbers(batch) for name, batch in desk.gathering.filling.items()} == {"a": ["0", "2"], "b": ["1"]}
    assert desk.gathering.missing() == 7
    desk.gathering.flush()
    assert [numbers(batch) for batch in desk.gathering.due] == [["0", "2"], ["1"]]


async def test_a_job_that_stalled_before_is_started_alone_in_the_slot_that_it_has(desk: Desk) -> None:
    desk.gathering.join(member(1), known())
    desk.gathering.join(member(2, stalls=1), known())
    assert [numbers(batch) for batch in desk.started] == [["2"]]
    assert desk.joined == ["1"]
    assert numbers(desk.gathering.filling["a"]) == ["1"]


async def test_a_job_that_is_taken_out_leaves_the_rest_and_the_last_one_nothing(desk: Desk) -> None:
    gathering, first, second = desk.gathering, member(1), member(2)
    for one in (first, second):
        gathering.join(one, known())
    assert gathering.withdraw(first.attempt)
    assert not gathering.withdraw(first.attempt)
    assert numbers(gathering.filling["a"]) == ["2"]
    timer = gathering.filling["a"].timer
    assert gathering.withdraw(second.attempt)
    assert not gathering.filling
    assert timer is not None
    assert timer.cancelled()
    full = member(3)
    gathering.join(full, known(size=1))
    assert gathering.withdraw(full.attempt)
    assert not gathering.due


async def test_a_job_that_runs_can_not_be_taken_out(desk: Desk) -> None:
    one = member(1)
    desk.gathering.join(one, known())
    one.attempt.started_at = 5.0
    assert not desk.gathering.withdraw(one.attempt)


async def test_all_that_has_not_started_can_be_taken_out(desk: Desk) -> None:
    gathering = desk.gathering
    for number in range(4):
        gathering.join(member(number), known(size=3))
    assert [attempt.claim.job_id for attempt in gathering.idle()] == ["0", "1", "2", "3"]
    assert (gathering.idle(), gathering.filling, len(gathering.due)) == ([], {}, 0)


async def test_a_batch_wants_its_handler_while_one_job_does(desk: Desk) -> None:
    batch = JobBatch(known())
    batch.members = [member(1), member(2)]
    assert not batch.cancelled
    batch.members[0].attempt.cancelled = "no need"
    assert not batch.cancelled
    batch.members[1].error = TimeoutError()
    assert batch.cancelled
