from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from datetime import date, datetime
from decimal import Decimal

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.errors import Unrecoverable
from streamq.processors.writers import (
    Column,
    FileFormat,
    Kind,
    Sheet,
    XlsxWriter,
    cell_text,
    plain_text,
    safe_text,
    table_writer,
)
from streamq.processors.writers_pdf import MAX_ROWS

COLUMNS = (
    Column("name", "Name"),
    Column("amount", "Amount", Kind.MONEY),
    Column("count", "Count", Kind.INTEGER),
    Column("day", "Day", Kind.DATE),
)
SHEET = Sheet(title="Things", columns=COLUMNS)
REPORT = Sheet(title="Things", columns=COLUMNS, facts=(("Period", "November 2024"),), for_people=True)
ROWS = [["Müller", Decimal("-12.30"), 3, date(2024, 11, 5)], ['a "b", c\nd', Decimal("0.10"), None, None]]
TOTALS = ["Total", Decimal("-12.20"), 3, None]
EVIL = ["=1+1", "+32 470", "-2", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1", "'=1"]


def written(form, sheet=SHEET, rows=ROWS, totals=None):
    file = io.BytesIO()
    writer = table_writer(form, file, sheet)
    for row in rows:
        writer.write([row])
    writer.finish(totals)
    writer.abort()
    return file.getvalue()


def test_csv_is_rfc_4180_in_utf_8():
    assert written(FileFormat.CSV).decode() == (
        'name,amount,count,day\r\nMüller,-12.30,3,2024-11-05\r\n"a ""b"", c\nd",0.10,,\r\n'
    )


def test_a_json_export_is_an_array_that_keeps_amounts_exact():
    found = json.loads(written(FileFormat.JSON))
    assert found[0] == {"name": "Müller", "amount": "-12.30", "count": 3, "day": "2024-11-05"}
    assert json.loads(written(FileFormat.JSON, rows=[])) == []


def test_a_json_report_has_its_title_facts_and_totals():
    found = json.loads(written(FileFormat.JSON, REPORT, totals=TOTALS))
    assert (found["title"], found["facts"]) == ("Things", {"Period": "November 2024"})
    assert found["totals"] == {"amount": "-12.20", "count": 3}
    assert len(found["rows"]) == 2


def test_json_lines_hold_one_object_each():
    lines = written(FileFormat.JSONL).splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["Müller", 'a "b", c\nd']


def test_xlsx_keeps_numbers_as_numbers_and_dates_as_dates():
    page = openpyxl.load_workbook(io.BytesIO(written(FileFormat.XLSX, REPORT, totals=TOTALS))).active
    rows = [[cell.value for cell in row] for row in page.iter_rows()]
    assert rows[0] == ["Name", "Amount", "Count", "Day"]
    assert rows[1] == ["Müller", -12.3, 3, datetime(2024, 11, 5)]
    assert rows[3][:3] == ["Total", -12.2, 3]
    assert page.freeze_panes == "A2"


def test_days_that_spreadsheets_count_wrongly_are_written_as_text():
    days = [date(1, 1, 1), date(1900, 2, 28), date(1900, 3, 1), date(9999, 12, 31)]
    content = written(FileFormat.XLSX, rows=[["x", None, None, day] for day in days])
    page = openpyxl.load_workbook(io.BytesIO(content)).active
    found = [row[3].value for row in page.iter_rows(min_row=2)]
    assert found == ["0001-01-01", "1900-02-28", datetime(1900, 3, 1), datetime(9999, 12, 31)]


def test_rows_that_outgrow_a_sheet_go_on_in_the_next_one():
    file = io.BytesIO()
    writer = XlsxWriter(file, SHEET, sheet_rows=3)
    writer.write([[f"n{n}", None, n, None] for n in range(5)])
    writer.finish()
    book = openpyxl.load_workbook(file)
    assert book.sheetnames == ["Things", "Things 2", "Things 3"]
    assert [page["A2"].value for page in book] == ["n0", "n2", "n4"]
    assert all(page["A1"].value == "name" for page in book)


def test_a_workbook_that_is_given_up_leaves_no_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    writer = table_writer(FileFormat.XLSX, io.BytesIO(), SHEET)
    writer.write(ROWS)
    assert os.listdir(tmp_path)
    writer.abort()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", EVIL)
def test_no_text_of_a_csv_reads_as_a_formula(text):
    rows = list(
        csv.reader(io.StringIO(written(FileFormat.CSV, rows=[[text, Decimal(1), 1, None]]).decode(), newline=""))
    )
    assert rows[1][0] == "'" + text
    assert plain_text(rows[1][0]) == text


@pytest.mark.parametrize("text", EVIL)
def test_a_text_of_an_xlsx_that_looks_like_a_formula_is_a_quoted_string(text):
    page = openpyxl.load_workbook(io.BytesIO(written(FileFormat.XLSX, rows=[[text, None, None, None]]))).active
    assert page["A2"].data_type == "s"
    assert page["A2"].quotePrefix is True
    assert page["A2"].value.replace("_x000D_", "\r") == text


@given(st.text())
def test_neutralising_a_text_can_be_undone_exactly(text):
    assert plain_text(safe_text(text)) == text


def test_negative_amounts_are_numbers_and_stay_as_they_are():
    assert b"\r\nx,-1.00,-3," in written(FileFormat.CSV, rows=[["x", Decimal("-1.00"), -3, None]])


def test_a_pdf_has_pages_for_all_its_rows():
    short = written(FileFormat.PDF, REPORT, totals=TOTALS)
    long = written(FileFormat.PDF, REPORT, rows=ROWS * 60)
    assert short.startswith(b"%PDF-")
    assert (short.count(b"/Type /Page\n"), long.count(b"/Type /Page\n")) == (1, 3)
    assert written(FileFormat.PDF, REPORT, rows=[]).startswith(b"%PDF-")


def test_markup_in_a_cell_is_printed_and_not_obeyed():
    assert written(FileFormat.PDF, REPORT, rows=[["<b>&<img src='x'/>", None, None, None]]).startswith(b"%PDF-")


def test_a_table_too_long_for_a_pdf_is_refused_by_name_of_the_way_out():
    with pytest.raises(Unrecoverable, match="a PDF takes at most 5,000 rows; choose csv or xlsx"):
        written(FileFormat.PDF, REPORT, rows=[ROWS[0]] * (MAX_ROWS + 1))


def test_people_read_amounts_and_dates_in_full():
    assert cell_text(Kind.MONEY, Decimal("1234567.5")) == "1,234,567.50"
    assert cell_text(Kind.DATE, date(2024, 11, 5)) == "5 Nov 2024"
    assert (cell_text(Kind.INTEGER, 1234), cell_text(Kind.TEXT, None)) == ("1,234", "")


def test_excel_is_another_word_for_xlsx():
    assert FileFormat("excel") is FileFormat.XLSX
    with pytest.raises(ValueError, match="docx"):
        FileFormat("docx")
