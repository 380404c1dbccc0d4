"""Dead letters: list them, make jobs of them again, delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamq.cli import arguments, values
from streamq.cli.output import Cell, Table, shorten
from streamq.cli.session import complain
from streamq.errors import InvalidInput, StreamqError

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.dead_letters import DeadLetter

DEAD = "dead letters"

REDRIVE_EXAMPLES = """
  streamq redrive emails 1790000000000-0
  streamq redrive emails --error ConnectionError
  streamq redrive emails --all --to emails-slow
"""


class LetterNotFound(StreamqError):
    """No dead letter has that id. Nothing was changed."""

    def __init__(self, letter: str) -> None:
        super().__init__(letter)
        self.letter = letter

    def __str__(self) -> str:
        return f"dead letter {self.letter} is unknown: it never existed, or was redriven or purged"


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the commands."""
    parser = commands.add(DEAD, "dead", dead, "list the jobs that failed for good")
    arguments.add_queue(parser)
    option = parser.add_argument
    option("-n", "--count", type=arguments.positive, default=50, metavar="N", help="how many (default: 50)")
    option("--start", metavar="LETTER", help="begin behind this letter")
    option("--newest", action="store_true", help="the newest first")
    option("--all", action="store_true", help="page after page until there are no more")

    parser = commands.add(DEAD, "redrive", redrive, "make jobs of dead letters again", examples=REDRIVE_EXAMPLES)
    _add_choice(parser)
    parser.add_argument("--to", metavar="QUEUE", help="add them to this queue instead")

    parser = commands.add(DEAD, "purge", purge, "delete dead letters; failed jobs that are still kept stay")
    _add_choice(parser)
    arguments.add_yes(parser)


def _add_choice(parser: arguments.Parser) -> None:
    arguments.add_queue(parser)
    option = parser.add_argument
    option("letter", metavar="LETTER", nargs="?", help="one letter, by its own id")
    option("--all", action="store_true", help="all of them")
    option("--name", help="those of jobs of this name")
    option("--error", metavar="TYPE", help="those of this exception, by its class's name")


async def dead(session: Session) -> None:
    """List dead letters."""
    options, out = session.options, session.out
    start, shown = options.start, 0
    async with session.queue() as queue:
        while True:
            page = await queue.dead_letters(start, options.count, newest_first=options.newest)
            for letter in page if out.json else ():
                out.record(letter)
            if page and not out.json:
                out.table(Table(COLUMNS, [_row(letter) for letter in page]))
            shown += len(page)
            start = page.next
            if start is None or not options.all:
                break
    if not shown and not out.json:
        out.line(f"no dead letters in {queue.name}")
    if start is not None:
        complain(f"there may be more: --start {start}")


COLUMNS = ("letter", "job", "name", "failed", "error", "data", "kept")


def _row(letter: DeadLetter) -> tuple[str | Cell, ...]:
    return (
        Cell(letter.id, "name"),
        letter.job_id,
        letter.name,
        values.when(letter.failed_at),
        Cell(shorten(str(letter.error)), "bad"),
        shorten(values.to_json(letter.data), 40),
        "yes" if letter.is_kept else "no",
    )


async def redrive(session: Session) -> int:
    """Redrive dead letters."""
    options = session.options
    choice = _choice(session)
    async with session.queue() as queue:
        if options.to is None:
            found = await queue.redrive(**choice)
        else:
            async with session.queue(options.to) as to:
                found = await queue.redrive(**choice, to=to)
    if options.letter and not found.job_ids and not found.stayed:
        raise LetterNotFound(options.letter)
    if session.out.json:
        session.out.record({"queue": queue.name, "job_ids": found.job_ids, "stayed": found.stayed})
    else:
        session.out.line(
            f"{values.count(len(found.job_ids), 'job')} made to wait again"
            + (f" in {options.to}" if options.to else "")
        )
        if found.stayed:
            complain(f"{values.count(found.stayed, 'letter')} left: another job has the id")
    return 1 if found.stayed else 0


async def purge(session: Session) -> None:
    """Delete dead letters."""
    options = session.options
    choice = _choice(session)
    what = f"dead letter {options.letter}" if options.letter else "these dead letters"
    if options.all:
        what = "all dead letters"
    session.confirm(f"Delete {what} of {options.queue}?")
    async with session.queue() as queue:
        gone = await queue.purge_dead(**choice)
    if options.letter and not gone:
        raise LetterNotFound(options.letter)
    if session.out.json:
        session.out.record({"queue": queue.name, "purged": gone})
    else:
        session.out.line(f"{values.count(gone, 'dead letter')} deleted")


def _choice(session: Session) -> dict[str, Any]:
    options = session.options
    matched = options.name is not None or options.error is not None
    if bool(options.letter) + options.all + matched != 1:
        raise InvalidInput("say which dead letters: one by its id, or --name and --error, or --all")
    return {"letter": options.letter, "everything": options.all, "name": options.name, "error_type": options.error}
