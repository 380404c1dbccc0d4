"""`streamq webhooks`: look at deliveries to webhooks, and have those that failed delivered again.

Deliveries are jobs of one name, in the queue of the jobs that they tell of; their ids say which job has ended, and how.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from streamq._engine.codec import WEBHOOK
from streamq.cli import arguments, values
from streamq.cli.output import Cell, Row, Table, shorten
from streamq.cli.queues import OPERATE
from streamq.cli.session import complain
from streamq.errors import JobError, JobNotFound
from streamq.job import JobState

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.job import JobSnapshot
    from streamq.queue import Queue

EXAMPLES = """
  streamq add reports nightly --webhook https://example.com/hook
  streamq webhooks reports                         the deliveries that failed for good
  streamq webhooks reports --state delayed         those that are tried again later
  streamq webhooks reports --retry                 deliver all that failed once more
  streamq webhooks reports --retry webhook:18:completed:17
"""
COLUMNS = ("delivery", "job", "ended", "url", ">attempts", "when", "error")


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        OPERATE, "webhooks", webhooks, "list deliveries to webhooks, or deliver again what failed", examples=EXAMPLES
    )
    arguments.add_queue(parser)
    option = parser.add_argument
    option("--retry", metavar="ID", nargs="*",
        help="deliver again: those named, by the ids that are listed, or all that failed")  # fmt: skip
    option("-s", "--state", type=arguments.state(*JobState), default=JobState.FAILED, metavar="STATE",
        help=f"{', '.join(JobState)} (default: failed)")  # fmt: skip
    option("-n", "--count", type=arguments.positive, default=50, metavar="N", help="how many (default: 50)")
    option("--start", metavar="WHERE", help="where a page ended")
    option("--newest", action="store_true", help="what came last, first")


async def webhooks(session: Session) -> int:
    """List deliveries, or retry them."""
    options = session.options
    async with session.queue() as queue:
        if options.retry is not None:
            return await _retry(session, queue)
        page = await queue.jobs(
            options.state, options.start or 0, options.count, newest_first=options.newest, name=WEBHOOK
        )
    if session.out.json:
        for found in page:
            session.out.record(_told(found))
    elif page:
        session.out.table(Table(COLUMNS, [_row(found) for found in page]))
    elif page.next is None:
        session.out.line(f"no {options.state} deliveries in {queue.name}")
    if page.next is not None:
        complain(f"there may be more: --start {shlex.quote(page.next)}")
    return 0


async def _retry(session: Session, queue: Queue) -> int:
    """Deliver again. Where only a dead letter is left of a delivery, it is made from that."""
    ids, stayed = session.options.retry, 0
    done: list[str] = []
    for delivery in ids:
        try:
            if not delivery.startswith("webhook:"):
                raise JobNotFound(delivery)
            await queue.retry(delivery)
            done.append(delivery)
        except JobError as error:
            complain(str(error))
            stayed += 1
    if not ids:
        done = await queue.retry_many(name=WEBHOOK)
        found = await queue.redrive(name=WEBHOOK)
        done, stayed = [*done, *found.job_ids], found.stayed
    if session.out.json:
        session.out.record({"queue": queue.name, "job_ids": done, "stayed": stayed})
    else:
        deliveries = f"{len(done):,} {'delivery' if len(done) == 1 else 'deliveries'}"
        session.out.line(f"{deliveries} made to wait again")
    return 1 if stayed else 0


def _told(found: JobSnapshot) -> dict[str, Any]:
    _, _, ended, job_id = found.id.split(":", 3) if found.id.count(":") >= 3 else ("", "", "", "")
    return {
        "queue": found.queue, "id": found.id, "job_id": job_id, "ended": ended,
        "url": found.data.get("url", "") if isinstance(found.data, dict) else "",
        "state": found.state, "attempts_made": found.attempts_made, "error": found.error,
        "at": found.finished_at or found.run_at or found.started_at or found.created_at,
    }  # fmt: skip


def _row(found: JobSnapshot) -> Row:
    told = _told(found)
    return (
        Cell(found.id, "name"), told["job_id"], told["ended"], shorten(told["url"], 60), str(found.attempts_made),
        values.when(told["at"]), Cell(shorten(str(found.error or values.NOTHING)), "bad"),
    )  # fmt: skip
