"""A queue, and workers beside it, on a real server. Tests wait for events and results, never for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
import redis

from streamq import Queue, Settings, Worker
from streamq.events import Event
from streamq.observer import Observer

PATIENCE = 30.0
"""Seconds after which a wait for something that must happen is a failure."""


@pytest.fixture
def settings(redis_url: str) -> Settings:
    """Settings with short waits."""
    return Settings(redis_url=redis_url, lease=2.0, retry_delay=0.01, grace=10.0)


ON_SHARDS_TOO = frozenset(
    f"test_{what}"
    for what in (
        *("bulk", "cancel", "dead_letters", "log_lines", "logs", "middleware", "minutes", "on_error", "operations"),
        *("overview", "steps", "timeouts", "unique"),
    )
)
"""Modules whose tests run on a queue without shards, and on one with them: it is the same to its callers."""
ON_ONE_QUEUE = frozenset(
    (
        "test_a_batch_that_goes_in_parts_takes_keys_that_refuse_nobody_only",
        "test_a_handler_whose_job_was_taken_away_stores_nothing",
        "test_a_job_of_another_priority_runs_in_its_new_turn",
        "test_a_job_s_history_holds_its_own_events_only_in_order",
        "test_a_job_that_is_removed_ends_its_follower",
        "test_a_large_clean_goes_in_steps_and_tells_its_progress",
        "test_a_limited_queue_has_room_again",
        "test_a_plain_handler_can_begin_behind_an_old_letter",
        "test_a_promoted_job_runs_now",
        "test_a_queue_may_have_a_default_for_all_that_is_added_through_it",
        "test_a_refusal_of_one_caller_does_not_touch_those_that_share_its_call",
        "test_a_schedules_jobs_have_its_key",
        "test_a_tally_says_when_the_cap_has_dropped_a_part",
        "test_an_own_id_and_a_key_say_it_the_same_way",
        "test_drain_removes_what_waits_and_lets_running_jobs_end",
        "test_jobs_are_listed_in_pages_that_know_the_next_one",
        "test_jobs_can_be_redriven_to_another_queue",
        "test_jobs_removed_from_a_dead_workers_hands_never_run_and_lost_entries_do_no_harm",
        "test_many_are_cancelled_by_their_ids_and_progress_is_told",
        "test_middleware_may_swallow_what_a_handler_raises",
        "test_minutes_tell_what_ended_in_each_and_what_was_left",
        "test_obliterate_refuses_while_jobs_run_and_then_leaves_nothing",
        "test_of_many_none_is_added_if_one_is_refused",
        "test_of_many_producers_of_one_key_exactly_one_adds_a_job",
        "test_retry_many_runs_all_failed_jobs_again_in_their_lanes",
        "test_throttle_one_job_in_each_window_however_soon_it_ends",
        "test_what_middleware_raises_fails_the_add_or_the_attempt",
        "test_whoever_waits_for_a_job_that_is_not_kept_hears_that_it_was_cancelled",
    )
)
"""Of these, tests of an order over the whole queue, of its very keys and numbers, or of queues of their own making."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of some modules twice."""
    if "shards" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in ON_SHARDS_TOO:
        plain_only = metafunc.function.__name__ in ON_ONE_QUEUE
        metafunc.parametrize("shards", [None] if plain_only else [None, 3], indirect=True, ids=_shards_id)


def _shards_id(shards: int | None) -> str:
    return f"{shards} shards" if shards else "plain"


@pytest.fixture
def shards(request: pytest.FixtureRequest) -> int | None:
    """Over how many shards the queue is spread."""
    return getattr(request, "param", None)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client, to look behind the scenes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


class Calls(Observer):
    """Counts the transitions that have been answered."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._more = asyncio.Event()

    def transition(self, queue: str, name: str, seconds: float, error: BaseException | None) -> None:
        self.names.append(name)
        self._more.set()

    async def answered(self, name: str, times: int = 1) -> None:
        """Wait until transition `name` has been answered so often."""
        async with asyncio.timeout(PATIENCE):
            while self.names.count(name) < times:
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def calls() -> Calls:
    """The transitions that `queue` has had answered."""
    return Calls()


@pytest.fixture
async def queue(settings: Settings, calls: Calls, shards: int | None) -> AsyncIterator[Queue]:
    """An empty queue."""
    async with Queue("q", settings=settings, observer=calls, shards=shards) as queue:
        yield queue


class Bench:
    """A queue with workers of its own."""

    def __init__(self, queue: Queue, settings: Settings, shards: int | None = None) -> None:
        self.queue, self.settings, self.shards = queue, settings, shards

    def worker(self, processors: Any, **options: Any) -> Worker:
        """Make a worker of the queue; `async with` starts and stops it."""
        return Worker(self.queue.name, processors, **{"settings": self.settings, "shards": self.shards, **options})

    async def happened(self, kind: str, job_id: str = "", *, times: int = 1) -> Event:
        """Wait until this event has happened `times` times since the queue was made."""
        async with asyncio.timeout(PATIENCE), aclosing(self.queue.events(after="0-0")) as events:
            async for event in events:
                if (event.kind, event.job_id) == (kind, job_id):
                    times -= 1
                    if not times:
                        return event
        raise AssertionError("events ended")

    async def history(self, job_id: str, until: str) -> list[str]:
        """Wait for a job's event `until` and return the kinds of all its events up to it."""
        kinds: list[str] = []
        async with asyncio.timeout(PATIENCE), aclosing(self.queue.events(after="0-0")) as events:
            async for event in events:
                if event.job_id == job_id:
                    kinds.append(event.kind)
                    if event.kind == until:
                        break
        return kinds


@pytest.fixture
def bench(queue: Queue, settings: Settings, shards: int | None) -> Bench:
    """The queue, and how to make workers of it."""
    return Bench(queue, settings, shards)
