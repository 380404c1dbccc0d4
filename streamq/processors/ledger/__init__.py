"""The bank's ledger: what the processors read and write. Double entry, on SQLite or PostgreSQL.

    async with open_ledger() as ledger:
        async with ledger.begin() as conn:
            await post(conn, [Transaction(id="fee-2024-11", kind="fee", booked_on=day, postings=(
                Posting("A-000001", Decimal("-2.50")), Posting(bank_account("EUR"), Decimal("2.50"))))])

`tables` holds the SQLAlchemy tables, `money` the amounts, `books` what moves money and proves that none was lost.
A positive posting raises what the bank owes the account's holder: a deposit is + on the member's account and - on
the bank's own.
"""

from streamq.processors.ledger.books import (
    Booked,
    BooksReport,
    Posting,
    Transaction,
    balance,
    balances,
    bank_account,
    ensure_bank_account,
    post,
    verify_books,
)
from streamq.processors.ledger.database import Ledger, open_ledger
from streamq.processors.ledger.errors import (
    LedgerError,
    LedgerVersionMismatch,
    TransactionDiffers,
    UnbalancedTransaction,
    UnknownAccount,
    WrongCurrency,
)
from streamq.processors.ledger.money import MINOR_DIGITS, from_minor, to_minor

__all__ = [
    "MINOR_DIGITS",
    "Booked",
    "BooksReport",
    "Ledger",
    "LedgerError",
    "LedgerVersionMismatch",
    "Posting",
    "Transaction",
    "TransactionDiffers",
    "UnbalancedTransaction",
    "UnknownAccount",
    "WrongCurrency",
    "balance",
    "balances",
    "bank_account",
    "ensure_bank_account",
    "from_minor",
    "open_ledger",
    "post",
    "to_minor",
    "verify_books",
]
