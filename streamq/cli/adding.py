"""`streamq add`: add a job, or one job per line of a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from streamq.cli import arguments, values
from streamq.cli.session import complain
from streamq.errors import InvalidInput, JobError
from streamq.job import JobOptions
from streamq.policy import Backoff, Priority
from streamq.unique import OnConflict, Unique, While

if TYPE_CHECKING:
    from streamq.cli.session import Session
    from streamq.job import Job

EXAMPLES = """
  streamq add reports generate-monthly-report '{"month": 11}' --priority high
  streamq add emails send-email @mail.json --delay 10m --attempts 5
  streamq add reports nightly --at 2026-12-01T02:00 --id nightly-2026-12-01
  streamq add search index-page '{"page": 7}' --unique page:7 --delay 5s --on-conflict replace
  streamq add imports import-members '{"file": "m.csv"}' --wait --timeout 5m
  jq -c '.[]' mails.json | streamq add emails send-email - --lines
"""
FOR_EVER = float("inf")


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add("jobs", "add", add, "add a job", examples=EXAMPLES)
    arguments.add_queue(parser)
    option = parser.add_argument
    option("name", metavar="NAME", help="the job's name: which processor runs it")
    option("data", metavar="DATA", nargs="?", help="its data: JSON, or @FILE, or - for standard input (default: null)")
    option("--delay", type=arguments.span, default=0.0, metavar="SPAN", help="start it only after so long (30s, 2h …)")
    option("--at", type=arguments.moment, metavar="TIME", help="start it only then; ISO 8601, local if without a zone")
    add_job_options(parser)
    option("--id", metavar="ID", help="an id of your own; while it is known, nothing is added")
    option("--durable", action="store_true", help="return only when it is on the server's disk")
    option("--lines", action="store_true", help="each line of the data is a job: all are added, or none")
    option("--wait", nargs="?", type=arguments.span, const=FOR_EVER, metavar="SPAN",
        help="wait for its end (so long at most) and print its result; exit code 1 if it failed")  # fmt: skip


def add_job_options(parser: arguments.Parser) -> None:
    """Add the options that a job has however it comes about."""
    option = parser.add_argument
    option("-p", "--priority", type=arguments.priority, default=Priority.NORMAL, metavar="P",
        help="critical, high, normal or low (default: normal)")  # fmt: skip
    option("--attempts", type=arguments.positive, metavar="N", help="how often it may fail, the first time included")
    option("--backoff", type=arguments.span, metavar="SPAN", help="wait before the first retry; doubles each time")
    option("--timeout", type=arguments.span, metavar="SPAN", help="how long one attempt may take")
    option("--expires-in", type=arguments.span, metavar="SPAN", help="fail it if it was not started by then")
    option("--unique", metavar="KEY", help="add it only if no other job holds this key")
    option("--while", dest="while_", choices=get_args(While), default="running", metavar="STATE",
        help=f"how long it holds the key: {', '.join(get_args(While))} (default: running)")  # fmt: skip
    option("--unique-ttl", type=arguments.span, metavar="SPAN", help="hold the key so long at most")
    option("--on-conflict", choices=get_args(OnConflict), default="return_existing", metavar="WHAT",
        help=f"if the key is held: {', '.join(get_args(OnConflict))} (default: return_existing)")  # fmt: skip
    option("--key", metavar="KEY", help="whom it is for: keys share the workers fairly")
    option("--webhook", metavar="URL", help="tell this of its end; see docs/webhooks.md")
    option("--tag", action="append", default=[], metavar="WORD", help="may be given more than once")
    option("--header", action="append", default=[], type=arguments.header, metavar="NAME=VALUE",
        help="text for its handler; may be given more than once")  # fmt: skip
    option("--keep-completed", type=arguments.retention, metavar="COUNT[/AGE]", help="completed jobs to keep")
    option("--keep-failed", type=arguments.retention, metavar="COUNT[/AGE]", help="failed jobs to keep")


async def add(session: Session) -> int:
    """Add what the command line says."""
    options = session.options
    chosen = job_options(options)
    if options.lines:
        if options.wait is not None or options.id is not None:
            raise InvalidInput("--lines can't go with --wait or --id")
        specs = [(options.name, data, chosen) for data in read_lines(options.data)]
        async with session.queue() as queue:
            for job in await queue.add_many(specs, durable=options.durable):
                _tell(session, job)
        return 0
    data = read_data(options.data)
    async with session.queue() as queue:
        job = await queue.add(options.name, data, options=chosen, durable=options.durable)
        if options.wait is None:
            _tell(session, job)
            return 0
        if not session.out.json:
            complain(f"added job {job.id} to {job.queue}; waiting for its end")
        return await _wait(session, job, None if options.wait == FOR_EVER else options.wait)


async def _wait(session: Session, job: Job, within: float | None) -> int:
    told: dict[str, Any] = {"queue": job.queue, "id": job.id, "name": job.name, "is_new": job.is_new}
    try:
        told |= {"state": "completed", "result": await job.result(within)}
    except TimeoutError:
        told |= {"state": "unknown", "error": f"it has not ended within {values.age(within)}"}
    except JobError as error:
        told |= {"state": "failed", "error": str(error)}
    if session.out.json:
        session.out.record(told)
    elif "error" in told:
        complain(told["error"] if told["state"] == "failed" else f"job {job.id}: {told['error']}; it goes on")
    else:
        session.out.line(values.to_json(told["result"], indent=2))
    return 1 if "error" in told else 0


def _tell(session: Session, job: Job) -> None:
    if session.out.json:
        session.out.record({"queue": job.queue, "id": job.id, "name": job.name, "is_new": job.is_new})
    elif job.is_new:
        session.out.line(f"added job {job.id} ({job.name}) to {job.queue}")
    elif session.options.unique is not None and session.options.on_conflict != "return_existing":
        session.out.line(f"job {job.id} in {job.queue} has the new data; no other was added")
    else:
        session.out.line(f"job {job.id} is known already in {job.queue}; nothing was added")


def job_options(options: Any) -> JobOptions:
    """Return the options that the command line gives a job that is added now."""
    return msgspec.structs.replace(run_options(options), delay=options.delay, run_at=options.at, job_id=options.id)


def run_options(options: Any) -> JobOptions:
    """Return the options that the command line gives a job, however that comes about."""
    return JobOptions(
        priority=options.priority,
        attempts=options.attempts,
        backoff=None if options.backoff is None else Backoff.exponential(options.backoff),
        timeout=options.timeout,
        keep_completed=options.keep_completed,
        keep_failed=options.keep_failed,
        expires_in=options.expires_in,
        key=options.key,
        tags=tuple(options.tag),
        headers=dict(options.header) or None,
        unique=_unique(options),
        webhook=options.webhook,
    )


def _unique(options: Any) -> Unique | None:
    if options.unique is not None:
        return Unique(options.unique, options.while_, options.unique_ttl, options.on_conflict)
    if options.while_ != "running" or options.unique_ttl is not None or options.on_conflict != "return_existing":
        raise InvalidInput("--while, --unique-ttl and --on-conflict go with --unique KEY")
    return None


def read_data(text: str | None) -> Any:
    """Read a job's data: JSON, `@FILE`, `-` for standard input; None is null."""
    return None if text is None else parse(_load(text), "the data")


def read_lines(text: str | None) -> list[Any]:
    """Read the data of many jobs, one per line; empty lines don't count."""
    if text is None:
        raise InvalidInput("--lines needs data: @FILE, or - for standard input")
    lines = enumerate(_load(text).splitlines(), 1)
    return [parse(line, f"line {at}") for at, line in lines if line.strip()]


def parse(text: str, what: str) -> Any:
    """Read JSON, whole numbers exactly; raise InvalidInput, naming `what`, if it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        hint = "" if text[:1] in '{["' else """ (text needs double quotes inside single ones: '"text"')"""
        raise InvalidInput(f"{what} is no JSON: {error}{hint}") from None


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")


def _load(text: str) -> str:
    try:
        if text == "-":
            return sys.stdin.read()
        if text.startswith("@"):
            return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{text} can't be read: {error}") from None
    return text
