from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from datetime import date
from decimal import Decimal

import msgspec
import openpyxl
import pytest
from sqlalchemy import select

from streamq.errors import Unrecoverable
from streamq.processors.ledger import Ledger, tables
from streamq.processors.reports import make_report
from streamq.processors.reports_request import ReportRequest
from streamq.processors.sample import SampleSize, create_sample_bank
from streamq.processors.storage import FolderStorage

TODAY = date(2024, 12, 15)
NOVEMBER = {"month": 11, "year": 2024}


@pytest.fixture
async def bank(ledger: Ledger) -> Ledger:
    await create_sample_bank(ledger, SampleSize(members=20, accounts=40, transactions=1_500))
    return ledger


@pytest.fixture
def storage(tmp_path):
    return FolderStorage(tmp_path / "files")


async def make(bank, storage, data, name="generate-report", job_id="7", seen=None):
    async def progress(value):
        if seen is not None:
            seen.append(value)

    request = msgspec.convert(data, ReportRequest)
    return await make_report(bank, storage, request, job_name=name, job_id=job_id, progress=progress, today=TODAY)


def rows_of(storage, file):
    with storage.read(file.name) as content:
        return list(csv.DictReader(io.StringIO(content.read().decode(), newline="")))


async def lines(bank, until=None, since=None, user=None):
    """Read what is on members' accounts, to compute the expected report without SQL."""
    joined = tables.postings.join(tables.transactions).join(tables.accounts)
    query = select(
        tables.transactions.c.id, tables.transactions.c.kind, tables.transactions.c.booked_on, tables.postings.c.amount,
        tables.accounts.c.id, tables.accounts.c.member_id,
    ).select_from(joined).where(tables.accounts.c.member_id.is_not(None))  # fmt: skip
    async with bank.read() as conn:
        found = [tuple(row) for row in await conn.execute(query)]
    return [
        row for row in found
        if (until is None or row[2] <= until) and (since is None or row[2] >= since) and (user in (None, row[5]))
    ]  # fmt: skip


async def test_the_monthly_summary_adds_up_members_money_by_kind(bank, storage):
    seen = []
    request = {"reportType": "monthly-summary", "userId": "user-123", "filters": NOVEMBER}
    result = await make(bank, storage, request, "generate-monthly-report", seen=seen)
    assert seen == [10, 50, 90, 100]
    assert (result.title, result.period) == ("Transaction summary, November 2024", "November 2024")
    expected = defaultdict(lambda: [set(), Decimal(0), Decimal(0)])
    for transaction, kind, _, amount, *_ in await lines(bank, date(2024, 11, 30), date(2024, 11, 1)):
        expected[kind][0].add(transaction)
        expected[kind][1 if amount > 0 else 2] += amount
    rows = rows_of(storage, result.files[0])
    assert rows[:-1] == [
        {
            "Kind": kind, "Currency": "EUR", "Transactions": str(len(ids)), "Money in": f"{money_in:.2f}",
            "Money out": f"{money_out:.2f}", "Net": f"{money_in + money_out:.2f}",
        }
        for kind, (ids, money_in, money_out) in sorted(expected.items())
    ]  # fmt: skip
    assert rows[-1]["Kind"] == "Total"
    assert result.totals["net"] == sum(money_in + out for _, money_in, out in expected.values())
    assert result.totals["transactions"] == sum(len(ids) for ids, *_ in expected.values()) > 0


async def test_member_balances_are_those_at_the_end_of_the_period(bank, storage):
    result = await make(bank, storage, {"reportType": "member-balances", "filters": {"month": 6, "year": 2024}})
    expected = defaultdict(Decimal)
    for _, _, _, amount, _, member in await lines(bank, date(2024, 6, 30)):
        expected[member] += amount
    rows = rows_of(storage, result.files[0])[:-1]
    assert {row["Member"]: Decimal(row["Balance"]) for row in rows} == expected
    assert result.totals == {"accounts": 40, "balance": sum(expected.values())}


async def test_a_report_can_be_limited_to_one_user(bank, storage):
    filters = {"year": 2024, "user": "M-000003"}
    result = await make(bank, storage, {"reportType": "monthly-summary", "filters": filters})
    mine = await lines(bank, user="M-000003")
    assert result.totals["net"] == sum(row[3] for row in mine)


async def test_the_trial_balance_sums_to_zero(bank, storage):
    result = await make(bank, storage, {"reportType": "trial-balance"}, "generate-financial-report")
    assert result.totals["balance"] == 0
    assert result.totals["debit"] == -result.totals["credit"] < 0
    with pytest.raises(Unrecoverable, match="of the whole bank"):
        await make(bank, storage, {"reportType": "trial-balance", "filters": {"user": "M-000001"}})


async def test_an_account_statement_carries_the_balance_of_before_its_period(bank, storage):
    request = {"reportType": "account-statement", "filters": {**NOVEMBER, "user": "M-000002"}}
    result = await make(bank, storage, request, "generate-export-report")
    rows = rows_of(storage, result.files[0])
    until = await lines(bank, date(2024, 11, 30), user="M-000002")
    last = {row["Account"]: Decimal(row["Balance"]) for row in rows}
    for account, balance in last.items():
        assert balance == sum(row[3] for row in until if row[4] == account)
    assert len(rows) == sum(row[2] >= date(2024, 11, 1) for row in until) > 0
    with pytest.raises(Unrecoverable, match=r"give filters\.user"):
        await make(bank, storage, {"reportType": "account-statement"})


async def test_analytics_reports_count_days_and_members(bank, storage):
    daily = await make(
        bank, storage, {"reportType": "daily-activity", "filters": NOVEMBER}, "generate-analytics-report"
    )
    inside = await lines(bank, date(2024, 11, 30), date(2024, 11, 1))
    assert daily.rows == len({row[2] for row in inside})
    assert daily.totals["transactions"] == len({row[0] for row in inside})
    top = await make(bank, storage, {"reportType": "top-members", "filters": NOVEMBER}, "generate-analytics-report")
    counts = [int(row["Transactions"]) for row in rows_of(storage, top.files[0])]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) == len({row[5] for row in inside})


async def test_one_report_comes_in_every_format_with_the_same_rows(bank, storage):
    request = {
        "reportType": "member-balances",
        "filters": {"year": 2024},
        "formats": ["csv", "excel", "json", "jsonl", "pdf"],
    }
    result = await make(bank, storage, request)
    by_format = {file.format: file for file in result.files}
    assert list(by_format) == ["csv", "xlsx", "json", "jsonl", "pdf"]
    assert {file.rows for file in result.files} == {result.rows} == {20}
    with storage.read(by_format["xlsx"].name) as file:
        cells = list(openpyxl.load_workbook(file).active.iter_rows(values_only=True))
    with storage.read(by_format["json"].name) as file:
        document = json.load(file)
    wanted = [row["Balance"] for row in rows_of(storage, by_format["csv"])][:-1]
    assert [f"{row[4]:.2f}" for row in cells[1:-1]] == wanted
    assert [row["balance"] for row in document["rows"]] == wanted
    with storage.read(by_format["pdf"].name) as file:
        assert file.read(5) == b"%PDF-"


async def test_the_files_are_recorded_and_a_retry_replaces_them(bank, storage):
    request = {"reportType": "member-balances", "userId": "user-9", "formats": ["csv", "json"]}
    first = await make(bank, storage, request)
    again = await make(bank, storage, request)
    assert [file.name for file in first.files] == [file.name for file in again.files] == storage.names()
    async with bank.read() as conn:
        rows = (await conn.execute(select(tables.generated_files).order_by(tables.generated_files.c.name))).all()
    assert [(row.name, row.user_id, row.job_id, row.size) for row in rows] == [
        (file.name, "user-9", "7", file.size) for file in again.files
    ]


async def test_a_scheduled_report_takes_the_month_before_the_day_it_runs(bank, storage):
    request = {"reportType": "monthly-summary", "filters": {"period": "previous-month"}}
    result = await make(bank, storage, request, "generate-scheduled-report")
    assert result.period == "November 2024"
    assert result.files[0].name == "reports/monthly-summary-2024-11-7.csv"


async def test_a_custom_report_is_a_named_query_with_typed_parameters(bank, storage):
    request = {"reportType": "custom", "query": "large-transactions", "parameters": {"minimum": "200.00"}}
    result = await make(bank, storage, request, "generate-custom-report")
    assert result.rows == sum(abs(row[3]) >= 200 for row in await lines(bank, TODAY)) > 0
    dormant = {"reportType": "custom", "query": "dormant-accounts", "parameters": {"since": "2024-12-01"}}
    last = defaultdict(lambda: date.min)
    for row in await lines(bank):
        last[row[4]] = max(last[row[4]], row[2])
    found = rows_of(storage, (await make(bank, storage, dormant)).files[0])
    assert {row["Account"] for row in found} == {key for key, day in last.items() if day < date(2024, 12, 1)}
    kinds = await make(bank, storage, {"reportType": "custom", "query": "accounts-by-kind"})
    assert sum(int(row["Accounts"]) for row in rows_of(storage, kinds.files[0])) == 40


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("generate-report", {"reportType": "nonsense"}, "makes no report 'nonsense'; it makes account-statement,"),
        ("generate-analytics-report", {"reportType": "trial-balance"}, "it makes daily-activity, top-members"),
        ("generate-monthly-report", {"reportType": "monthly-summary"}, r"needs filters\.month and filters\.year"),
        ("generate-custom-report", {"reportType": "custom", "query": "drop"}, "there is no query 'drop'; there are"),
        (
            "generate-custom-report",
            {"reportType": "custom", "query": "large-transactions", "parameters": {"minimum": "1; DROP TABLE members"}},
            "parameters of the query large-transactions",
        ),
        (
            "generate-custom-report",
            {"reportType": "custom", "query": "accounts-by-kind", "parameters": {"sql": "SELECT 1"}},
            "unknown field `sql`",
        ),
        (
            "generate-report",
            {"reportType": "trial-balance", "parameters": {"a": 1}},
            "takes filters, but no parameters",
        ),
    ],
)
async def test_what_can_not_be_made_fails_at_once_with_the_way_out(sqlite_ledger, storage, name, data, reason):
    with pytest.raises(Unrecoverable, match=reason):
        await make(sqlite_ledger, storage, data, name)
    assert storage.names() == []


async def test_a_report_on_an_empty_ledger_is_an_empty_report(ledger, storage):
    request = {"reportType": "monthly-summary", "filters": NOVEMBER, "formats": ["csv", "xlsx", "json", "pdf"]}
    result = await make(ledger, storage, request, "generate-monthly-report")
    assert (result.rows, result.totals, len(result.files)) == (0, {}, 4)
