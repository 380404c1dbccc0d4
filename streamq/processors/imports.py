"""Bulk imports: the plugin of the queue `imports`.

An import job's life: 1. open the file and fingerprint it; 2. look up how far an earlier attempt came; 3. read, check
and store batch after batch, each in one database transaction with its errors and its progress; 4. write all errors to
a file. Killed anywhere, it goes on after its last committed batch, and no row comes in twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, BinaryIO

import msgspec

from streamq.errors import InvalidInput, Unrecoverable
from streamq.job import QueueName
from streamq.processor import ActiveJob, Processors
from streamq.processors.generated import GeneratedFile, describe, record
from streamq.processors.imports_entities import entity_import
from streamq.processors.imports_progress import Standing, advance, count_errors, errors_after, keep_errors, standing
from streamq.processors.imports_readers import FileRows
from streamq.processors.imports_records import check
from streamq.processors.imports_request import Entity, ImportRequest, ImportResult, RowError
from streamq.processors.ledger import Ledger, open_ledger
from streamq.processors.ledger.money import now
from streamq.processors.storage import Draft, Storage, in_thread, open_storage, safe_part
from streamq.processors.writers import Column, FileFormat, Kind, Sheet, table_writer

processors = Processors()

JOBS: dict[str, Entity | None] = {
    "import-records": None,
    "import-members": Entity.MEMBERS,
    "import-accounts": Entity.ACCOUNTS,
    "import-transactions": Entity.TRANSACTIONS,
    "update-members": Entity.MEMBERS,
    "update-accounts": Entity.ACCOUNTS,
}
"""The job names, and the entity that each is bound to."""

Progress = Callable[[Any], Awaitable[None]]

_ERROR_SHEET = Sheet(
    title="Import errors",
    columns=(Column("row", "Row", Kind.INTEGER), Column("field", "Field"), Column("reason", "Reason")),
)
_ERRORS_PER_READ = 5_000


class Batch(msgspec.Struct, frozen=True):
    """Rows that are stored together: those that are sound, the errors of the others, and the last row's number."""

    sound: list[tuple[int, msgspec.Struct]]
    errors: list[RowError]
    failed: int
    last: int


async def import_records(job: ActiveJob[ImportRequest]) -> ImportResult:
    """Import the rows that the job names and return how it went. A row that is wrong does not stop the others.

    Progress is an object: percent (where it can be known), rows, imported, skipped, failed.

    Raises:
        Unrecoverable: The file is missing, or is not what it should be. Batches before that point are in.
        ImportTakenOver: Another worker runs the same job; this one has stopped.
    """
    bound = JOBS[job.name]
    if bound is not None and job.data.entity is not bound:
        raise Unrecoverable(f"{job.name} is for {bound}, not for {job.data.entity}")
    request = msgspec.structs.replace(job.data, update=True) if job.name.startswith("update-") else job.data
    storage = await asyncio.to_thread(open_storage)
    async with open_ledger() as ledger:
        return await run_import(ledger, storage, request, job_id=f"{job.queue}/{job.id}", progress=job.progress)


for _name in JOBS:
    processors.register(_name, queue=QueueName.IMPORTS, data=ImportRequest)(import_records)


async def run_import(
    ledger: Ledger, storage: Storage, request: ImportRequest, *, job_id: str, progress: Progress
) -> ImportResult:
    """Import, or go on importing, one file; see `import_records`."""
    async with _opened(storage, request) as file:
        print_, size = await asyncio.to_thread(_fingerprint, request, file)
        key = f"{safe_part(job_id)}:{print_}"
        source = request.file or f"{len(request.records or [])} records"
        at = begun = await standing(ledger, key, request.entity, source, size)
        rows = FileRows(request, file)
        if at.finished_at is None:
            at = await _import_rest(ledger, request, rows, key, at, progress)
    async with ledger.read() as conn:
        error_count = await count_errors(conn, key)
        errors = await errors_after(conn, key)
    errors_file = await _write_errors(ledger, storage, key, job_id, error_count) if error_count else None
    if at.finished_at is None:
        at_end = msgspec.structs.replace(at, finished_at=now())
        async with ledger.begin() as conn:
            await advance(conn, key, at, at_end)
        at = at_end
    await progress(_told(at, 1.0))
    ended = at.finished_at or now()
    return ImportResult(
        entity=request.entity,
        source=source,
        total=at.imported + at.skipped + at.failed,
        imported=at.imported,
        skipped=at.skipped,
        failed=at.failed,
        error_count=error_count,
        errors=errors,
        errors_file=errors_file,
        ignored_columns=rows.ignored,
        resumed_after=begun.row,
        seconds=round((ended - at.started_at).total_seconds(), 3),
    )


async def _import_rest(
    ledger: Ledger, request: ImportRequest, rows: FileRows, key: str, at: Standing, progress: Progress
) -> Standing:
    """Store the batches after `at` and return where that ends."""
    batches = read_batches(request, rows, at.row)
    target = entity_import(request, key, now().date())
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        async with ledger.begin() as conn:
            stored = await target.store(conn, batch.sound)
            after = msgspec.structs.replace(
                at,
                row=batch.last,
                imported=at.imported + stored.imported,
                skipped=at.skipped + stored.skipped,
                failed=at.failed + batch.failed + len(stored.errors),
            )
            await advance(conn, key, at, after)
            await keep_errors(conn, key, [*batch.errors, *stored.errors])
        at = after
        await progress(_told(at, rows.done()))
    return at


def read_batches(request: ImportRequest, rows: FileRows, after: int) -> Iterator[Batch]:
    """Yield the rows after number `after`, checked, in batches. Blocks while it reads."""
    fresh = itertools.dropwhile(lambda row: row.number <= after, rows)
    while chunk := list(itertools.islice(fresh, request.batch_size)):
        sound: list[tuple[int, msgspec.Struct]] = []
        errors: list[RowError] = []
        for row in chunk:
            if row.error:
                errors.append(RowError(row.number, "", row.error))
                continue
            found = check(request.entity, row.fields, update=request.update)
            if isinstance(found, list):
                errors += [RowError(row.number, field, reason) for field, reason in found]
            else:
                sound.append((row.number, found))
        yield Batch(sound, errors, len(chunk) - len(sound), chunk[-1].number)


@asynccontextmanager
async def _opened(storage: Storage, request: ImportRequest) -> AsyncIterator[BinaryIO | None]:
    if request.file is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        try:
            file = await stack.enter_async_context(in_thread(storage.read(request.file)))
        except (FileNotFoundError, InvalidInput) as error:
            raise Unrecoverable(str(error)) from error
        yield file


def _fingerprint(request: ImportRequest, file: BinaryIO | None) -> tuple[str, int]:
    """Return a hash of what decides the rows and their numbers, and the size in bytes. Blocks."""
    content = io.BytesIO(msgspec.json.encode(request.records)) if file is None else file
    digest, size = hashlib.sha256(), 0
    while chunk := content.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    content.seek(0)
    how = (request.entity, request.update, request.file_format, request.delimiter, request.encoding)
    digest.update(repr([str(word) for word in how]).encode())
    return digest.hexdigest()[:32], size


def _told(at: Standing, done: float | None) -> dict[str, Any]:
    told = {"rows": at.imported + at.skipped + at.failed}
    told |= {"imported": at.imported, "skipped": at.skipped, "failed": at.failed}
    return told if done is None else {"percent": int(done * 100), **told}


async def _write_errors(ledger: Ledger, storage: Storage, key: str, job_id: str, count: int) -> GeneratedFile:
    """Write all errors of the import to a CSV file and record it. A repeat replaces it."""
    job = ".".join(safe_part(part) for part in job_id.split("/"))
    name = f"imports/errors-{job}-{key[-32:][:8]}.csv"  # the same job of another file gets another name
    loop = asyncio.get_running_loop()

    def write() -> Draft:
        with storage.create(name) as draft:
            writer = table_writer(FileFormat.CSV, draft.file, _ERROR_SHEET)
            last = (0, "")
            while errors := asyncio.run_coroutine_threadsafe(read(last), loop).result():
                writer.write([(error.row, error.field, error.reason) for error in errors])
                last = (errors[-1].row, errors[-1].field)
            writer.finish()
        return draft

    async def read(last: tuple[int, str]) -> list[RowError]:
        async with ledger.read() as conn:
            return await errors_after(conn, key, last, _ERRORS_PER_READ)

    draft = await asyncio.to_thread(write)
    file = describe(draft.result, FileFormat.CSV, count)
    async with ledger.begin() as conn:
        await record(conn, [file], job_id=job_id, purpose="import-errors")
    return file
