"""Amounts: `Decimal` in Python, whole minor units (cents) in the database, a float nowhere.

The ledger keeps every amount with two decimals, so it takes the currencies whose minor unit is a hundredth;
`check_currency` refuses the others by name instead of rounding them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, DateTime
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

MINOR_DIGITS = 2
MAX_MINOR = 10**15
"""The largest amount in minor units (ten trillion): sums of billions of them still fit 64 bits."""

_CURRENCY = re.compile(r"[A-Z]{3}\Z")
_OTHER_MINOR_UNITS = frozenset({
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF",
    "XPF", "BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND", "CLF", "UYW",
})  # fmt: skip


def to_minor(amount: Decimal) -> int:
    """Return `amount` in minor units.

    Raises:
        ValueError: It is no finite Decimal or int, has more than two decimals, or is out of range.
    """
    if isinstance(amount, bool) or not isinstance(amount, Decimal | int):
        raise ValueError(f"an amount must be a Decimal, not {type(amount).__name__}")
    value = Decimal(amount)
    if not value.is_finite():
        raise ValueError(f"an amount must be finite, not {amount}")
    if abs(value) > MAX_MINOR // 10**MINOR_DIGITS:
        raise ValueError(f"amount {amount} is out of range")
    minor = value.scaleb(MINOR_DIGITS)
    whole = int(minor)
    if minor != whole:
        raise ValueError(f"amount {amount} has more than {MINOR_DIGITS} decimals")
    return whole


def from_minor(minor: int) -> Decimal:
    """Return minor units as an amount with two decimals."""
    return Decimal(minor).scaleb(-MINOR_DIGITS)


def check_currency(code: str) -> str:
    """Return `code` if the ledger can keep accounts in it.

    Raises:
        ValueError: It is no three capital letters, or its minor unit is not a hundredth.
    """
    if not _CURRENCY.match(code):
        raise ValueError(f"a currency is three capital letters, not {code!r}")
    if code in _OTHER_MINOR_UNITS:
        raise ValueError(f"the ledger keeps two decimals, and {code} has another minor unit")
    return code


class Money(TypeDecorator[Decimal]):
    """A column of amounts: minor units in the database, Decimal in Python; sums of it, too."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else to_minor(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else from_minor(int(value))  # PostgreSQL sums integers to numeric


class UtcTime(TypeDecorator[datetime]):
    """A moment: aware in Python, UTC in the database (SQLite keeps no time zone)."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError(f"a moment needs a time zone: {value!r}")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


def now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(UTC)
