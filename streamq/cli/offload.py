"""`streamq offload clean`: delete large payloads that lie outside Redis, are old, and that no job needs any more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from streamq.cli import arguments, values
from streamq.errors import InvalidInput, OffloadUnavailable

if TYPE_CHECKING:
    from streamq.cli.session import Session

DAY = 86_400
EXAMPLES = """
  streamq offload clean s3://bucket/payloads --older-than 30d --dry-run
  streamq offload clean /var/lib/bank/payloads --older-than 30d --yes
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add(
        "operate a queue", "offload", offload, "delete old offloaded payloads that no job refers to", examples=EXAMPLES
    )
    option = parser.add_argument
    option("action", choices=["clean"], help="what to do")
    option("store", metavar="URL", help="where the payloads lie, as given to Offload: a path, or a URL")
    option("--older-than", type=arguments.span, default=30.0 * DAY, metavar="SPAN",
        help="spare younger ones; at least a day (default: 30d)")  # fmt: skip
    option("--dry-run", action="store_true", help="only tell how many would be deleted")
    arguments.add_yes(parser)


async def offload(session: Session) -> None:
    """Look what all jobs of this Redis refer to, then delete what is old and not among it."""
    from streamq._engine.endpoint import Endpoint
    from streamq._engine.references import find_references
    from streamq._engine.wire import Wire
    from streamq.offload import REFERENCES, delete_before
    from streamq.payload_stores import open_store

    options, settings = session.options, session.settings
    if options.older_than < DAY:
        raise InvalidInput("--older-than must be at least a day: a job may be about to be added that needs it")
    store = open_store(options.store, create=False)
    day = (datetime.now(UTC) - timedelta(seconds=options.older_than)).date()
    if not options.dry_run:
        session.confirm(f"Delete payloads from before {day} in {store!r} that no job of this Redis refers to?")
    wire = Wire(Endpoint(settings.redis_url, settings.timeout))
    try:
        needed = {name.decode() for name in await find_references(wire, REFERENCES)}
    finally:
        await wire.close()
    try:
        gone, kept = await asyncio.to_thread(delete_before, store, day, needed, dry_run=options.dry_run)
    except Exception as error:
        raise OffloadUnavailable(f"{store!r} can't be cleaned: {type(error).__name__}: {error}") from error
    if session.out.json:
        session.out.record({"deleted": gone, "needed": kept, "before": str(day), "dry_run": options.dry_run})
        return
    said = "would be deleted" if options.dry_run else "deleted"
    session.out.line(f"{values.count(gone, 'payload')} from before {day} {said}, {kept:,} needed by jobs")
