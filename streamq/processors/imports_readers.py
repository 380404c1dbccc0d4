"""Read the rows of a file one by one, in memory that does not grow with the file: CSV, XLSX, JSON, JSON lines.

A row that can't be read is handed on with the reason and the reading goes on; a file that is none of its format ends
it. Readers block: call them in a thread.
"""

from __future__ import annotations

import contextlib
import csv
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, BinaryIO

import ijson  # type: ignore[import-untyped]
import msgspec
import openpyxl  # type: ignore[import-untyped]

from streamq.errors import Unrecoverable
from streamq.processors.imports_records import column_names, plain_value, required_columns, squeeze
from streamq.processors.imports_request import ImportFormat, ImportRequest
from streamq.processors.writers import plain_text

_BOM = b"\xef\xbb\xbf"
_MAX_LINE = 1 << 20
_MAX_SHARED_STRINGS = 1 << 28
_MAX_COLUMNS = 500


_NO_WORKBOOK = (
    zipfile.BadZipFile,
    LookupError,
    ValueError,
    OSError,
    SyntaxError,
)  # what openpyxl raises, XML's included


class RawRow(msgspec.Struct, frozen=True):
    """One row: its number, its fields as text by name, and why it can't be read if so."""

    number: int
    fields: dict[str, Any]
    error: str = ""


class FileRows:
    """The rows of one file: iterate it once. `ignored` fills with headings that mean nothing as it goes.

    `done` estimates how much has been read, from 0 to 1; None where that is not known.
    """

    def __init__(self, request: ImportRequest, file: BinaryIO | None) -> None:
        self._request = request
        self.ignored: list[str] = []
        self._names = column_names(request.entity)
        self._cache: dict[str, str | None] = {}
        self.done: Callable[[], float | None] = lambda: None
        if file is None:
            self._rows = self._objects(enumerate(request.records or [], 1))
            return
        readers = {
            ImportFormat.CSV: self._csv,
            ImportFormat.XLSX: self._xlsx,
            ImportFormat.JSON: self._json,
            ImportFormat.JSONL: self._json_lines,
        }
        form = request.file_format
        if form is None:
            raise Unrecoverable("the file's format is not known")
        self._rows = readers[form](file)
        if form is not ImportFormat.XLSX:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            self.done = lambda: min(1.0, file.tell() / size) if size else 1.0

    def __iter__(self) -> Iterator[RawRow]:
        return self._rows

    def _csv(self, file: BinaryIO) -> Iterator[RawRow]:
        encoding = "utf-8-sig" if self._request.encoding == "utf-8" else self._request.encoding
        text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
        try:
            yield from self._table(_csv_rows(csv.reader(text, delimiter=self._request.delimiter)))
        except UnicodeError as error:
            raise Unrecoverable(f"the file is not in {self._request.encoding}: {error}") from error
        finally:
            with contextlib.suppress(ValueError):  # closed already
                text.detach()

    def _xlsx(self, file: BinaryIO) -> Iterator[RawRow]:
        try:
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(i.file_size for i in archive.infolist() if i.filename.endswith("sharedStrings.xml"))
            if unpacked > _MAX_SHARED_STRINGS:
                raise Unrecoverable("the workbook's texts unpack to over 256 MB; save it as CSV")
            file.seek(0)
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            page = book.worksheets[0]
        except _NO_WORKBOOK as error:
            raise Unrecoverable(f"the file is no XLSX workbook: {error}") from error
        try:
            last, seen = page.max_row, 0
            self.done = lambda: min(1.0, seen / last) if last else None
            for row in self._table(page.iter_rows(values_only=True)):
                seen = row.number
                yield row
        except _NO_WORKBOOK as error:
            raise Unrecoverable(f"the workbook is broken after row {seen}: {error}") from error
        finally:
            book.close()

    def _json(self, file: BinaryIO) -> Iterator[RawRow]:
        start = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
        file.seek(start)
        if not file.read(64).lstrip().startswith(b"["):
            raise Unrecoverable("a JSON import is an array of objects; the file is none")
        file.seek(start)
        number = 0
        try:
            for number, item in enumerate(ijson.items(file, "item"), 1):
                yield from self._objects([(number, item)])
        except (ijson.JSONError, UnicodeError) as error:
            raise Unrecoverable(
                f"the file is no JSON after row {number}: {error}; the rows up to there are in"
            ) from error

    def _json_lines(self, file: BinaryIO) -> Iterator[RawRow]:
        decode = msgspec.json.Decoder(float_hook=Decimal).decode
        number = 0
        while line := file.readline(_MAX_LINE):
            number += 1
            if len(line) == _MAX_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(_MAX_LINE)) and not rest.endswith(b"\n"):
                    pass
                yield RawRow(number, {}, "the line is over 1 MB")
                continue
            if not line.strip():
                continue
            try:
                item = decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                yield RawRow(number, {}, f"the line is no JSON: {error}")
                continue
            yield from self._objects([(number, item)])

    def _objects(self, items: Iterable[tuple[int, Any]]) -> Iterator[RawRow]:
        for number, item in items:
            if not isinstance(item, dict):
                yield RawRow(number, {}, f"the row is no object but {type(item).__name__}")
                continue
            fields = {}
            for key, value in item.items():
                name = self._name(key)
                if name is not None and value is not None and value != "":
                    fields[name] = plain_value(value)
            yield RawRow(number, fields)

    def _table(self, rows: Iterable[Iterable[Any] | csv.Error]) -> Iterator[RawRow]:
        """Yield the rows below the heading; row numbers count it. Blank rows have a number and are left out."""
        numbered = enumerate(rows, 1)
        number, names = self._heading(numbered)
        width = len(names)
        for number, cells in numbered:
            if isinstance(cells, csv.Error):
                yield RawRow(number, {}, f"the row can't be read: {cells}")
                continue
            fields: dict[str, Any] = {}
            extra = False
            for at, cell in enumerate(cells):
                if cell is None or cell == "":
                    continue
                if at >= width:
                    extra = True
                elif (name := names[at]) is not None:
                    value = plain_value(cell)
                    if value != "":
                        fields[name] = plain_text(value) if value.__class__ is str and value[0] == "'" else value
            if extra:
                yield RawRow(number, {}, f"the row has more cells than the heading, which has {width}")
            elif fields:
                yield RawRow(number, fields)

    def _heading(self, rows: Iterator[tuple[int, Any]]) -> tuple[int, list[str | None]]:
        for number, cells in rows:
            if isinstance(cells, csv.Error):
                raise Unrecoverable(f"the heading can't be read: {cells}")
            words = [str(cell).strip() if cell is not None else "" for cell in cells]
            if not any(words):
                continue
            if len(words) > _MAX_COLUMNS:
                raise Unrecoverable(f"the heading has over {_MAX_COLUMNS} columns")
            names = [self._name(word) if word else None for word in words]
            known = [name for name in names if name is not None]
            twice = sorted({name for name in known if known.count(name) > 1})
            if twice:
                raise Unrecoverable(f"the heading names {', '.join(twice)} twice")
            lacking = [
                name
                for name in required_columns(self._request.entity, update=self._request.update)
                if name not in known
            ]
            if lacking:
                raise Unrecoverable(f"the heading lacks {', '.join(lacking)}; it has {', '.join(words)[:200]}")
            return number, names
        raise Unrecoverable("the file is empty: its first row must name the columns")

    def _name(self, word: str) -> str | None:
        """Return the field that a heading or a key means; None, and remembered, if none."""
        if word not in self._cache:
            found = self._names.get(squeeze(word))
            if len(self._cache) >= _MAX_COLUMNS:
                return found
            self._cache[word] = found
            if found is None:
                self.ignored.append(word[:100])
        return self._cache[word]


def _csv_rows(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    """Yield rows, and the errors of those that can't be read: the reader goes on at the next line."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error
