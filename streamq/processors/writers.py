"""Write tables row by row as CSV, XLSX, JSON or JSON lines, in memory that does not grow with the rows.

A spreadsheet runs a cell that starts with `=`, `+`, `-` or `@` as a formula. In CSV such a text is written behind an
apostrophe, which `plain_text` takes off again; in XLSX it is stored as a string with the quote prefix. Numbers are
written as numbers. Writers block: call them in a thread.
"""

from __future__ import annotations

import contextlib
import csv
import enum
import io
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, BinaryIO, Protocol

import msgspec
import xlsxwriter  # type: ignore[import-untyped]

Row = Sequence[Any]

_FORMULA = re.compile(r"'*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_QUOTED = re.compile(r"'+[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_SUSPECT = frozenset("'=+-@\t\r\uff1d\uff0b\uff0d\uff20")
_SHEET_ROWS = 1_048_576
_DAY_ZERO = date(1899, 12, 30)
_LAST_DOUBTFUL_DAY = 60  # spreadsheets have a 29 February 1900, so days up to it are written as text
_DATES_KEPT = 100_000


class FileFormat(enum.StrEnum):
    """The formats that reports and exports are written in; `excel` is another word for XLSX."""

    CSV = "csv"
    XLSX = "xlsx"
    JSON = "json"
    JSONL = "jsonl"
    PDF = "pdf"

    @classmethod
    def _missing_(cls, value: object) -> FileFormat | None:
        return cls.XLSX if value == "excel" else None


class Kind(enum.Enum):
    """What a column holds, which decides how its cells are written."""

    TEXT = "text"
    MONEY = "money"
    INTEGER = "integer"
    DATE = "date"


class Column(msgspec.Struct, frozen=True):
    """One column: its key in JSON and CSV, its title for people, and what it holds."""

    key: str
    title: str
    kind: Kind = Kind.TEXT


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a table before its rows: title, columns, and facts to print above (period, filters)."""

    title: str
    columns: tuple[Column, ...]
    facts: tuple[tuple[str, str], ...] = ()
    for_people: bool = False
    """A report: titles as headings, facts and totals included. Else an export: keys as headings, rows only."""

    @property
    def headings(self) -> list[str]:
        """The words of the first row."""
        return [column.title if self.for_people else column.key for column in self.columns]


class TableWriter(Protocol):
    """Writes one table to one file."""

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows, each with one cell per column."""

    def finish(self, totals: Row | None = None) -> None:
        """Write what comes last. The file stays open; it is the caller's."""

    def abort(self) -> None:
        """Give up and release what the writer holds. Harmless after `finish`."""


def table_writer(form: FileFormat, file: BinaryIO, sheet: Sheet) -> TableWriter:
    """Return a writer of `form` for `sheet` on `file`."""
    if form is FileFormat.PDF:
        from streamq.processors.writers_pdf import PdfWriter

        return PdfWriter(file, sheet)
    writers: dict[FileFormat, Callable[[BinaryIO, Sheet], TableWriter]] = {
        FileFormat.CSV: CsvWriter,
        FileFormat.XLSX: XlsxWriter,
        FileFormat.JSON: JsonWriter,
        FileFormat.JSONL: JsonLinesWriter,
    }
    return writers[form](file, sheet)


def safe_text(text: str) -> str:
    """Return `text` so that no spreadsheet takes it for a formula; `plain_text` undoes it exactly."""
    return f"'{text}" if _FORMULA.match(text) else text


def plain_text(text: str) -> str:
    """Return what `safe_text` was given."""
    return text[1:] if _QUOTED.match(text) else text


class CsvWriter:
    """RFC 4180 with UTF-8, no byte-order mark."""

    def __init__(self, file: BinaryIO, sheet: Sheet) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
        self._rows = csv.writer(self._text)
        self._rows.writerow([safe_text(word) for word in sheet.headings])
        self._is_text = [column.kind is Kind.TEXT for column in sheet.columns]

    def write(self, rows: Iterable[Row]) -> None:
        is_text = self._is_text
        self._rows.writerows(
            [safe_text(cell) if text and cell else cell for text, cell in zip(is_text, row, strict=True)]
            for row in rows
        )

    def finish(self, totals: Row | None = None) -> None:
        if totals is not None:
            self.write([totals])
        self.abort()

    def abort(self) -> None:
        with contextlib.suppress(ValueError):  # detached already
            self._text.detach()


class JsonWriter:
    """An export is an array of objects; a report is an object with title, facts, rows and totals.

    Amounts are strings: a JSON number is a float to most readers.
    """

    def __init__(self, file: BinaryIO, sheet: Sheet) -> None:
        self._file, self._sheet = file, sheet
        self._encode = msgspec.json.Encoder().encode
        self._keys = [column.key for column in sheet.columns]
        self._first = True
        if sheet.for_people:
            head = {"title": sheet.title, "facts": dict(sheet.facts)}
            file.write(self._encode(head)[:-1] + b',"rows":')
        file.write(b"[")

    def write(self, rows: Iterable[Row]) -> None:
        encoded = b",\n".join(self._encode(dict(zip(self._keys, row, strict=True))) for row in rows)
        if encoded:
            self._file.write((b"\n" if self._first else b",\n") + encoded)
            self._first = False

    def finish(self, totals: Row | None = None) -> None:
        self._file.write(b"\n]")
        if self._sheet.for_people:
            named = {} if totals is None else dict(zip(self._keys, totals, strict=True))
            known = {key: value for key, value in named.items() if isinstance(value, Decimal | int)}
            self._file.write(b',"totals":' + self._encode(known) + b"}")
        self._file.write(b"\n")

    def abort(self) -> None:
        pass


class JsonLinesWriter:
    """One object per line, no totals."""

    def __init__(self, file: BinaryIO, sheet: Sheet) -> None:
        self._file = file
        self._encode = msgspec.json.Encoder().encode_lines
        self._keys = [column.key for column in sheet.columns]

    def write(self, rows: Iterable[Row]) -> None:
        self._file.write(self._encode([dict(zip(self._keys, row, strict=True)) for row in rows]))

    def finish(self, totals: Row | None = None) -> None:
        pass

    def abort(self) -> None:
        pass


class XlsxWriter:
    """A workbook of one sheet, or of more when the rows outgrow one. Rows wait in a temporary file, not in memory."""

    def __init__(self, file: BinaryIO, sheet: Sheet, *, sheet_rows: int = _SHEET_ROWS) -> None:
        self._sheet, self._limit = sheet, sheet_rows
        self._folder = tempfile.TemporaryDirectory(prefix="streamq-xlsx-")
        self._book = xlsxwriter.Workbook(
            file, {"constant_memory": True, "tmpdir": self._folder.name, "strings_to_urls": False}
        )
        self._book.set_properties({"title": sheet.title, "comments": "; ".join(f"{k}: {v}" for k, v in sheet.facts)})
        add = self._book.add_format
        self._heading = add({"bold": True, "bg_color": "#E8EEF4", "bottom": 1})
        self._quoted = add({"quote_prefix": True})
        numbers = {Kind.MONEY: "#,##0.00", Kind.INTEGER: "#,##0", Kind.DATE: "yyyy-mm-dd", Kind.TEXT: "@"}
        self._cells: dict[Kind, Any] = {
            kind: add({"num_format": form}) for kind, form in numbers.items() if kind is not Kind.TEXT
        }
        self._totals = {kind: add({"num_format": form, "bold": True, "top": 1}) for kind, form in numbers.items()}
        self._sheets, self._next = 0, 0
        self._put: list[tuple[int, Kind, Callable[..., Any], Any]] = []
        self._dates: dict[date, int] = {}
        self._new_sheet()

    def write(self, rows: Iterable[Row]) -> None:
        quoted, dates = self._quoted, self._dates
        for row in rows:
            if self._next == self._limit:
                self._new_sheet()
            at = self._next
            for (column, kind, put, form), cell in zip(self._put, row, strict=True):
                if cell is None or cell == "":
                    continue
                if kind is Kind.TEXT:
                    put(at, column, cell, quoted if cell[0] in _SUSPECT and _FORMULA.match(cell) else None)
                elif kind is Kind.DATE:
                    number = dates.get(cell) or self._date_number(cell)
                    if number > _LAST_DOUBTFUL_DAY:
                        put(at, column, number, form)
                    else:
                        self._page.write_string(at, column, cell.isoformat())
                else:
                    put(at, column, cell, form)
            self._next = at + 1

    def finish(self, totals: Row | None = None) -> None:
        if totals is not None:
            for at, (column, cell) in enumerate(zip(self._sheet.columns, totals, strict=True)):
                text = isinstance(cell, str) or cell is None
                put = self._page.write_string if text else self._page.write_number
                put(self._next, at, cell or "" if text else cell, self._totals[column.kind])
        self._page.autofilter(0, 0, max(self._next - 1, 1), len(self._sheet.columns) - 1)
        self._book.close()
        self._folder.cleanup()

    def abort(self) -> None:
        for page in self._book.worksheets():
            page.row_data_fh.close()
        self._folder.cleanup()

    def _new_sheet(self) -> None:
        self._sheets += 1
        name = re.sub(r"[\[\]:*?/\\']", " ", self._sheet.title)[:25].strip()
        self._page = page = self._book.add_worksheet(name if self._sheets == 1 else f"{name} {self._sheets}")
        page.freeze_panes(1, 0)
        widths = {Kind.TEXT: 22, Kind.MONEY: 14, Kind.INTEGER: 11, Kind.DATE: 12}
        for at, column in enumerate(self._sheet.columns):
            page.set_column(at, at, max(widths[column.kind], len(column.title) + 3))
        for at, word in enumerate(self._sheet.headings):
            page.write_string(0, at, word, self._heading)
        self._next = 1
        self._put = [
            (
                at,
                column.kind,
                page.write_string if column.kind is Kind.TEXT else page.write_number,
                self._cells.get(column.kind),
            )
            for at, column in enumerate(self._sheet.columns)
        ]

    def _date_number(self, day: date) -> int:
        """Return the number that a spreadsheet keeps for a day; days repeat, so they are remembered."""
        number = (day - _DAY_ZERO).days
        if len(self._dates) < _DATES_KEPT:
            self._dates[day] = number
        return number


def cell_text(kind: Kind, cell: Any) -> str:
    """Return a cell as a person reads it: 1,234.50, 5 Nov 2024."""
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return f"{cell:,.2f}"
    if isinstance(cell, date):
        return f"{cell.day} {cell:%b %Y}"
    if kind is Kind.INTEGER and isinstance(cell, int):
        return f"{cell:,}"
    return str(cell)
