"""What operators do from the pages: each action's words, whether it asks first, and the call that it stands for."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from streamq.bulk import CANCELLABLE
from streamq.cli.arguments import NONE, limit, rate
from streamq.cli.values import count
from streamq.errors import InvalidInput, JobError, ScheduleNotFound
from streamq.job import JobState
from streamq.queue import Queue

Form = Mapping[str, str]
Run = Callable[[Queue, Sequence[str], Form], Awaitable[str]]


class Action(NamedTuple):
    """An action. `question` is asked always, or, where `asks_for_one` is False, for more than one thing only."""

    label: str
    question: str
    run: Run
    asks_for_one: bool = True
    needs_ids: bool = False
    danger: bool = False
    asks_reason: bool = False

    def asks(self, ids: Sequence[str]) -> bool:
        """Whether it is to be confirmed."""
        return bool(self.question) and (self.asks_for_one or len(ids) > 1)


def _each(done: str, what: str, one: Callable[[Queue, str], Awaitable[object]]) -> Run:
    async def run(queue: Queue, ids: Sequence[str], form: Form) -> str:
        moved, refused, why = 0, 0, ""
        for each in ids:
            try:
                found = await one(queue, each)
            except (JobError, ScheduleNotFound) as error:
                refused, why = refused + 1, str(error)
                continue
            if found is False:
                refused, why = refused + 1, f"{what} {each} is unknown"
            else:
                moved += 1
        text = f"{count(moved, what)} {done}"
        return f"{text}; {refused:,} not: {why}" if refused else text

    return run


async def _pause(queue: Queue, ids: Sequence[str], form: Form) -> str:
    await queue.pause()
    return f"{queue.name} is paused: running jobs go on, and no other starts"


async def _resume(queue: Queue, ids: Sequence[str], form: Form) -> str:
    await queue.resume()
    return f"{queue.name} goes on"


async def _retry_all(queue: Queue, ids: Sequence[str], form: Form) -> str:
    found = await queue.retry_many(name=form.get("name") or None, error_type=form.get("error") or None)
    return f"{count(len(found), 'failed job')} retried"


async def _cancel(queue: Queue, ids: Sequence[str], form: Form) -> str:
    found = await queue.cancel_many(ids=ids, reason=form.get("reason", ""))
    text = f"{count(len(found), 'job')} cancelled"
    missed = [job_id for job_id in ids if job_id not in set(found)]
    return f"{text}; {len(missed):,} not: job {missed[0]} has ended, or is unknown" if missed else text


async def _cancel_all(queue: Queue, ids: Sequence[str], form: Form) -> str:
    state = form.get("state", "")
    if state not in CANCELLABLE:
        raise InvalidInput(f"say which state: {', '.join(sorted(CANCELLABLE))}")
    found = await queue.cancel_many(JobState(state), name=form.get("name") or None, reason=form.get("reason", ""))
    return f"{count(len(found), f'{state} job')} cancelled"


async def _clean(queue: Queue, ids: Sequence[str], form: Form) -> str:
    try:
        state, hours = JobState(form.get("state", "")), float(form.get("hours") or 0)
    except ValueError:
        raise InvalidInput("say which state, and an age in hours") from None
    found = await queue.clean(hours * 3_600, None, state)
    return f"{count(len(found), f'{state} job')} removed"


async def _redrive(queue: Queue, ids: Sequence[str], form: Form) -> str:
    back, stayed = 0, 0
    for letter in ids:
        done = await queue.redrive(letter)
        back, stayed = back + len(done.job_ids), stayed + done.stayed
    return _redriven(back, stayed)


async def _redrive_all(queue: Queue, ids: Sequence[str], form: Form) -> str:
    name, kind = form.get("name") or None, form.get("error") or None
    done = await queue.redrive(everything=not (name or kind), name=name, error_type=kind)
    return _redriven(len(done.job_ids), done.stayed)


def _redriven(back: int, stayed: int) -> str:
    text = f"{count(back, 'dead letter')} became {'a job' if back == 1 else 'jobs'} again"
    return f"{text}; {stayed:,} stayed: their job's id is taken" if stayed else text


async def _purge(queue: Queue, ids: Sequence[str], form: Form) -> str:
    gone = 0
    for letter in ids:
        gone += await queue.purge_dead(letter)
    return f"{count(gone, 'dead letter')} deleted"


async def _purge_all(queue: Queue, ids: Sequence[str], form: Form) -> str:
    name, kind = form.get("name") or None, form.get("error") or None
    gone = await queue.purge_dead(everything=not (name or kind), name=name, error_type=kind)
    return f"{count(gone, 'dead letter')} deleted"


async def _retry_flow(queue: Queue, ids: Sequence[str], form: Form) -> str:
    found = [job for top in ids for job in await queue.retry_flow(top)]
    return f"{count(len(found), 'job')} of the flow retried"


async def _cancel_flow(queue: Queue, ids: Sequence[str], form: Form) -> str:
    found = [job for top in ids for job in await queue.cancel_flow(top, form.get("reason", ""))]
    return f"{count(len(found), 'job')} of the flow cancelled, or asked to end"


async def _limit_keys(queue: Queue, ids: Sequence[str], form: Form) -> str:
    """Set what the form says of keys, or of all that have no settings of their own; an empty field lifts a limit."""
    given = {name: form[name].strip() or NONE for name in KEY_LIMITS if name in form}
    try:
        chosen = {name: KEY_LIMITS[name](text) for name, text in given.items()}
    except argparse.ArgumentTypeError as error:
        raise InvalidInput(str(error)) from None
    for key in ids or (None,):
        await queue.limit_key(key, **chosen)
    return f"the limits of {count(len(ids), 'key')} are set" if ids else "the limits of all keys are set"


KEY_LIMITS: dict[str, Callable[[str], Any]] = {"rate": rate, "concurrency": limit, "weight": limit}

ACTIONS: dict[str, Action] = {
    "retry": Action(
        "Retry", "Retry these jobs?", _each("retried", "job", Queue.retry), asks_for_one=False, needs_ids=True,
    ),
    "promote": Action(
        "Promote", "Let these jobs start now?", _each("promoted", "job", Queue.promote),
        asks_for_one=False, needs_ids=True,
    ),
    "remove": Action(
        "Remove", "Remove for good, with all that is kept of it?", _each("removed", "job", Queue.remove),
        needs_ids=True, danger=True,
    ),
    "cancel": Action(
        "Cancel", "Cancel these jobs, and interrupt those that run?", _cancel, needs_ids=True, danger=True,
        asks_reason=True,
    ),
    "cancel-all": Action(
        "Cancel", "Cancel all jobs of this state that match, and interrupt those that run?", _cancel_all, danger=True,
        asks_reason=True,
    ),
    "retry-flow": Action(
        "Retry", "Retry all jobs of this flow that have failed or were cancelled?", _retry_flow, needs_ids=True,
    ),
    "cancel-flow": Action(
        "Cancel", "Cancel all jobs of this flow that have not ended, and interrupt those that run?", _cancel_flow,
        needs_ids=True, danger=True, asks_reason=True,
    ),
    "pause": Action("Pause", "", _pause),
    "resume": Action("Resume", "", _resume),
    "retry-all": Action("Retry all failed", "Retry all failed jobs that match?", _retry_all),
    "clean": Action("Clean", "Remove all jobs of this state and age for good?", _clean, danger=True),
    "redrive": Action(
        "Redrive", "Make jobs of these dead letters again?", _redrive, asks_for_one=False, needs_ids=True,
    ),
    "redrive-all": Action("Redrive all", "Make jobs of all dead letters that match again?", _redrive_all),
    "purge": Action("Delete", "Delete these dead letters for good?", _purge, needs_ids=True, danger=True),
    "purge-all": Action("Delete all", "Delete all dead letters that match for good?", _purge_all, danger=True),
    "pause-key": Action("Pause", "", _each("paused", "key", Queue.pause_key), needs_ids=True),
    "resume-key": Action("Resume", "", _each("resumed", "key", Queue.resume_key), needs_ids=True),
    "limit-key": Action("Set", "", _limit_keys, needs_ids=True),
    "limit-keys": Action(
        "Set for all", "Set this for all keys that have no settings of their own?", _limit_keys,
    ),
    "trigger": Action(
        "Trigger", "Add a job of each of these schedules now?", _each("triggered", "schedule", Queue.trigger_schedule),
        asks_for_one=False, needs_ids=True,
    ),
    "pause-schedule": Action("Pause", "", _each("paused", "schedule", Queue.pause_schedule), needs_ids=True),
    "resume-schedule": Action("Resume", "", _each("resumed", "schedule", Queue.resume_schedule), needs_ids=True),
    "remove-schedule": Action(
        "Remove", "Remove this schedule? Jobs that it has added stay.",
        _each("removed", "schedule", Queue.remove_schedule), needs_ids=True, danger=True,
    ),
}  # fmt: skip
