"""The demo's story: a bank, a server and a worker; five jobs; what came of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from streamq import embedded
from streamq.demo.errors import DemoFailed
from streamq.demo.folder import BAD, SOUND, DemoFolder
from streamq.demo.processors import IMPORTS, PAYMENTS, QUEUES, REPORTS, PaymentSent
from streamq.demo.show import Bars, Show
from streamq.demo.worker import DemoWorker, running_worker
from streamq.errors import JobFailed, WrongState
from streamq.job import Job
from streamq.policy import Priority
from streamq.processors.generated import GeneratedFile
from streamq.processors.imports_request import ImportResult
from streamq.processors.ledger import Ledger, open_ledger, verify_books
from streamq.processors.reports_request import ReportResult
from streamq.processors.sample import create_sample_bank
from streamq.queue import Queue

WITHIN = 60.0
"""Seconds that the jobs may take together."""
NOVEMBER = {"month": 11, "year": 2024}


async def run(root: Path, show: Show) -> None:
    """Run the demo in the folder `root`.

    Raises:
        DemoFailed: Something is not as it should be.
        ServerNotFound: No server could be found or started.
    """
    started = time.monotonic()
    folder = DemoFolder(root)
    await asyncio.to_thread(folder.prepare)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded.server(folder.server))
        show.step(f"server: {server.url.rsplit('@', 1)[-1]}")
        queues = {name: await stack.enter_async_context(Queue(name, server.url)) for name in QUEUES}
        await queues[IMPORTS].stats()  # says at once if the server that the environment names is not there
        await forget(queues, folder.earlier_jobs())
        ledger = await stack.enter_async_context(open_ledger(folder.ledger_url))
        async with running_worker(folder, server.url) as worker:
            size = await create_sample_bank(ledger)
            show.step(f"bank: {size.members:,} members, {size.accounts:,} accounts, {size.transactions:,} transactions")
            show.step(f"worker: process {worker.pid}, log in {folder.worker_log}")
            jobs = await add_jobs(queues, await asyncio.to_thread(folder.write_members))
            folder.remember_jobs({name: [job.id for job in jobs.values() if job.queue == name] for name in QUEUES})
            show.step(f"added {len(jobs)} jobs; the worker runs them:")
            results = await follow(queues, jobs, worker, show)
            stats = {name: await queue.stats() for name, queue in queues.items()}
        await tell(results, ledger, show)
        show.statistics(stats)
        show.files([file for result in results.values() for file in _files(result)])
    show.step(f"done in {time.monotonic() - started:.1f} s; everything is in {folder.root}")


async def add_jobs(queues: Mapping[str, Queue], members: str) -> dict[str, Job]:
    """Add the demo's jobs and return them by what they are called in `TITLES`."""
    imports, reports, payments = queues[IMPORTS], queues[REPORTS], queues[PAYMENTS]
    formats = {"formats": ["csv", "xlsx"]}
    summary = {
        "reportType": "monthly-summary",
        "userId": "user-123",
        "filters": NOVEMBER,
        "formats": ["csv", "xlsx", "pdf"],
    }
    return {
        "import": await imports.add("import-members", {"entity": "members", "file": members, "batchSize": 500}),
        "summary": await reports.add("generate-monthly-report", summary, priority=Priority.HIGH),
        "balances": await reports.add(
            "generate-financial-report", {"reportType": "member-balances", "filters": NOVEMBER, **formats}
        ),
        "flaky": await payments.add("send-payment", {"reference": "INV-1", "refusals": 2}),
        "dead": await payments.add("send-payment", {"reference": "INV-2", "refusals": 99}),
    }


TITLES = {
    "import": "import of new members",
    "summary": "transaction summary, November",
    "balances": "member balances, November",
    "flaky": "payment that fails twice",
    "dead": "payment that never goes through",
}


async def follow(
    queues: Mapping[str, Queue], jobs: Mapping[str, Job], worker: DemoWorker, show: Show
) -> dict[str, Any]:
    """Show the jobs until all have ended, and return their results, or the JobFailed of those that failed.

    Raises:
        DemoFailed: The worker died, or it takes too long.
    """
    with show.bars(TITLES) as bars:
        async with watching(queues, jobs, bars):
            ends = asyncio.gather(*(job.result() for job in jobs.values()), return_exceptions=True)
            death = asyncio.ensure_future(worker.died())
            try:
                await asyncio.wait((ends, death), timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
                if death.done():
                    raise death.result()
                if not ends.done():
                    raise DemoFailed(f"the jobs did not end within {WITHIN:g} s; see the worker's log")
                found = dict(zip(jobs, ends.result(), strict=True))
            finally:
                for task in (ends, death):
                    task.cancel()
                await asyncio.gather(ends, death, return_exceptions=True)
        for key, job in jobs.items():
            if (now := await job.snapshot()) is not None:
                bars.move(key, now)
    return found


@asynccontextmanager
async def watching(queues: Mapping[str, Queue], jobs: Mapping[str, Job], bars: Bars) -> AsyncIterator[None]:
    """Move the bars with each event of the jobs, while the block runs."""
    keys = {(job.queue, job.id): key for key, job in jobs.items()}

    async def watch(queue: Queue) -> None:
        async for event in queue.events(after="0-0"):
            key = keys.get((queue.name, event.job_id))
            now = await jobs[key].snapshot() if key is not None else None
            if key is not None and now is not None:
                bars.move(key, now)

    watchers = [asyncio.ensure_future(watch(queue)) for queue in queues.values()]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)


async def tell(results: Mapping[str, Any], ledger: Ledger, show: Show) -> None:
    """Check that all went as it should, and say what came of it.

    Raises:
        DemoFailed: It did not.
    """
    imported = _expect("import", results, ImportResult)
    if (imported.imported, imported.failed) != (SOUND, BAD):
        raise DemoFailed(
            f"the import took {imported.imported:,} rows and refused {imported.failed}: not what the file holds"
        )
    summary, balances = (_expect(key, results, ReportResult) for key in ("summary", "balances"))
    sent = _expect("flaky", results, PaymentSent)
    dead = results["dead"]
    if not isinstance(dead, JobFailed):
        raise DemoFailed(f"the payment that can't go through ended as {dead!r}")
    async with ledger.read() as conn:
        books = await verify_books(conn)
    if not books.ok:
        raise DemoFailed(f"the books don't balance: {books}")
    show.import_result(imported)
    net, together = Decimal(summary.totals["net"]), Decimal(balances.totals["balance"])
    show.step(f"{summary.title}: {summary.totals['transactions']:,} transactions, net {net:,} EUR")
    show.step(f"{balances.title}: {balances.rows:,} members, together {together:,} EUR")
    show.step(f"payment {sent.reference} went through at attempt {sent.attempt}")
    show.step(f"payment INV-2 is dead: {dead.error}")
    show.step(f"the books balance: {books.transactions:,} transactions, {books.postings:,} postings, sum {books.total}")


async def forget(queues: Mapping[str, Queue], jobs: Mapping[str, list[str]]) -> None:
    """Remove the jobs of an earlier run; one that a worker still runs is left to it."""
    for name, ids in jobs.items():
        for job_id in ids if name in queues else ():
            with contextlib.suppress(WrongState):
                await queues[name].remove(job_id)


def _expect(key: str, results: Mapping[str, Any], kind: type[Any]) -> Any:
    result = results[key]
    if isinstance(result, BaseException):
        raise DemoFailed(f"the {TITLES[key]} failed: {result}") from result
    return msgspec.convert(result, kind, strict=False)


def _files(result: Any) -> list[GeneratedFile]:
    if not isinstance(result, dict):
        return []
    found = [*result.get("files", ()), *filter(None, [result.get("errorsFile")])]
    return msgspec.convert(found, list[GeneratedFile])
