"""What a row of each entity must look like, and what is wrong with one that does not. Pure: asks no database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streamq.processors.imports_request import Entity
from streamq.processors.ledger.money import check_currency, to_minor

_PRINTABLE = r"[^\x00-\x1f\x7f\ud800-\udfff]"
Id = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}\Z")]
Name = Annotated[str, Meta(pattern=rf"\A{_PRINTABLE}{{1,200}}\Z")]
Text = Annotated[str, Meta(pattern=rf"\A{_PRINTABLE}{{0,500}}\Z")]
Word = Annotated[str, Meta(pattern=r"\A[a-z][a-z-]{0,15}\Z")]
Email = Annotated[
    str, Meta(pattern=r"\A(?=.{3,254}\Z)[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+\Z")
]
Phone = Annotated[str, Meta(pattern=r"\A\+?[0-9 ()./-]{3,32}\Z")]
Currency = Annotated[str, Meta(pattern=r"\A[A-Z]{3}\Z")]


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A member; `joined_on` is the day of the import unless given."""

    id: Id
    name: Name
    email: Email | None = None
    phone: Phone | None = None
    status: Word = "active"
    joined_on: date | None = None


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An account of a member."""

    id: Id
    member_id: Id
    kind: Word = "savings"
    currency: Currency = "EUR"
    status: Word = "open"
    opened_on: date | None = None


class TransactionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction seen from one account: a positive amount comes in. The other side is the counter account, by
    default the bank's cash account in that currency."""

    id: Id
    account_id: Id
    amount: Decimal
    booked_on: date
    counter_account_id: Id | None = None
    kind: Word | None = None
    currency: Currency | None = None
    description: Text = ""


Record = MemberRecord | AccountRecord | TransactionRecord
Problem = tuple[str, str]
"""A field, and what is wrong with it."""

RECORDS: dict[Entity, type[Record]] = {
    Entity.MEMBERS: MemberRecord,
    Entity.ACCOUNTS: AccountRecord,
    Entity.TRANSACTIONS: TransactionRecord,
}
PATCHES: dict[Entity, type[msgspec.Struct]] = {
    entity: msgspec.defstruct(
        f"{record.__name__}Patch",
        [
            (field.name, field.type) if field.name == "id" else (field.name, field.type | UnsetType, UNSET)
            for field in msgspec.structs.fields(record)
        ],
        frozen=True,
        kw_only=True,
    )
    for entity, record in RECORDS.items()
    if entity is not Entity.TRANSACTIONS
}
"""What an update of each entity gives: the id, and those fields that are to change."""

_ALIASES = {
    "date": "booked_on",
    "account": "account_id",
    "member": "member_id",
    "counter_account": "counter_account_id",
}
_REASONS = {
    "id": "must be 1 to 64 letters, digits or . _ : / -",
    "name": "must be 1 to 200 printable characters",
    "email": "is no e-mail address",
    "phone": "is no telephone number",
    "amount": "is no amount",
    "currency": "must be three capital letters",
    "description": "must be at most 500 printable characters",
    "status": "must be a word in small letters",
    "kind": "must be a word in small letters",
}  # fmt: skip


def column_names(entity: Entity) -> dict[str, str]:
    """Return what a heading, with all but letters and digits taken out, means: {"memberid": "member_id", ...}."""
    fields = RECORDS[entity].__struct_fields__
    known = {field.replace("_", ""): field for field in fields}
    return known | {alias.replace("_", ""): field for alias, field in _ALIASES.items() if field in fields}


def required_columns(entity: Entity, *, update: bool = False) -> list[str]:
    """Return the fields that every row must have."""
    kind = PATCHES[entity] if update else RECORDS[entity]
    return [field.name for field in msgspec.structs.fields(kind) if field.required]


def squeeze(heading: str) -> str:
    """Return a heading as `column_names` knows it: `Member ID`, `member_id` and `memberId` are one."""
    return re.sub(r"[\W_]+", "", heading).lower()


def plain_value(value: Any) -> Any:
    """Return a cell as text, as far as it is one value: what a spreadsheet or JSON made of it is undone."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool | list | dict):
        return value
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == datetime.min.time() else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def check(entity: Entity, fields: Mapping[str, Any], *, update: bool = False) -> msgspec.Struct | list[Problem]:
    """Return the record that `fields` describe, or everything that is wrong with them, field by field.

    Fields come as text (`plain_value`). Those that are absent take their defaults, or, in an update, stay unset.
    """
    kind = PATCHES[entity] if update else RECORDS[entity]
    try:
        record = msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError:
        return _problems(kind, fields)
    wrong = _beyond_types(record)
    return wrong or record


def _beyond_types(record: msgspec.Struct) -> list[Problem]:
    wrong: list[Problem] = []
    if isinstance(record, TransactionRecord):
        try:
            if to_minor(record.amount) == 0:
                wrong.append(("amount", "must not be zero"))
        except ValueError as error:
            wrong.append(("amount", str(error)))
        if record.counter_account_id == record.account_id:
            wrong.append(("counter_account_id", "must be another account"))
    elif isinstance(record, AccountRecord):
        try:
            check_currency(record.currency)
        except ValueError as error:
            wrong.append(("currency", str(error)))
    return wrong


def _problems(kind: type[msgspec.Struct], fields: Mapping[str, Any]) -> list[Problem]:
    """Look at each field on its own: msgspec stops at the first one."""
    wrong: list[Problem] = []
    for field in msgspec.structs.fields(kind):
        value = fields.get(field.name, UNSET)
        if value is UNSET:
            if field.required:
                wrong.append((field.name, "is missing"))
            continue
        try:
            msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            wrong.append((field.name, _reason(field.name, value, str(error))))
    return wrong


def _reason(field: str, value: Any, error: str) -> str:
    if not isinstance(value, str):
        return f"must be text or a number, not {type(value).__name__}"
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        return "is not in the file's encoding"
    if field.endswith("_on"):
        reason = "must be a date as 2024-11-05"
    else:
        reason = _REASONS.get(
            field.removeprefix("counter_account_").removeprefix("account_").removeprefix("member_"), error
        )
    return f"{reason}: {value[:60]!r}"
