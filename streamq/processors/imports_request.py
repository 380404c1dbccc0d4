"""What an import job is asked and what it answers; camelCase on the wire."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec

from streamq.processors.generated import GeneratedFile

MAX_LISTED = 100
"""How many errors a result lists; the file has them all."""
MAX_INLINE = 1_000


class Entity(enum.StrEnum):
    """What can be imported and exported."""

    MEMBERS = "members"
    ACCOUNTS = "accounts"
    TRANSACTIONS = "transactions"


class ImportFormat(enum.StrEnum):
    """The formats that imports read; `excel` is another word for XLSX."""

    CSV = "csv"
    XLSX = "xlsx"
    JSON = "json"
    JSONL = "jsonl"

    @classmethod
    def _missing_(cls, value: object) -> ImportFormat | None:
        return cls.XLSX if value == "excel" else None


class OnDuplicate(enum.StrEnum):
    """What becomes of a row whose id the ledger has already."""

    ERROR = "error"
    SKIP = "skip"


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One import.

    Attributes:
        entity: What the rows are.
        file: The file's name in the storage; or
        records: the rows themselves, if they are few.
        format: The file's format; by default what its name ends with.
        update: Change members or accounts that are there, instead of adding: the id and the fields to change.
        on_duplicate: What to do with a row to add whose id is known: an error, or leave it out.
        delimiter, encoding: Of a CSV file.
        batch_size: Rows per database transaction.
    """

    entity: Entity
    file: Annotated[str, msgspec.Meta(min_length=1, max_length=400)] | None = None
    records: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_INLINE)] | None = None
    format: ImportFormat | None = None
    update: bool = False
    on_duplicate: OnDuplicate = OnDuplicate.ERROR
    delimiter: Annotated[str, msgspec.Meta(pattern=r"^[,;|\t]$")] = ","
    encoding: Annotated[str, msgspec.Meta(pattern=r"^(utf-8|utf-16|cp1252|iso-8859-1)$")] = "utf-8"
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 5_000

    def __post_init__(self) -> None:
        if (self.file is None) == (self.records is None):
            raise ValueError("give file or records, one of them")
        if self.update and self.entity == Entity.TRANSACTIONS:
            raise ValueError("what is booked is never changed: book another transaction that puts it right")
        if self.file is not None and self.format is None and self.file_format is None:
            raise ValueError(f"the format of {self.file[-40:]!r} is not clear from its name: give format")

    @property
    def file_format(self) -> ImportFormat | None:
        """The format that is given, or that the file's name ends with."""
        if self.format is not None or self.file is None:
            return self.format
        ending = self.file.rsplit(".", 1)[-1].lower()
        return ImportFormat(ending) if ending in set(ImportFormat) else None


class RowError(msgspec.Struct, frozen=True):
    """Why a row was not imported. `row` is its number as a spreadsheet shows it (a heading is row 1); in JSON, its
    position from 1. `field` is empty when the row as a whole can't be read."""

    row: int
    field: str
    reason: str


class ImportResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How an import went.

    Attributes:
        total: Rows read, of which so many were `imported` (by an update: changed), `skipped` (id known) and `failed`.
        errors: The first of them; `error_count` says how many there are, `errors_file` holds all.
        ignored_columns: Headings that mean nothing to this import.
        resumed_after: The row after which this attempt went on; 0 if it did all of it.
        seconds: From the first attempt's start to the end.
    """

    entity: Entity
    source: str
    total: int
    imported: int
    skipped: int
    failed: int
    error_count: int
    errors: list[RowError]
    errors_file: GeneratedFile | None
    ignored_columns: list[str]
    resumed_after: int
    seconds: float
