from __future__ import annotations

import pickle
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.processors.ledger import (
    LedgerVersionMismatch,
    TransactionDiffers,
    UnbalancedTransaction,
    UnknownAccount,
    WrongCurrency,
    from_minor,
    to_minor,
)
from streamq.processors.ledger.money import MAX_MINOR, check_currency


@given(st.integers(-MAX_MINOR, MAX_MINOR))
def test_every_amount_round_trips_exactly(minor):
    assert to_minor(from_minor(minor)) == minor
    assert from_minor(minor).as_tuple().exponent == -2


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (1.0, "must be a Decimal, not float"),
        (True, "must be a Decimal, not bool"),
        ("1.00", "must be a Decimal, not str"),
        (Decimal("0.001"), "more than 2 decimals"),
        (Decimal("NaN"), "must be finite"),
        (Decimal("-Infinity"), "must be finite"),
        (Decimal("1e14"), "out of range"),
    ],
)
def test_an_amount_that_is_not_exact_is_refused(amount, reason):
    with pytest.raises(ValueError, match=reason):
        to_minor(amount)


def test_currencies_with_another_minor_unit_are_refused_by_name():
    assert check_currency("EUR") == "EUR"
    with pytest.raises(ValueError, match="JPY has another minor unit"):
        check_currency("JPY")
    with pytest.raises(ValueError, match="three capital letters"):
        check_currency("eur")


@pytest.mark.parametrize(
    "error",
    [
        LedgerVersionMismatch(2, 1),
        UnbalancedTransaction("t", "why"),
        UnknownAccount("a"),
        WrongCurrency("t", "a", "USD", "EUR"),
        TransactionDiffers("t"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_ledger_errors_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (type(again), str(again)) == (type(error), str(error))
