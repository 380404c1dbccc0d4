"""Moving jobs: retry, cancel, remove, clean, promote, reschedule."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from streamq.bulk import CANCELLABLE, CLEANABLE, RETRYABLE
from streamq.cli import arguments, values
from streamq.cli.session import complain
from streamq.errors import InvalidInput, JobError, JobNotFound, WrongState
from streamq.job import JobState

if TYPE_CHECKING:
    from streamq.cli.session import Session

JOBS = "jobs"

RETRY_EXAMPLES = """
  streamq retry reports 17 18
  streamq retry reports --all
  streamq retry emails --name send-email --error ConnectionError --count 1000
  streamq retry reports --state completed --name nightly      run completed ones again
"""
CANCEL_EXAMPLES = """
  streamq cancel reports 17 18 --reason "wrong month"
  streamq cancel emails --state waiting --name newsletter --yes
  streamq cancel imports --state active --yes      interrupts what runs now
"""
CLEAN_EXAMPLES = """
  streamq clean reports --grace 7d --yes
  streamq clean emails --state failed --grace 1d --limit none --yes
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the commands."""
    parser = commands.add(
        JOBS, "retry", retry, "run failed jobs again: some, or all that match", examples=RETRY_EXAMPLES
    )
    arguments.add_queue(parser)
    _add_ids(parser, "*")
    parser.add_argument("--all", action="store_true", help="all failed jobs")
    _add_state(parser, RETRYABLE, JobState.FAILED, "failed, cancelled or completed", None)
    parser.add_argument("--name", help="only jobs of this name")
    parser.add_argument(
        "--error", metavar="TYPE", help="only jobs that failed with this exception, by its class's name"
    )
    parser.add_argument("-n", "--count", type=arguments.positive, metavar="N", help="so many at most, the oldest first")

    parser = commands.add(JOBS, "cancel", cancel, "cancel jobs that wait, are delayed or run", examples=CANCEL_EXAMPLES)
    arguments.add_queue(parser)
    _add_ids(parser, "*")
    parser.add_argument("-s", "--state", type=arguments.state(*sorted(CANCELLABLE)), metavar="STATE",
        help=f"all jobs of this state: {', '.join(sorted(CANCELLABLE))}")  # fmt: skip
    parser.add_argument("--name", help="of these only jobs of this name")
    parser.add_argument("-n", "--count", type=arguments.positive, metavar="N", help="so many at most")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; whoever waits for a job is told")
    arguments.add_yes(parser)

    parser = commands.add(JOBS, "remove", remove, "remove jobs and all that is kept of them")
    arguments.add_queue(parser)
    _add_ids(parser, "+")
    parser.add_argument("--force", action="store_true", help="even while they run; their outcomes are dropped")
    arguments.add_yes(parser)

    parser = commands.add(JOBS, "clean", clean, "remove old jobs of one state", examples=CLEAN_EXAMPLES)
    arguments.add_queue(parser)
    _add_state(parser, CLEANABLE, JobState.COMPLETED, ", ".join(sorted(CLEANABLE)), JobState.COMPLETED)
    parser.add_argument("--grace", type=arguments.span, default=0.0, metavar="SPAN",
        help="keep what is younger (ended jobs: since their end; default: 0)")  # fmt: skip
    parser.add_argument("--limit", type=arguments.limit, default=1_000, metavar="N|none",
        help="so many at most, the oldest first (default: 1000)")  # fmt: skip
    arguments.add_yes(parser)

    parser = commands.add(JOBS, "promote", promote, "let delayed jobs start now")
    arguments.add_queue(parser)
    _add_ids(parser, "+")

    parser = commands.add(JOBS, "reschedule", reschedule, "give delayed jobs another time")
    arguments.add_queue(parser)
    _add_ids(parser, "+")
    time = parser.add_mutually_exclusive_group(required=True)
    time.add_argument("--delay", type=arguments.span, metavar="SPAN", help="so long from now")
    time.add_argument("--at", type=arguments.moment, metavar="TIME", help="ISO 8601; local time if without a zone")


def _add_ids(parser: arguments.Parser, nargs: str) -> None:
    parser.add_argument("ids", metavar="ID", nargs=nargs, help="the jobs")


def _add_state(
    parser: arguments.Parser, allowed: frozenset[JobState], shown: JobState, words: str, default: JobState | None
) -> None:
    parser.add_argument("-s", "--state", type=arguments.state(*sorted(allowed)), default=default, metavar="STATE",
        help=f"{words} (default: {shown})")  # fmt: skip


async def retry(session: Session) -> int:
    """Retry the jobs that are named, or those that match."""
    options = session.options
    picked = options.all or any(value is not None for value in (options.state, options.name, options.error))
    if bool(options.ids) == picked or (options.ids and options.count is not None):
        raise InvalidInput("say which jobs: give their ids, or --all, --state, --name or --error")
    async with session.queue() as queue:
        if options.ids:
            return await each(session, "retried", queue.retry)
        ids = await queue.retry_many(
            options.state or JobState.FAILED, options.count, name=options.name, error_type=options.error
        )
    _tell_ids(session, "retried", ids)
    return 0


async def cancel(session: Session) -> int:
    """Cancel the jobs that are named, or those of a state."""
    options = session.options
    if bool(options.ids) == (options.state is not None) or (options.ids and (options.name or options.count)):
        raise InvalidInput("say which jobs: give their ids, or --state, and --name or --count to pick from those")
    if not options.ids:
        most = "all" if options.count is None else f"up to {options.count:,}"
        session.confirm(f"Cancel {most} {options.state} jobs of {options.queue}?")
    async with session.queue() as queue:
        if options.ids:

            async def one(job_id: str) -> None:
                if not await queue.cancel(job_id, options.reason):
                    found = await queue.get_job(job_id)
                    raise JobNotFound(job_id) if found is None else WrongState(job_id, "cancel", found.state)

            return await each(session, "cancelled", one)
        ids = await queue.cancel_many(options.state, options.count, name=options.name, reason=options.reason)
    _tell_ids(session, "cancelled", ids)
    return 0


async def remove(session: Session) -> int:
    """Remove jobs."""
    ids = session.options.ids
    session.confirm(f"Remove {values.count(len(ids), 'job')} of {session.options.queue}?")
    async with session.queue() as queue:

        async def one(job_id: str) -> None:
            if not await queue.remove(job_id, force=session.options.force):
                raise JobNotFound(job_id)

        return await each(session, "removed", one)


async def clean(session: Session) -> None:
    """Remove old jobs."""
    options = session.options
    older = f" that are older than {values.age(options.grace)}" if options.grace else ""
    most = "all" if options.limit is None else f"up to {options.limit:,}"
    session.confirm(f"Remove {most} {options.state} jobs of {options.queue}{older}?")
    async with session.queue() as queue:
        ids = await queue.clean(options.grace, options.limit, options.state)
    _tell_ids(session, "removed", ids)


async def promote(session: Session) -> int:
    """Promote jobs."""
    async with session.queue() as queue:
        return await each(session, "promoted", queue.promote)


async def reschedule(session: Session) -> int:
    """Reschedule jobs."""
    options = session.options
    async with session.queue() as queue:

        async def one(job_id: str) -> None:
            await queue.reschedule(job_id, delay=options.delay, run_at=options.at)

        return await each(session, "rescheduled", one)


async def each(session: Session, done: str, move: Callable[[str], Awaitable[None]]) -> int:
    """Move the jobs that are named one by one; those that can't be are told of, and make the exit code 1."""
    failed = 0
    for job_id in session.options.ids:
        try:
            await move(job_id)
        except JobError as error:
            failed += 1
            complain(str(error))
            if session.out.json:
                session.out.record({"id": job_id, done: False, "error": str(error)})
            continue
        if session.out.json:
            session.out.record({"id": job_id, done: True})
        else:
            session.out.line(f"{done} job {job_id}")
    return 1 if failed else 0


def _tell_ids(session: Session, done: str, ids: list[str]) -> None:
    if session.out.json:
        for job_id in ids:
            session.out.record({"id": job_id, done: True})
    else:
        session.out.line(f"{done} {values.count(len(ids), 'job')}")
