"""The file-shaped processors as a worker runs them."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import sys
import tomllib
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from streamq import JobFailed, Processors, Queue, QueueName, Worker
from streamq.processors import exports, imports, reports
from streamq.processors.exports_request import ExportResult
from streamq.processors.imports_request import ImportResult
from streamq.processors.ledger import balance, open_ledger, verify_books
from streamq.processors.reports_request import ReportResult
from streamq.processors.sample import SampleSize, create_sample_bank
from streamq.processors.storage import FolderStorage


@pytest.fixture
async def bank(ledger_url, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMQ_LEDGER_URL", ledger_url)
    monkeypatch.setenv("STREAMQ_STORAGE_URL", str(tmp_path / "files"))
    async with open_ledger() as ledger:
        await create_sample_bank(ledger, SampleSize(members=20, accounts=40, transactions=1_000))
        yield ledger


async def run(redis_url, queue_name, registry, name, data):
    """Run one job on a worker and return its result and what the snapshot then says of its progress."""
    async with Queue(queue_name, redis_url) as queue, Worker(queue_name, registry, redis=redis_url):
        job = await queue.add(name, data)
        result = await job.result(timeout=60)
        return result, (await job.snapshot()).progress


async def test_the_predecessors_report_job_runs_as_it_stands(redis_url, bank, tmp_path):
    data = {"reportType": "monthly-summary", "userId": "user-123", "filters": {"month": 11, "year": 2024}}
    found, progress = await run(redis_url, QueueName.REPORTS, reports.processors, "generate-monthly-report", data)
    result = msgspec.convert(found, ReportResult, strict=False)
    assert progress == 100
    assert (result.period, result.files[0].format) == ("November 2024", "csv")
    assert FolderStorage(tmp_path / "files").names() == [result.files[0].name]


async def test_members_that_are_exported_come_in_again_elsewhere(redis_url, bank, tmp_path, monkeypatch):
    found, progress = await run(
        redis_url, QueueName.EXPORTS, exports.processors, "export-members", {"entity": "members", "format": "excel"}
    )
    result = msgspec.convert(found, ExportResult, strict=False)
    assert (result.rows, progress["percent"]) == (20, 100)
    monkeypatch.setenv("STREAMQ_LEDGER_URL", f"sqlite:///{tmp_path}/other.db")
    data = {"entity": "members", "file": result.file.name}
    found, progress = await run(redis_url, QueueName.IMPORTS, imports.processors, "import-members", data)
    assert msgspec.convert(found, ImportResult, strict=False).imported == 20
    assert progress == {"percent": 100, "rows": 20, "imported": 20, "skipped": 0, "failed": 0}


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("import-members", {"entity": "accounts", "file": "a.csv"}, "import-members is for members, not for accounts"),
        ("import-members", {"entity": "members", "file": "a.csv"}, "the storage has no file a.csv"),
        ("import-members", {"entity": "members", "file": "../../etc/passwd", "format": "csv"}, "plain relative path"),
        ("import-members", {"entity": "members"}, "give file or records"),
        ("import-members", {"entity": "members", "file": "a.doc"}, "give format"),
    ],
)
async def test_an_import_that_can_not_work_fails_at_its_first_attempt(redis_url, bank, name, data, reason):
    async with Queue(QueueName.IMPORTS, redis_url) as queue:
        async with Worker(QueueName.IMPORTS, imports.processors, redis=redis_url):
            job = await queue.add(name, data, attempts=5)
            with pytest.raises(JobFailed, match=reason):
                await job.result(timeout=30)
        assert (await job.snapshot()).attempts_made == 1


async def test_an_import_goes_on_in_another_worker_when_its_own_is_killed(redis_url, bank, tmp_path):
    rows = 20_000
    write_transactions(FolderStorage(tmp_path / "files"), rows)
    async with bank.read() as conn:
        before = await balance(conn, "A-000001")
    data = {"entity": "transactions", "file": "t.csv", "batchSize": 500}
    async with Queue(QueueName.IMPORTS, redis_url) as queue:
        job = await queue.add("import-transactions", data)
        async with worker_process(redis_url):
            async for event in queue.events(after="0-0"):
                snapshot = await job.snapshot()
                if event.kind == "progress" and snapshot.progress["rows"] >= 2_000:
                    break
        async with worker_process(redis_url):
            result = msgspec.convert(await job.result(timeout=60), ImportResult, strict=False)
    assert (result.total, result.imported, result.failed) == (rows, rows, 0)
    assert result.resumed_after > 2_000
    async with bank.read() as conn:
        assert await balance(conn, "A-000001") == before + rows * Decimal("0.01")
        assert (await verify_books(conn)).ok


def write_transactions(storage, rows):
    with storage.create("t.csv") as draft:
        draft.file.write(b"id,account_id,amount,booked_on\n")
        draft.file.writelines(b"I-%d,A-000001,0.01,2024-12-31\n" % number for number in range(rows))


@asynccontextmanager
async def worker_process(redis_url):
    """Run `python -m streamq.worker`, and kill it when the block ends."""
    command = ["-m", "streamq.worker", "--queues", "imports", "--processors", "streamq.processors.imports:processors"]
    env = os.environ | {"REDIS_URL": redis_url, "STREAMQ_LEASE": "1"}
    process = await asyncio.create_subprocess_exec(sys.executable, *command, "--log-level", "error", env=env)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


def test_the_plugins_can_be_registered_together():
    together = Processors()
    for registry in (reports.processors, imports.processors, exports.processors):
        together.update(registry)
    assert together.queues() == ["exports", "imports", "reports"]
    assert together.find("reports", "generate-monthly-report") is not None


def test_the_plugins_are_offered_to_every_worker():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    offered = project["project"]["entry-points"]["streamq.processors"]
    for name, module in (("reports", reports), ("imports", imports), ("exports", exports)):
        entry = importlib.metadata.EntryPoint(name, offered[name], "streamq.processors")
        assert entry.load() is module.processors
