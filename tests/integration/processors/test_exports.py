from __future__ import annotations

import csv
import io
import json
from datetime import date
from decimal import Decimal

import msgspec
import openpyxl
import pytest
from sqlalchemy import insert, select, update

from streamq.errors import Unrecoverable
from streamq.processors.exports import run_export
from streamq.processors.exports_request import ExportRequest
from streamq.processors.imports import run_import
from streamq.processors.imports_request import ImportRequest
from streamq.processors.ledger import Ledger, open_ledger, tables
from streamq.processors.sample import SampleSize, create_sample_bank
from streamq.processors.storage import FolderStorage


class Stop(Exception):
    """Stands for whatever ends an attempt half-way."""


@pytest.fixture
async def bank(ledger: Ledger) -> Ledger:
    await create_sample_bank(ledger, SampleSize(members=30, accounts=60, transactions=6_000))
    return ledger


@pytest.fixture
def storage(tmp_path):
    return FolderStorage(tmp_path / "files")


async def export(bank, storage, seen=None, stop=False, **data):
    async def progress(value):
        if stop:
            raise Stop
        if seen is not None:
            seen.append(value)

    return await run_export(bank, storage, msgspec.convert(data, ExportRequest), job_id="7", progress=progress)


def csv_rows(storage, result):
    with storage.read(result.file.name) as file:
        return list(csv.DictReader(io.StringIO(file.read().decode(), newline="")))


async def test_every_line_is_exported_once_and_in_order_of_days(bank, storage):
    seen = []
    result = await export(bank, storage, seen, entity="transactions")
    rows = csv_rows(storage, result)
    assert result.rows == len(rows) == 12_000
    assert sum(Decimal(row["amount"]) for row in rows) == 0
    assert [row["booked_on"] for row in rows] == sorted(row["booked_on"] for row in rows)
    assert len({(row["id"], row["line"]) for row in rows}) == 12_000
    assert [value["percent"] for value in seen] == [83, 100]
    assert seen[-1] == {"percent": 100, "rows": 12_000, "total": 12_000}


@pytest.mark.parametrize(
    ("filters", "keeps"),
    [
        ({"kind": "transfer"}, lambda row: row["kind"] == "transfer"),
        ({"month": 11, "year": 2024}, lambda row: row["booked_on"].month == 11),
        ({"year": 2023}, lambda row: False),
        (
            {"from": "2024-11-05", "to": "2024-11-06"},
            lambda row: date(2024, 11, 5) <= row["booked_on"] <= date(2024, 11, 6),
        ),
        ({"account": "A-000001"}, lambda row: row["account_id"] == "A-000001"),
        ({"user": "M-000002"}, lambda row: row["member_id"] == "M-000002"),
        ({"minAmount": "240.00"}, lambda row: abs(row["amount"]) >= 240),
        (
            {"kind": "deposit", "user": "M-000002"},
            lambda row: row["kind"] == "deposit" and row["member_id"] == "M-000002",
        ),
    ],
)
async def test_filters_keep_the_rows_that_meet_them_all(bank, storage, filters, keeps):
    result = await export(bank, storage, entity="transactions", filters=filters)
    joined = tables.postings.join(tables.transactions).join(tables.accounts)
    c = (
        tables.transactions.c.id, tables.postings.c.line, tables.transactions.c.kind, tables.transactions.c.booked_on,
        tables.postings.c.account_id, tables.accounts.c.member_id, tables.postings.c.amount,
    )  # fmt: skip
    async with bank.read() as conn:
        lines = [row._mapping for row in await conn.execute(select(*c).select_from(joined))]
    wanted = {(row["id"], str(row["line"])) for row in lines if keeps(row)}
    assert {(row["id"], row["line"]) for row in csv_rows(storage, result)} == wanted
    assert result.rows == len(wanted)


async def test_members_and_accounts_have_filters_of_their_own(bank, storage):
    async with bank.begin() as conn:
        await conn.execute(update(tables.members).values(status="inactive").where(tables.members.c.id <= "M-000005"))
    result = await export(bank, storage, entity="members", filters={"status": "inactive"})
    assert {row["status"] for row in csv_rows(storage, result)} == {"inactive"}
    assert result.rows >= 5
    result = await export(bank, storage, entity="accounts", filters={"kind": "savings", "user": "M-000001"})
    assert {(row["kind"], row["member_id"]) for row in csv_rows(storage, result)} <= {("savings", "M-000001")}


async def test_the_formats_hold_the_same_rows(bank, storage):
    def load(name):
        with storage.read(name) as file:
            if name.endswith("xlsx"):
                lines = list(openpyxl.load_workbook(file).active.iter_rows(values_only=True))
                return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
            content = file.read()
        return json.loads(content) if name.endswith("json") else [json.loads(line) for line in content.splitlines()]

    found = {}
    for form in ("excel", "json", "jsonl"):
        result = await export(bank, storage, entity="transactions", format=form, filters={"month": 11, "year": 2024})
        found[form] = [(row["id"], row["line"], f"{Decimal(str(row['amount'])):.2f}") for row in load(result.file.name)]
    assert found["excel"] == found["json"] == found["jsonl"]
    assert len(found["json"]) > 500


async def test_a_text_that_looks_like_a_formula_is_neutralised_and_comes_back_on_import(bank, storage, tmp_path):
    evil = '=HYPERLINK("http://evil.example","pay")'
    async with bank.begin() as conn:
        await conn.execute(
            insert(tables.members).values(id="M-X", name=evil, phone="+32 470 00 00 00", joined_on=date(2024, 1, 1))
        )
    by_format = {form: await export(bank, storage, entity="members", format=form) for form in ("csv", "excel", "json")}
    row = next(row for row in csv_rows(storage, by_format["csv"]) if row["id"] == "M-X")
    assert (row["name"], row["phone"]) == ("'" + evil, "'+32 470 00 00 00")
    with storage.read(by_format["excel"].file.name) as file:
        cells = [line for line in openpyxl.load_workbook(file).active.iter_rows() if line[0].value == "M-X"]
    assert [(cell.data_type, cell.quotePrefix) for cell in cells[0][1:4:2]] == [("s", True), ("s", True)]
    for form, result in by_format.items():
        async with open_ledger(f"sqlite:///{tmp_path}/{form}.db") as other:
            request = ImportRequest(entity="members", file=result.file.name)

            async def ignore(value):
                pass

            done = await run_import(other, storage, request, job_id="1", progress=ignore)
            assert (done.imported, done.failed) == (31, 0)
            kept = [c for c in tables.members.c if c.name not in ("created_at", "updated_at")]
            wanted = select(*kept).order_by(tables.members.c.id)
            async with other.read() as conn, bank.read() as original:
                assert (await conn.execute(wanted)).all() == (await original.execute(wanted)).all()


async def test_a_filter_that_the_entity_lacks_fails_instead_of_exporting_too_much(sqlite_ledger, storage):
    with pytest.raises(Unrecoverable, match="members have no filter account; they have"):
        await export(sqlite_ledger, storage, entity="members", filters={"account": "A-1"})
    assert storage.names() == []


async def test_an_export_that_is_stopped_leaves_no_file_and_a_retry_writes_it(bank, storage):
    with pytest.raises(Stop):
        await export(bank, storage, entity="transactions", format="excel", stop=True)
    assert storage.names() == []
    result = await export(bank, storage, entity="transactions", format="excel")
    assert storage.names() == [result.file.name] == ["exports/transactions-7.xlsx"]
    async with bank.read() as conn:
        recorded = (await conn.execute(select(tables.generated_files))).one()
    assert (recorded.name, recorded.rows, recorded.sha256) == (result.file.name, 12_000, result.file.sha256)


async def test_an_export_of_nothing_is_a_file_with_a_heading(sqlite_ledger, storage):
    result = await export(sqlite_ledger, storage, entity="members")
    assert result.rows == 0
    with storage.read(result.file.name) as file:
        assert file.read() == b"id,name,email,phone,status,joined_on\r\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"entity": "loans"}, "loans"),
        ({"entity": "members", "format": "pdf"}, "for a PDF ask for a report"),
        ({"entity": "members", "filters": {"month": 1}}, "needs filters.year"),
        ({"entity": "members", "filters": {"year": 2024, "from": "2024-01-01"}}, "not both"),
        ({"entity": "transactions", "filters": {"minAmount": "-1"}}, "must be positive"),
        ({"entity": "members", "filters": {"where": "1=1"}}, "unknown field `where`"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(data, reason):
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert(data, ExportRequest)
