"""Reports: the plugin of the queue `reports`.

A report job's life: 1. look its type up and read its filters (10 %); 2. ask the ledger, in one consistent picture
(50 %); 3. write every wanted format in one pass (90 %); 4. record the files (100 %). A retry writes the same names
again, so it replaces what an earlier attempt left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from typing import Any

from streamq.errors import Unrecoverable
from streamq.job import QueueName
from streamq.processor import ActiveJob, Processors
from streamq.processors.generated import GeneratedFile, describe, record
from streamq.processors.ledger import Ledger, open_ledger
from streamq.processors.ledger.money import now
from streamq.processors.reports_catalogue import CATALOGUE, Category, Found, Report, fetch
from streamq.processors.reports_queries import QUERIES
from streamq.processors.reports_request import Period, ReportFilters, ReportRequest, ReportResult
from streamq.processors.storage import Storage, open_storage, safe_part
from streamq.processors.writers import FileFormat, Sheet, table_writer

processors = Processors()

_CHUNK = 5_000

JOBS: dict[str, frozenset[Category]] = {
    "generate-report": frozenset(Category),
    "generate-scheduled-report": frozenset(Category),
    "generate-monthly-report": frozenset({Category.FINANCIAL, Category.ANALYTICS}),
    "generate-financial-report": frozenset({Category.FINANCIAL}),
    "generate-analytics-report": frozenset({Category.ANALYTICS}),
    "generate-custom-report": frozenset({Category.CUSTOM}),
    "generate-export-report": frozenset({Category.EXPORT}),
}
"""The job names, and the categories of reports that each one makes."""


async def generate(job: ActiveJob[ReportRequest]) -> ReportResult:
    """Make the report that the job asks for and return what it says in sum, and its files.

    Raises:
        Unrecoverable: There is no such report under this job name, or it can't be made as asked.
    """
    storage = await asyncio.to_thread(open_storage)
    async with open_ledger() as ledger:
        return await make_report(
            ledger, storage, job.data, job_name=job.name, job_id=job.id, progress=job.progress, today=now().date()
        )


for _name in JOBS:
    processors.register(_name, queue=QueueName.REPORTS, data=ReportRequest)(generate)


async def make_report(
    ledger: Ledger,
    storage: Storage,
    request: ReportRequest,
    *,
    job_name: str,
    job_id: str,
    progress: Callable[[Any], Awaitable[None]],
    today: date,
) -> ReportResult:
    """Make one report; see `generate`."""
    report = find_report(job_name, request)
    if "monthly" in job_name and request.filters.month is None and request.filters.period is None:
        raise Unrecoverable("a monthly report needs filters.month and filters.year, or filters.period")
    period = request.filters.resolve(today)
    await progress(10)
    async with ledger.read() as conn:
        found = await report.compile(conn, period, request.filters)
    await progress(50)
    facts = [("Period", period.label), ("Made on", today.isoformat())]
    facts += [("Made for", request.user_id)] if request.user_id else []
    facts += [("Member", request.filters.user)] if request.filters.user else []
    facts += [(key.capitalize(), str(value)) for key, value in request.parameters.items()]
    title = f"{report.title}, {period.label}"
    sheet = Sheet(title=title, columns=report.columns, facts=tuple(facts), for_people=True)
    stem = f"reports/{safe_part(report.type)}-{request.filters.slug(today)}-{safe_part(job_id)}"
    files = await asyncio.to_thread(write_files, storage, stem, list(dict.fromkeys(request.formats)), sheet, found)
    await progress(90)
    async with ledger.begin() as writing:
        await record(writing, files, job_id=job_id, purpose="report", user_id=request.user_id)
    await progress(100)
    return ReportResult(
        report_type=request.report_type,
        title=title,
        period=period.label,
        rows=len(found.rows),
        totals=named_totals(report, found),
        files=files,
    )


def find_report(job_name: str, request: ReportRequest) -> Report:
    """Return the report that a job of this name asks for.

    Raises:
        Unrecoverable: There is none; the message lists those there are.
    """
    categories = JOBS[job_name]
    if request.query is not None and Category.CUSTOM in categories:
        return _custom(request.query, request.parameters)
    known = CATALOGUE.get(request.report_type)
    if known is None or known.category not in categories:
        wanted = sorted(r.type for r in CATALOGUE.values() if r.category in categories)
        wanted += ["custom"] if Category.CUSTOM in categories else []
        raise Unrecoverable(f"{job_name} makes no report {request.report_type!r}; it makes {', '.join(wanted)}")
    if request.parameters:
        raise Unrecoverable(f"the report {known.type} takes filters, but no parameters")
    return known


def _custom(name: str, given: dict[str, Any]) -> Report:
    query = QUERIES.get(name)
    if query is None:
        raise Unrecoverable(f"there is no query {name!r}; there are {', '.join(sorted(QUERIES))}")
    parameters = query.read(given)

    async def compile_(conn: Any, period: Period, filters: ReportFilters) -> Found:
        return Found(await fetch(conn, query.build(parameters, period, filters)))

    return Report(query.name, Category.CUSTOM, query.title, query.columns, compile_)


def write_files(
    storage: Storage, stem: str, formats: list[FileFormat], sheet: Sheet, found: Found
) -> list[GeneratedFile]:
    """Write the rows in each format, all in one pass: either every file appears, or none does unless the last
    renames themselves fail. Blocks."""
    with ExitStack() as stack:
        drafts = [stack.enter_context(storage.create(f"{stem}.{form}")) for form in formats]
        writers = [table_writer(form, draft.file, sheet) for form, draft in zip(formats, drafts, strict=True)]
        for writer in writers:
            stack.callback(writer.abort)
        for start in range(0, len(found.rows), _CHUNK):
            for writer in writers:
                writer.write(found.rows[start : start + _CHUNK])
        for writer in writers:
            writer.finish(found.totals)
    return [describe(d.result, form, len(found.rows)) for form, d in zip(formats, drafts, strict=True)]


def named_totals(report: Report, found: Found) -> dict[str, Any]:
    """Return the numbers of the totals row by column key."""
    if found.totals is None:
        return {}
    cells = zip(report.columns, found.totals, strict=True)
    return {column.key: cell for column, cell in cells if isinstance(cell, Decimal | int)}
