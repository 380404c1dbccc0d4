"""`streamq schedules upsert`: create a schedule, or make it as described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from streamq.cli import arguments, values
from streamq.cli.adding import add_job_options, read_data, run_options
from streamq.schedule import Missed, Overlap, Schedule

if TYPE_CHECKING:
    from streamq.cli.session import Session

EXAMPLES = """
  streamq schedules upsert reports nightly generate-nightly-report --cron '30 2 * * *' --tz Europe/Berlin
  streamq schedules upsert reports rates check-rates '{"base": "EUR"}' --every 10m --overlap skip
"""


def add_arguments(parser: arguments.Parser) -> None:
    """Add what the command takes beside the queue and the schedule's id."""
    option = parser.add_argument
    option("name", metavar="NAME", help="its jobs' name: which processor runs them")
    option("data", metavar="DATA", nargs="?", help="its jobs' data: JSON, or @FILE, or - (default: null)")
    rule = parser.add_mutually_exclusive_group(required=True)
    rule.add_argument("--cron", metavar="EXPR", help="five fields, six with seconds first, or @daily …")
    rule.add_argument("--every", type=arguments.span, metavar="SPAN", help="the distance of its slots (10s, 1h …)")
    option("--tz", default="UTC", metavar="ZONE", help="the time zone of --cron (default: UTC)")
    option("--start", type=arguments.moment, metavar="TIME", help="no slot before this; the first one of --every")
    option("--end", type=arguments.moment, metavar="TIME", help="no slot after this")
    option("--limit", type=arguments.positive, metavar="N", help="how many jobs it adds in all")
    option("--missed", choices=get_args(Missed), default="skip", metavar="WHAT",
        help=f"slots that nobody fired in time: {', '.join(get_args(Missed))} (default: skip)")  # fmt: skip
    option("--grace", type=arguments.span, default=30.0, metavar="SPAN", help="how late a slot may be (default: 30s)")
    option("--overlap", choices=get_args(Overlap), default="allow", metavar="WHAT",
        help=f"if its last job has not ended: {', '.join(get_args(Overlap))} (default: allow)")  # fmt: skip
    option("--jitter", type=arguments.span, default=0.0, metavar="SPAN", help="start its jobs up to so much later")
    add_job_options(parser)


def schedule_of(options: Any) -> Schedule:
    """Return the schedule that the command line describes."""
    return Schedule(
        cron=options.cron,
        every=options.every,
        name=options.name,
        data=read_data(options.data),
        options=run_options(options),
        tz=options.tz,
        start=options.start,
        end=options.end,
        limit=options.limit,
        missed=options.missed,
        grace=options.grace,
        overlap=options.overlap,
        jitter=options.jitter,
    )


async def upsert(session: Session) -> None:
    """Create a schedule, or change it."""
    schedule = schedule_of(session.options)
    async with session.queue() as queue:
        found = await queue.upsert_schedule(session.options.id, schedule)
    if session.out.json:
        session.out.record(found)
    else:
        paused = " (paused)" if found.paused else ""
        session.out.line(f"schedule {found.id}: next at {values.when_exactly(found.next_at)}{paused}")
