"""What do the file-shaped processors cost beside the libraries that they stand on? Time and memory.

    python -m benchmarks.processors [--rows 100000] [--reps 3]

Each figure comes from a process of its own, streamq and the yardstick in turn, on SQLite files of one disk:

- `import`: a CSV of transactions through `run_import`, beside SQLAlchemy Core's executemany of the same rows (one
  transaction and two postings each) that lie ready in memory; bar 0.4.
- `export`: the lines of the ledger as XLSX through `run_export`, beside xlsxwriter alone (constant memory, one
  `write_*` call per cell) with the same cells ready in memory; bar 0.8. Its peak of resident memory: at most 200 MB.
- `memory`: the peak of an import of 10 MB and of 100 MB; the second at most 1.2 times the first.

Each speed is given twice: by the clock, which carries the bar, and in processor time, which a busy machine disturbs
less. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import xlsxwriter
from sqlalchemy import insert

from benchmarks.harness import ROOT, Verdicts, machine, ratio
from streamq.processors.exports import run_export
from streamq.processors.exports_request import ExportRequest
from streamq.processors.imports import run_import
from streamq.processors.imports_request import Entity, ImportRequest
from streamq.processors.ledger import Ledger, ensure_bank_account, open_ledger, tables
from streamq.processors.ledger.money import now
from streamq.processors.storage import FolderStorage
from streamq.processors.writers import FileFormat

ACCOUNTS, DAY, TEXT = 2_000, date(2024, 11, 5), "Counter deposit"


class Watch:
    """Times what comes after it: on the clock, and by the processor over all threads."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Return both, in seconds."""
        return time.perf_counter() - self._clock, time.process_time() - self._cpu


async def ignore(value: Any) -> None:
    """Take progress and do nothing with it."""


def ids(number: int) -> tuple[str, str, str]:
    """Return the transaction's id, its account and its amount."""
    return f"T-{number:08}", f"A-{number % ACCOUNTS:05}", f"{1 + number % 500}.{number % 100:02}"


def write_csv(path: Path, *, rows: int | None = None, size: int | None = None) -> int:
    """Write transactions, so many of them or so many bytes, and return how many."""
    number = 0
    with open(path, "w", newline="") as file:
        file.write("id,account_id,amount,booked_on,kind,description\r\n")
        while number != rows and (size is None or file.tell() < size):
            for _ in range(1_000):
                one, account, amount = ids(number)
                file.write(f"{one},{account},{amount},2024-11-05,deposit,{TEXT}\r\n")
                number += 1
    return number


async def open_accounts(ledger: Ledger) -> None:
    """Make the accounts that the transactions are on."""
    async with ledger.begin() as conn:
        await ensure_bank_account(conn, "EUR")
        await conn.execute(insert(tables.members).values(id="M", name="Owner", joined_on=DAY))
        shared = {"member_id": "M", "kind": "savings", "currency": "EUR", "opened_on": DAY}
        await conn.execute(insert(tables.accounts), [{"id": f"A-{n:05}", **shared} for n in range(ACCOUNTS)])


def rows_of(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of the two tables, ready to insert."""
    heads: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    shared = {
        "kind": "deposit",
        "booked_on": DAY,
        "currency": "EUR",
        "description": TEXT,
        "job_id": "x",
        "created_at": now(),
    }
    for number in range(count):
        one, account, text = ids(number)
        amount = Decimal(text)
        heads.append({"id": one, **shared})
        lines.append({"transaction_id": one, "line": 1, "account_id": account, "amount": amount})
        lines.append({"transaction_id": one, "line": 2, "account_id": "BANK-CASH-EUR", "amount": -amount})
    return heads, lines


# One measurement each, in a process of its own ------------------------------------------------------------------------


async def run_imports(folder: Path, rows: int) -> tuple[float, float]:
    """Import the CSV."""
    async with open_ledger(f"sqlite:///{folder}/ledger.db") as ledger:
        await open_accounts(ledger)
        request = ImportRequest(entity=Entity.TRANSACTIONS, file="t.csv")
        watch = Watch()
        result = await run_import(ledger, FolderStorage(folder), request, job_id="1", progress=ignore)
        taken = watch.read()
    if result.imported != rows:
        raise RuntimeError(f"{result.imported} of {rows} rows came in")
    return taken


async def run_inserts(folder: Path, rows: int) -> tuple[float, float]:
    """Insert the same rows with executemany and nothing else."""
    heads, lines = rows_of(rows)
    gc.freeze()  # what lies ready must not slow the yardstick down through the garbage collector
    async with open_ledger(f"sqlite:///{folder}/ledger.db") as ledger:
        await open_accounts(ledger)
        watch = Watch()
        async with ledger.begin() as conn:
            await conn.execute(insert(tables.transactions), heads)
            await conn.execute(insert(tables.postings), lines)
        return watch.read()


async def run_exports(folder: Path, rows: int) -> tuple[float, float]:
    """Export the ledger that lies in the folder."""
    async with open_ledger(f"sqlite:///{folder}/full.db") as ledger:
        request = ExportRequest(entity=Entity.TRANSACTIONS, format=FileFormat.XLSX)
        watch = Watch()
        result = await run_export(ledger, FolderStorage(folder), request, job_id="1", progress=ignore)
        taken = watch.read()
    if result.rows != rows:
        raise RuntimeError(f"{result.rows} of {rows} rows went out")
    return taken


async def run_xlsxwriter(folder: Path, rows: int) -> tuple[float, float]:
    """Write the same cells with the library and nothing else."""
    cells = []
    for number in range(rows // 2):
        one, account, text = ids(number)
        amount = Decimal(text)
        cells.append((one, 1, DAY, "deposit", "EUR", account, "M", amount, TEXT))
        cells.append((one, 2, DAY, "deposit", "EUR", "BANK-CASH-EUR", None, -amount, TEXT))
    gc.freeze()
    watch = Watch()
    book = xlsxwriter.Workbook(str(folder / "bare.xlsx"), {"constant_memory": True})
    page = book.add_worksheet("Transactions")
    text_, number_, day_ = page.write_string, page.write_number, page.write_datetime
    money, whole, days = (book.add_format({"num_format": form}) for form in ("#,##0.00", "#,##0", "yyyy-mm-dd"))
    puts = (
        (text_, None), (number_, whole), (day_, days), (text_, None), (text_, None), (text_, None), (text_, None),
        (number_, money), (text_, None),
    )  # fmt: skip
    for at, row in enumerate(cells, 1):
        for column, ((put, form), cell) in enumerate(zip(puts, row, strict=True)):
            if cell is not None:
                put(at, column, cell, form)
    book.close()
    return watch.read()


class Measured(NamedTuple):
    """One measurement: seconds, seconds of processor time, and the peak of memory in MB."""

    seconds: float
    cpu: float
    peak: float


MEASURES: dict[str, Callable[[Path, int], Coroutine[Any, Any, tuple[float, float]]]] = {
    "import": run_imports, "insert": run_inserts, "export": run_exports, "xlsxwriter": run_xlsxwriter,
}  # fmt: skip


def peak_memory() -> float:
    """Return the most that this process had resident, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def child(name: str, folder: Path, rows: int) -> Measured:
    """Measure in a process of its own."""
    for old in folder.glob("ledger.db*"):
        old.unlink()
    command = [sys.executable, "-m", "benchmarks.processors", "--child", name, str(folder), "--rows", str(rows)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Measured(*json.loads(done.stdout))


async def fill(folder: Path, lines: int) -> None:
    """Make the ledger that is exported."""
    async with open_ledger(f"sqlite:///{folder}/full.db") as ledger:
        await open_accounts(ledger)
        heads, rows = rows_of(lines // 2)
        async with ledger.begin() as conn:
            await conn.execute(insert(tables.transactions), heads)
            await conn.execute(insert(tables.postings), rows)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take all measurements and return the report."""
    verdicts = Verdicts("What do imports and exports cost beside the libraries they stand on?")
    with tempfile.TemporaryDirectory(prefix="streamq-bench-") as name:
        folder, rows = Path(name), options.rows
        rows = write_csv(folder / "t.csv", rows=rows)
        found: dict[str, list[Measured]] = {key: [] for key in MEASURES}
        asyncio.run(fill(folder, rows))
        for rep in range(options.reps):
            for key in list(MEASURES)[:: 1 if rep % 2 == 0 else -1]:
                found[key].append(child(key, folder, rows))
        for ours, theirs, what, least in (
            ("import", "insert", "import of CSV transactions", 0.4),
            ("export", "xlsxwriter", "export of XLSX lines", 0.8),
        ):
            over = [rows / one.seconds for one in found[ours]]
            under = [rows / one.seconds for one in found[theirs]]
            raw, share = statistics.median(under), ratio(over, under)
            verdicts.add(what, statistics.median(over), "rows/s", raw=raw, ratio=share, least=least)
            over, under = [rows / one.cpu for one in found[ours]], [rows / one.cpu for one in found[theirs]]
            raw, share = statistics.median(under), ratio(over, under)
            verdicts.add(f"{what}, processor time", statistics.median(over), "rows/s", raw=raw, ratio=share)
        peak = max(one.peak for one in found["export"])
        verdicts.add(f"peak memory, export of {rows:,} XLSX lines", peak, "MB", most=200, of="value")
        peaks: list[float] = []
        for megabytes in (10, 100):
            written = write_csv(folder / "t.csv", size=megabytes * 1_000_000)
            peaks.append(child("import", folder, written).peak)
        small, large = peaks
        growth = large / small
        verdicts.add("peak memory, import of 100 MB beside 10 MB", large, "MB", raw=small, ratio=growth, most=1.2)
    return {"question": verdicts.question, **machine(), "rows": rows, "figures": verdicts.figures}


def main() -> None:
    """Run the benchmark, or one measurement for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the JSON here")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, folder = options.child
        seconds, cpu = asyncio.run(MEASURES[name](Path(folder), options.rows))
        print(json.dumps([seconds, cpu, peak_memory()]))
        return
    text = json.dumps(measure(options), indent=1, ensure_ascii=False)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
