"""Bulk exports: the plugin of the queue `exports`.

An export job's life: 1. check the filters and count the rows; 2. stream them, in one consistent picture of the ledger,
into a file that nobody sees yet; 3. publish the file and record it. A retry writes the same name from the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import func, select

from streamq.errors import Unrecoverable
from streamq.job import QueueName
from streamq.processor import ActiveJob, Processors
from streamq.processors.exports_entities import export_of
from streamq.processors.exports_request import ExportRequest, ExportResult
from streamq.processors.generated import describe, record
from streamq.processors.imports_request import Entity
from streamq.processors.ledger import Ledger, open_ledger
from streamq.processors.storage import Storage, in_thread, open_storage, safe_part
from streamq.processors.writers import Sheet, table_writer

processors = Processors()

JOBS: dict[str, Entity | None] = {
    "export-records": None,
    "export-members": Entity.MEMBERS,
    "export-accounts": Entity.ACCOUNTS,
    "export-transactions": Entity.TRANSACTIONS,
}
"""The job names, and the entity that each is bound to."""

_CHUNK = 2_000
_TOLD_EVERY = 5  # chunks


async def export_records(job: ActiveJob[ExportRequest]) -> ExportResult:
    """Export the rows that the job asks for into one file.

    Progress is an object: percent, rows, total.

    Raises:
        Unrecoverable: The job's name and its entity differ, or the entity has no such filter.
    """
    bound = JOBS[job.name]
    if bound is not None and job.data.entity is not bound:
        raise Unrecoverable(f"{job.name} exports {bound}, not {job.data.entity}")
    storage = await asyncio.to_thread(open_storage)
    async with open_ledger() as ledger:
        return await run_export(ledger, storage, job.data, job_id=job.id, progress=job.progress)


for _name in JOBS:
    processors.register(_name, queue=QueueName.EXPORTS, data=ExportRequest)(export_records)


async def run_export(
    ledger: Ledger,
    storage: Storage,
    request: ExportRequest,
    *,
    job_id: str,
    progress: Callable[[Any], Awaitable[None]],
) -> ExportResult:
    """Run one export; see `export_records`."""
    started = time.monotonic()
    export = export_of(request.entity, request.filters)
    query = export.query(request.filters)
    sheet = Sheet(title=str(request.entity).capitalize(), columns=export.columns)
    name = f"exports/{request.entity}-{safe_part(job_id)}.{request.format}"
    rows = 0
    async with ledger.read() as conn, in_thread(storage.create(name)) as draft:
        total = (await conn.execute(select(func.count()).select_from(query.order_by(None).subquery()))).scalar_one()
        writer = table_writer(request.format, draft.file, sheet)
        with contextlib.ExitStack() as stack:
            stack.callback(writer.abort)
            result = await conn.stream(query)
            chunks = 0
            async for chunk in result.partitions(_CHUNK):
                await asyncio.to_thread(writer.write, chunk)
                rows, chunks = rows + len(chunk), chunks + 1
                if chunks % _TOLD_EVERY == 0:
                    await progress({"percent": min(99, rows * 100 // total), "rows": rows, "total": total})
            await asyncio.to_thread(writer.finish)
    file = describe(draft.result, request.format, rows)
    async with ledger.begin() as writing:
        await record(writing, [file], job_id=job_id, purpose="export", user_id=request.user_id)
    await progress({"percent": 100, "rows": rows, "total": total})
    return ExportResult(entity=request.entity, rows=rows, file=file, seconds=round(time.monotonic() - started, 3))
