"""The demo's story: a bank, a server, a mail server and two workers; a night, a kill, a morning, a reconciliation."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from streamq import embedded
from streamq.demo import mail
from streamq.demo.errors import DemoFailed
from streamq.demo.facts import Facts, JobFacts
from streamq.demo.folder import DemoFolder
from streamq.demo.killing import Killed, kill_the_worker_of
from streamq.demo.night import BOARD, Line, begin_morning, begin_night, clear, letters, unfinished
from streamq.demo.plan import SHORT, Size
from streamq.demo.processors import QUEUES
from streamq.demo.reconcile import reconcile
from streamq.demo.show import Show
from streamq.demo.tell import Results, tell_morning, tell_night
from streamq.demo.watch import Watch, watching
from streamq.demo.worker import DemoWorker, environment, running_worker
from streamq.processors.generated import GeneratedFile
from streamq.processors.ledger import open_ledger
from streamq.processors.sample import create_sample_bank
from streamq.queue import Queue

WITHIN = 100.0
"""Seconds that the jobs of the night may take, and those of the morning."""
PUT_OFF_EACH = 40
"""Of so many recipients, one is put off once by the mail server."""


class Stage(msgspec.Struct, frozen=True):
    """What a night plays on."""

    queues: Mapping[str, Queue]
    workers: Sequence[DemoWorker]
    watch: Watch
    show: Show


async def run(root: Path, show: Show, *, short: bool = False) -> None:
    """Run the demo in the folder `root`.

    Raises:
        DemoFailed: Something is not as it should be.
        ServerNotFound: No server could be found or started.
    """
    started, size, folder = time.monotonic(), SHORT if short else Size(), DemoFolder(root)
    await asyncio.to_thread(folder.prepare)
    show.chapter("Evening: a bank, and two workers")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        server = await enter(embedded.server(folder.server))
        show.step(f"server: {server.url.rsplit('@', 1)[-1]}")
        queues = {name: await enter(Queue(name, server.url)) for name in QUEUES}
        await clear(queues)
        ledger = await enter(open_ledger(folder.ledger_url))
        bank = await create_sample_bank(ledger)
        show.step(f"bank: {bank.members:,} members, {bank.accounts:,} accounts, {bank.transactions:,} transactions")
        await asyncio.to_thread(folder.write_members, size)
        payments_total = await asyncio.to_thread(folder.write_payments, size)
        post = await letters(ledger, size)
        sink = await enter(mail.serving(folder.mailbox, set(list(post)[::PUT_OFF_EACH])))
        show.step(f"mail server: 127.0.0.1:{sink.port}; what it takes stays in {folder.mailbox}")
        env = environment(folder, server.url, sink.port)
        workers = [await enter(running_worker(env, folder.worker_log(number))) for number in (1, 2)]
        show.step(f"workers: processes {' and '.join(str(one.pid) for one in workers)}, logs in {folder.root}")
        watch = await enter(watching(queues))
        stage = Stage(queues, workers, watch, show)
        lines, results = await night(stage, size, post)
        morning_lines, more = await morning(stage, results)
        lines, results = lines | morning_lines, results | more
        stats = {name: await queue.stats() for name, queue in queues.items()}
        jobs = [
            JobFacts("/".join(key), line.ending, watch.endings.get(key, []))
            for line in lines.values() for key in line.keys
        ]  # fmt: skip
        left = await unfinished(queues)
        if sink.repeats:
            show.step(
                f"{sink.repeats} e-mails had reached the mail server when their worker was killed: the second copies "
                f"were dropped by their Message-ID"
            )
    facts = Facts(
        size=size, payments_total=payments_total, recipients=[*post, BOARD], jobs=jobs, unfinished=left
    )  # fmt: skip
    folder.keep(facts)
    show.statistics(stats)
    show.files([file for result in results.values() for file in _files(result)])
    await settle(folder, show)
    show.step(f"done in {time.monotonic() - started:.1f} s; everything is in {folder.root}")


async def settle(folder: DemoFolder, show: Show) -> None:
    """Reconcile the night that the folder holds, and show what was found.

    Raises:
        DemoFailed: It does not reconcile, or no night has run there.
    """
    facts = await asyncio.to_thread(folder.facts)
    show.chapter("Reconciliation")
    checks = await reconcile(folder, facts)
    show.checks(checks)
    if wrong := [check for check in checks if check.wrong]:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DemoFailed(f"the night does not reconcile: not true that {wrong[0].title}: {wrong[0].wrong}{more}")


async def night(stage: Stage, size: Size, post: Mapping[str, Any]) -> tuple[dict[str, Line], Results]:
    """Run the night, kill a worker on the way, and tell what came of it."""
    lines = await begin_night(stage.queues, size, post)
    count = sum(len(line.keys) for line in lines.values())
    stage.show.chapter(f"Night: {count} jobs; {size.nights} nights pass, one each {size.night_seconds} s")
    (victim,) = lines["payments"].keys

    async def kill() -> Killed:
        killed = await kill_the_worker_of(victim, stage.workers, stage.queues, stage.watch)
        counts = Counter(killed.held.values())
        held = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in sorted(counts.items()))
        stage.show.alarm(f"kill -9 {killed.pid}: one of the two workers is dead, in the middle of {held}")
        return killed

    _, killed = await play(stage, lines, kill())
    results = await read(stage.watch, lines)
    if stage.watch.stalled_at is not None:
        stage.show.step(
            f"the other worker took the jobs of process {killed.pid} over "
            f"{stage.watch.stalled_at - killed.at:.1f} s after its death"
        )
    tell_night(results, size, stage.show)
    return lines, results


async def morning(stage: Stage, results: Results) -> tuple[dict[str, Line], Results]:
    """Run what comes after the night, on the worker that is left, and tell what came of it."""
    report = next(file.name for file in _files(results["summary"]) if file.format == "pdf")
    lines = await begin_morning(stage.queues, report)
    stage.show.chapter("Morning: export, second ledger, board")
    await play(stage, lines)
    found = await read(stage.watch, lines)
    tell_morning(found, stage.show)
    return lines, found


async def play(stage: Stage, lines: Mapping[str, Line], *beside: Coroutine[Any, Any, Any]) -> list[Any]:
    """Show the jobs until all have ended, while `beside` runs too; return what ended.

    Raises:
        DemoFailed: A worker died by itself, or it takes too long.
    """
    keys = [key for line in lines.values() for key in line.keys]
    with stage.show.bars([line.title for line in lines.values()]) as bars:
        stage.watch.show_on(bars, {line.title: line.keys for line in lines.values()})
        await stage.watch.refresh()
        work: asyncio.Future[list[Any]] = asyncio.gather(stage.watch.ended(keys), *beside)
        deaths = [asyncio.ensure_future(worker.died()) for worker in stage.workers if not worker.killed]
        tasks: list[asyncio.Future[Any]] = [work, *deaths]
        try:
            await asyncio.wait(tasks, timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
            for death in deaths:
                if death.done():
                    raise death.result()
            if not work.done():
                raise DemoFailed(f"the jobs did not end within {WITHIN:g} s; see the workers' logs")
            found = work.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await stage.watch.refresh()
        stage.watch.show_on(None)
    return found


async def read(watch: Watch, lines: Mapping[str, Line]) -> Results:
    """Read the jobs of single lines, and the last one of the others."""
    found: Results = {}
    for name, line in lines.items():
        job = await watch.snapshot(line.keys[-1])
        if job is None:
            raise DemoFailed(f"the {line.title}: job {line.keys[-1][1]} is lost")
        found[name] = job
    return found


def _files(job: Any) -> list[GeneratedFile]:
    result = job.result if isinstance(job.result, dict) else {}
    found = [*result.get("files", ()), *filter(None, [result.get("errorsFile"), result.get("file")])]
    return msgspec.convert(found, list[GeneratedFile])
