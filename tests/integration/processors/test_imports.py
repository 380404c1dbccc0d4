from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from datetime import date
from decimal import Decimal

import msgspec
import openpyxl
import pytest
from sqlalchemy import func, insert, select

from streamq.errors import Unrecoverable
from streamq.processors.imports import run_import
from streamq.processors.imports_progress import ImportTakenOver
from streamq.processors.imports_request import ImportRequest
from streamq.processors.ledger import Ledger, balance, ensure_bank_account, open_ledger, tables, verify_books
from streamq.processors.storage import FolderStorage

DAY = date(2024, 11, 5)
MEMBERS = [
    {"id": "M-1", "name": "Ada Lovelace", "email": "ada@example.org", "joined_on": "2024-01-02"},
    {"id": "M-2", "name": "Zoé Müller", "phone": "+32 470 12 34 56", "joined_on": "2024-01-03"},
    {"id": "M-3", "name": "Grace O'Brien", "status": "inactive", "joined_on": "2024-01-04"},
]


class Stop(Exception):
    """Stands for whatever ends an attempt half-way."""


@pytest.fixture
def storage(tmp_path):
    return FolderStorage(tmp_path / "files")


@pytest.fixture
async def bank(ledger: Ledger) -> Ledger:
    await open_accounts(ledger)
    return ledger


async def open_accounts(ledger):
    async with ledger.begin() as conn:
        await ensure_bank_account(conn, "EUR")
        await conn.execute(insert(tables.members).values(id="M-0", name="Owner", joined_on=DAY))
        shared = {"member_id": "M-0", "kind": "savings", "opened_on": DAY}
        await conn.execute(
            insert(tables.accounts),
            [
                {"id": "A-1", "currency": "EUR", "status": "open", **shared},
                {"id": "A-2", "currency": "EUR", "status": "open", **shared},
                {"id": "A-USD", "currency": "USD", "status": "open", **shared},
                {"id": "A-OLD", "currency": "EUR", "status": "closed", **shared},
            ],
        )


def csv_bytes(rows, **options):
    heading = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, heading, **options)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def xlsx_bytes(rows):
    book, file = openpyxl.Workbook(), io.BytesIO()
    heading = list(dict.fromkeys(key for row in rows for key in row))
    book.active.append(heading)
    for row in rows:
        book.active.append([row.get(key) for key in heading])
    book.save(file)
    return file.getvalue()


def put(storage, name, content):
    with storage.create(name) as draft:
        draft.file.write(content)


async def run(ledger, storage, entity, *, job_id="imports/1", seen=None, stop_at=None, **request):
    async def progress(value):
        if seen is not None:
            seen.append(value)
        if stop_at is not None and value["rows"] >= stop_at:
            raise Stop

    data = msgspec.convert({"entity": entity, **request}, ImportRequest)
    return await run_import(ledger, storage, data, job_id=job_id, progress=progress)


async def column(ledger, wanted):
    async with ledger.read() as conn:
        return list((await conn.execute(select(wanted).order_by(wanted))).scalars())


async def count(ledger, table):
    async with ledger.read() as conn:
        return (await conn.execute(select(func.count()).select_from(table))).scalar_one()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", csv_bytes(MEMBERS)),
        ("bom.csv", b"\xef\xbb\xbf" + csv_bytes(MEMBERS)),
        ("m.xlsx", xlsx_bytes(MEMBERS)),
        ("m.json", json.dumps(MEMBERS, indent=1).encode()),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps(MEMBERS).encode()),
        ("m.jsonl", b"\n".join(json.dumps(row).encode() for row in MEMBERS)),
    ],
)
async def test_members_come_in_from_every_format_alike(ledger, storage, name, content):
    put(storage, name, content)
    result = await run(ledger, storage, "members", file=name)
    assert (result.total, result.imported, result.failed, result.errors) == (3, 3, 0, [])
    async with ledger.read() as conn:
        columns = tables.members.c
        query = select(columns.id, columns.name, columns.email, columns.phone, columns.status, columns.joined_on)
        rows = [tuple(row) for row in await conn.execute(query.order_by(columns.id))]
    assert rows == [
        ("M-1", "Ada Lovelace", "ada@example.org", None, "active", date(2024, 1, 2)),
        ("M-2", "Zoé Müller", None, "+32 470 12 34 56", "active", date(2024, 1, 3)),
        ("M-3", "Grace O'Brien", None, None, "inactive", date(2024, 1, 4)),
    ]


async def test_every_wrong_field_of_every_wrong_row_is_named_and_the_others_come_in(ledger, storage):
    rows = [
        MEMBERS[0],
        {"id": "M 2", "name": "", "email": "nowhere", "joined_on": "5/11/2024"},
        MEMBERS[2],
        {"id": "M-1", "name": "Twice", "joined_on": "2024-01-01"},
        {"id": "M-4", "name": "Bell\x07", "joined_on": "2024-01-01"},
    ]
    put(storage, "m.csv", csv_bytes(rows))
    result = await run(ledger, storage, "members", file="m.csv")
    assert (result.total, result.imported, result.failed, result.error_count) == (5, 2, 3, 6)
    assert [(e.row, e.field, e.reason) for e in result.errors] == [
        (3, "email", "is no e-mail address: 'nowhere'"),
        (3, "id", "must be 1 to 64 letters, digits or . _ : / -: 'M 2'"),
        (3, "joined_on", "must be a date as 2024-11-05: '5/11/2024'"),
        (3, "name", "is missing"),
        (5, "id", "M-1 exists already"),
        (6, "name", "must be 1 to 200 printable characters: 'Bell\\x07'"),
    ]
    with storage.read(result.errors_file.name) as file:
        listed = list(csv.DictReader(io.StringIO(file.read().decode(), newline="")))
    assert [(int(e["row"]), e["field"]) for e in listed] == [(e.row, e.field) for e in result.errors]
    assert await column(ledger, tables.generated_files.c.purpose) == ["import-errors"]


async def test_a_result_lists_a_hundred_errors_and_the_file_all(sqlite_ledger, storage):
    put(storage, "m.jsonl", b'{"id": "?"}\n' * 6_000)
    result = await run(sqlite_ledger, storage, "members", file="m.jsonl")
    assert (result.failed, result.error_count, len(result.errors)) == (6_000, 12_000, 100)
    assert result.errors_file.rows == 12_000
    with storage.read(result.errors_file.name) as file:
        assert sum(1 for _ in file) == 12_001


async def test_known_ids_can_be_skipped_instead(ledger, storage):
    put(storage, "m.csv", csv_bytes(MEMBERS[:1]))
    put(storage, "more.csv", csv_bytes(MEMBERS))
    await run(ledger, storage, "members", file="m.csv")
    result = await run(ledger, storage, "members", job_id="imports/2", file="more.csv", onDuplicate="skip")
    assert (result.imported, result.skipped, result.failed) == (2, 1, 0)


async def test_accounts_need_their_member(bank, storage):
    rows = [
        {"id": "A-7", "memberId": "M-0", "kind": "current", "currency": "USD", "openedOn": "2024-02-01"},
        {"id": "A-8", "memberId": "M-404", "kind": "savings", "currency": "EUR", "openedOn": "2024-02-01"},
        {"id": "A-9", "memberId": "M-0", "kind": "savings", "currency": "JPY", "openedOn": "2024-02-01"},
    ]
    put(storage, "a.csv", csv_bytes(rows))
    result = await run(bank, storage, "accounts", file="a.csv")
    assert result.imported == 1
    assert [(e.row, e.field, e.reason) for e in result.errors] == [
        (3, "member_id", "member M-404 does not exist"),
        (4, "currency", "the ledger keeps two decimals, and JPY has another minor unit"),
    ]


async def test_an_update_changes_the_fields_that_are_given_and_no_others(ledger, storage):
    put(storage, "m.csv", csv_bytes(MEMBERS))
    await run(ledger, storage, "members", file="m.csv")
    changes = [
        {"id": "M-1", "status": "closed"},
        {"id": "M-2", "email": "zoe@example.org", "status": "inactive"},
        {"id": "M-2", "email": "zoe.mueller@example.org"},
        {"id": "M-404", "status": "closed"},
        {"id": "M-3", "email": "nowhere"},
        {"id": "M-3"},
    ]
    put(storage, "changes.csv", csv_bytes(changes))
    result = await run(ledger, storage, "members", job_id="imports/2", file="changes.csv", update=True)
    assert (result.total, result.imported, result.failed) == (6, 4, 2)
    assert [(e.row, e.field, e.reason) for e in result.errors] == [
        (5, "id", "M-404 does not exist"),
        (6, "email", "is no e-mail address: 'nowhere'"),
    ]
    async with ledger.read() as conn:
        columns = tables.members.c
        query = select(columns.id, columns.name, columns.email, columns.phone, columns.status).order_by(columns.id)
        rows = [tuple(row) for row in await conn.execute(query)]
    assert rows == [
        ("M-1", "Ada Lovelace", "ada@example.org", None, "closed"),
        ("M-2", "Zoé Müller", "zoe.mueller@example.org", "+32 470 12 34 56", "inactive"),
        ("M-3", "Grace O'Brien", None, None, "inactive"),
    ]


async def test_an_update_never_moves_an_account_to_another_member_or_currency(bank, storage):
    changes = [
        {"id": "A-1", "status": "frozen", "currency": "EUR"},
        {"id": "A-2", "currency": "USD"},
        {"id": "A-2", "memberId": "M-1"},
    ]
    result = await run(bank, storage, "accounts", records=changes, update=True)
    assert [(e.row, e.field, e.reason) for e in result.errors] == [
        (2, "currency", "can't be changed: it is EUR"),
        (3, "member_id", "can't be changed: it is M-0"),
    ]
    async with bank.read() as conn:
        account = tables.accounts.c
        found = await conn.execute(select(account.status, account.currency).where(account.id == "A-1"))
        assert tuple(found.one()) == ("frozen", "EUR")


def test_what_is_booked_can_not_be_updated():
    with pytest.raises(msgspec.ValidationError, match="what is booked is never changed"):
        msgspec.convert({"entity": "transactions", "file": "t.csv", "update": True}, ImportRequest)


async def test_transactions_are_booked_on_both_sides(bank, storage):
    rows = [
        {"id": "T-1", "account_id": "A-1", "amount": "100.00", "date": "2024-11-05"},
        {"id": "T-2", "account_id": "A-1", "amount": "-30.50", "date": "2024-11-06", "counter_account_id": "A-2"},
        {"id": "T-3", "account_id": "A-USD", "amount": "1.00", "date": "2024-11-06"},
    ]
    put(storage, "t.csv", csv_bytes(rows))
    result = await run(bank, storage, "transactions", file="t.csv")
    assert (result.imported, result.failed) == (3, 0)
    async with bank.read() as conn:
        assert await balance(conn, "A-1") == Decimal("69.50")
        assert await balance(conn, "A-2") == Decimal("30.50")
        assert await balance(conn, "BANK-CASH-USD") == Decimal("-1.00")
        assert (await verify_books(conn)).ok
    assert await column(bank, tables.transactions.c.kind) == ["deposit", "deposit", "transfer"]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"amount": "1.005"}, "amount", "amount 1.005 has more than 2 decimals"),
        ({"amount": "NaN"}, "amount", "must be finite"),
        ({"amount": "1e300"}, "amount", "out of range"),
        ({"amount": "0.00"}, "amount", "must not be zero"),
        ({"amount": "12,50"}, "amount", "is no amount: '12,50'"),
        ({"account_id": "A-404"}, "account_id", "account A-404 does not exist"),
        ({"account_id": "A-OLD"}, "account_id", "account A-OLD is closed"),
        ({"counter_account_id": "A-USD"}, "counter_account_id", "account A-USD is kept in USD"),
        ({"counter_account_id": "A-1"}, "counter_account_id", "must be another account"),
        ({"currency": "USD"}, "account_id", "account A-1 is kept in EUR"),
        ({"booked_on": "2024-02-30"}, "booked_on", "must be a date"),
        ({"booked_on": ""}, "booked_on", "is missing"),
        ({"id": "T'; DROP TABLE members--"}, "id", "must be 1 to 64 letters"),
    ],
)
async def test_a_transaction_that_can_not_be_booked_says_why(sqlite_ledger, storage, change, field, reason):
    await open_accounts(sqlite_ledger)
    row = {"id": "T-1", "account_id": "A-1", "amount": "1.00", "booked_on": "2024-11-05", **change}
    put(storage, "t.csv", csv_bytes([row]))
    result = await run(sqlite_ledger, storage, "transactions", file="t.csv")
    assert (result.imported, result.failed) == (0, 1)
    assert (result.errors[0].row, result.errors[0].field) == (2, field)
    assert reason in result.errors[0].reason


async def test_numbers_and_dates_of_a_spreadsheet_stay_exact(bank, storage):
    book, file = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["ID", "Account", "Amount", "Booked on", "Description"])
    book.active.append([1001, "A-1", 0.1, DAY, 42])
    book.active.append([1002.0, "A-1", 1234567.89, DAY, None])
    book.active.append([1003, "A-1", 0.005, DAY, True])
    book.save(file)
    put(storage, "t.xlsx", file.getvalue())
    result = await run(bank, storage, "transactions", file="t.xlsx")
    assert [(e.row, e.field) for e in result.errors] == [(4, "description")]
    assert await column(bank, tables.transactions.c.id) == ["1001", "1002"]
    async with bank.read() as conn:
        assert await balance(conn, "A-1") == Decimal("1234567.99")


async def test_numbers_of_json_stay_exact(bank, storage):
    content = b'[{"id":"T-1","accountId":"A-1","amount":0.1,"bookedOn":"2024-11-05"},' \
              b'{"id":"T-2","accountId":"A-1","amount":9999999999999.99,"bookedOn":"2024-11-05"}]'  # fmt: skip
    put(storage, "t.json", content)
    put(storage, "t.jsonl", content[1:-1].replace(b"},{", b"}\n{").replace(b"T-", b"L-"))
    await run(bank, storage, "transactions", file="t.json")
    await run(bank, storage, "transactions", job_id="imports/2", file="t.jsonl")
    async with bank.read() as conn:
        assert await balance(conn, "A-1") == Decimal("20000000000000.18")


async def test_a_few_rows_can_come_with_the_job_itself(ledger, storage):
    result = await run(ledger, storage, "members", records=[*MEMBERS, {"id": "M-9"}])
    assert (result.source, result.imported) == ("4 records", 3)
    assert [(e.row, e.field, e.reason) for e in result.errors] == [(4, "name", "is missing")]


async def test_rows_that_can_not_be_read_are_errors_and_the_reading_goes_on(sqlite_ledger, storage):
    put(storage, "m.csv", b"id,name\nM-1,Ada,extra\nM-2,Z\xfcrich\n\nM-3," + b"x" * 140_000 + b"\nM-4,Last\n")
    put(
        storage, "m.jsonl", b'{"id":"M-5","name":"A"}\n{oops\n[1]\n"' + b"x" * 3_000_000 + b'"\n{"id":"M-6","name":"B"}'
    )
    found = await run(sqlite_ledger, storage, "members", file="m.csv")
    assert [(e.row, e.field) for e in found.errors] == [(2, ""), (3, "name"), (5, "")]
    assert "more cells than the heading" in found.errors[0].reason
    assert "not in the file's encoding" in found.errors[1].reason
    lines = await run(sqlite_ledger, storage, "members", job_id="imports/2", file="m.jsonl")
    assert [(e.row, e.reason[:20]) for e in lines.errors] == [
        (2, "the line is no JSON:"), (3, "the row is no object"), (4, "the line is over 1 M"),
    ]  # fmt: skip
    assert await column(sqlite_ledger, tables.members.c.id) == ["M-4", "M-5", "M-6"]


async def test_other_encodings_and_delimiters_are_read_when_they_are_named(sqlite_ledger, storage):
    put(storage, "m.csv", "ID;Name\nM-1;Zoé Müller\n".encode("cp1252"))
    await run(sqlite_ledger, storage, "members", file="m.csv", delimiter=";", encoding="cp1252")
    assert await column(sqlite_ledger, tables.members.c.name) == ["Zoé Müller"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", b"", "the file is empty"),
        ("m.csv", b"name\nAda\n", "the heading lacks id; it has name"),
        ("m.csv", b"id,ID,name\n1,1,Ada\n", "the heading names id twice"),
        ("m.xlsx", b"id,name\n", "is no XLSX workbook"),
        ("m.xlsx", xlsx_bytes(MEMBERS)[:-200], "is no XLSX workbook"),
        ("m.json", b'{"id": 1}', "an array of objects; the file is none"),
        ("m.json", b'[{"id":"M-1","name":"A"},{"id"', "is no JSON after row 1"),
        ("m.csv", None, "has no file m.csv"),
        ("../m.csv", None, "plain relative path"),
    ],
)
async def test_a_file_that_is_not_what_it_should_be_fails_the_job_at_once(
    sqlite_ledger, storage, name, content, reason
):
    if content is not None:
        put(storage, name, content)
    with pytest.raises(Unrecoverable, match=reason):
        await run(sqlite_ledger, storage, "members", file=name)


async def test_headings_that_mean_nothing_are_told(sqlite_ledger, storage):
    put(storage, "m.csv", b"Member ID,ID,Full name,Name\nx,M-1,y,Ada\n")
    result = await run(sqlite_ledger, storage, "members", file="m.csv")
    assert (result.imported, result.ignored_columns) == (1, ["Member ID", "Full name"])


async def test_progress_grows_to_a_hundred_percent(sqlite_ledger, storage):
    seen = []
    put(storage, "m.csv", csv_bytes([{"id": f"M-{n}", "name": "x" * 150} for n in range(1_000)]))
    await run(sqlite_ledger, storage, "members", file="m.csv", batchSize=100, seen=seen)
    percents = [value["percent"] for value in seen]
    assert percents == sorted(percents)
    assert len(set(percents)) > 5
    assert seen[-1] == {"percent": 100, "rows": 1_000, "imported": 1_000, "skipped": 0, "failed": 0}


@pytest.mark.parametrize("kind", ["csv", "xlsx", "json", "jsonl"])
async def test_an_import_that_was_stopped_goes_on_after_its_last_batch(ledger, storage, kind):
    rows = [{"id": f"M-{n}", "name": "?\x07" if n % 10 == 0 and kind != "xlsx" else "Ada"} for n in range(100)]
    content = {
        "csv": csv_bytes, "xlsx": xlsx_bytes, "json": lambda r: json.dumps(r).encode(),
        "jsonl": lambda r: b"\n".join(json.dumps(row).encode() for row in r),
    }[kind](rows)  # fmt: skip
    put(storage, f"m.{kind}", content)
    with pytest.raises(Stop):
        await run(ledger, storage, "members", file=f"m.{kind}", batchSize=20, stop_at=40)
    assert await count(ledger, tables.members) == (40 if kind == "xlsx" else 36)
    result = await run(ledger, storage, "members", file=f"m.{kind}", batchSize=20)
    bad = 0 if kind == "xlsx" else 10
    assert (result.total, result.imported, result.failed, result.error_count) == (100, 100 - bad, bad, bad)
    assert result.resumed_after == 40 + (kind in ("csv", "xlsx"))
    assert await count(ledger, tables.members) == 100 - bad


async def test_an_import_that_is_run_again_after_its_end_gives_the_same_result_and_no_rows(ledger, storage):
    put(storage, "m.csv", csv_bytes([*MEMBERS, {"id": "?"}]))
    first = await run(ledger, storage, "members", file="m.csv")
    again = await run(ledger, storage, "members", file="m.csv")
    assert msgspec.structs.replace(again, resumed_after=0, ignored_columns=[]) == first
    assert await count(ledger, tables.members) == 3


async def test_a_new_job_with_an_old_jobs_id_is_a_new_import(ledger, storage):
    put(storage, "m.csv", csv_bytes(MEMBERS[:2]))
    await run(ledger, storage, "members", file="m.csv")
    put(storage, "m.csv", csv_bytes(MEMBERS[2:]))
    result = await run(ledger, storage, "members", file="m.csv")
    assert (result.imported, result.resumed_after) == (1, 0)


async def test_an_attempt_that_was_overtaken_writes_nothing_more(ledger, storage):
    """A worker freezes, another one finishes its job, the first one thaws."""
    put(storage, "m.csv", csv_bytes([{"id": f"M-{n}", "name": "Ada"} for n in range(40)]))
    frozen, thaw = asyncio.Event(), asyncio.Event()

    async def freeze(value):
        frozen.set()
        await thaw.wait()

    request = msgspec.convert({"entity": "members", "file": "m.csv", "batchSize": 10}, ImportRequest)
    slow = asyncio.create_task(run_import(ledger, storage, request, job_id="imports/1", progress=freeze))
    await frozen.wait()
    result = await run(ledger, storage, "members", file="m.csv", batchSize=10)
    assert (result.imported, result.failed, result.resumed_after) == (40, 0, 11)
    thaw.set()
    with pytest.raises(ImportTakenOver, match="another attempt has gone on"):
        await slow
    assert await count(ledger, tables.members) == 40


async def test_an_import_whose_process_is_killed_loses_and_repeats_no_row(ledger_url, storage, tmp_path):
    rows = [{"id": f"T-{n}", "account_id": "A-1", "amount": "1.00", "booked_on": "2024-11-05"} for n in range(20_000)]
    put(storage, "t.csv", csv_bytes(rows))
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from streamq.processors.imports import run_import\n"
        "from streamq.processors.imports_request import ImportRequest\n"
        "from streamq.processors.ledger import open_ledger\n"
        "from streamq.processors.storage import FolderStorage\n"
        "async def tell(value): print(value['rows'], flush=True)\n"
        "async def main():\n"
        "    async with open_ledger(sys.argv[1]) as ledger:\n"
        "        request = ImportRequest(entity='transactions', file='t.csv', batch_size=500)\n"
        "        await run_import(ledger, FolderStorage(Path(sys.argv[2])), request, job_id='1', progress=tell)\n"
        "asyncio.run(main())\n"
    )
    async with open_ledger(ledger_url) as ledger:
        await open_accounts(ledger)
    command = [sys.executable, "-c", code, ledger_url, str(tmp_path / "files")]
    killed_at = []
    for batches in (3, 7):
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        lines = [await process.stdout.readline() for _ in range(batches)]
        process.kill()
        await process.communicate()
        killed_at.append(int(lines[-1]))
    assert 0 < killed_at[0] < killed_at[1] < 20_000
    async with open_ledger(ledger_url) as ledger:
        result = await run(ledger, storage, "transactions", job_id="1", file="t.csv", batchSize=500)
        assert (result.total, result.imported, result.failed) == (20_000, 20_000, 0)
        assert result.resumed_after > killed_at[1]
        async with ledger.read() as conn:
            assert await balance(conn, "A-1") == Decimal("20000.00")
            assert (await verify_books(conn)).ok
