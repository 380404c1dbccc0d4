"""Changing jobs that have not run yet: their priority, their data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamq.cli import arguments
from streamq.cli.adding import read_data
from streamq.cli.moving import JOBS, each

if TYPE_CHECKING:
    from streamq.cli.session import Session

PRIORITY_EXAMPLES = """
  streamq change-priority reports 17 18 --to critical
"""
DATA_EXAMPLES = """
  streamq update-data reports 17 '{"month": 12}'
  streamq update-data emails welcome-9 @mail.json
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the commands."""
    parser = commands.add(
        JOBS, "change-priority", change_priority, "give waiting or delayed jobs another priority",
        examples=PRIORITY_EXAMPLES,
    )  # fmt: skip
    arguments.add_queue(parser)
    parser.add_argument("ids", metavar="ID", nargs="+", help="the jobs")
    parser.add_argument("--to", type=arguments.priority, required=True, metavar="P",
        help="critical, high, normal or low; a waiting job goes to the end of that lane")  # fmt: skip

    parser = commands.add(
        JOBS, "update-data", update_data, "replace the data of a job that waits, is delayed or has failed",
        examples=DATA_EXAMPLES,
    )  # fmt: skip
    arguments.add_queue(parser)
    parser.add_argument("ids", metavar="ID", nargs=1, help="the job")
    parser.add_argument("data", metavar="DATA", help="JSON, or @FILE, or - for standard input")


async def change_priority(session: Session) -> int:
    """Change the priority of jobs."""
    async with session.queue() as queue:

        async def one(job_id: str) -> None:
            await queue.change_priority(job_id, session.options.to)

        return await each(session, "reprioritized", one)


async def update_data(session: Session) -> int:
    """Replace a job's data."""
    data = read_data(session.options.data)
    async with session.queue() as queue:

        async def one(job_id: str) -> None:
            await queue.update_data(job_id, data)

        return await each(session, "updated", one)
