"""What can be wrong with the ledger or with a booking, by what the caller does next.

    LedgerError (StreamqError)
    ├── LedgerVersionMismatch     use the release that wrote this ledger, or a new ledger
    ├── UnbalancedTransaction     fix the transaction
    ├── UnknownAccount            fix the transaction, or open the account first
    ├── WrongCurrency             fix the transaction
    └── TransactionDiffers        the id is booked already, with other contents: look at both

After each of them nothing of the call is booked, once the surrounding `Ledger.begin()` has rolled back.
"""

from __future__ import annotations

from streamq.errors import StreamqError


class LedgerError(StreamqError):
    """The root of the ledger's errors."""


class LedgerVersionMismatch(LedgerError):
    """The database holds no ledger that this release can use. It was not touched."""

    def __init__(self, found: int | None, wanted: int) -> None:
        super().__init__(found, wanted)
        self.found, self.wanted = found, wanted

    def __str__(self) -> str:
        if self.found is None:
            return "the database holds tables of these names that are no ledger of streamq: give it one of its own"
        return f"the ledger has schema version {self.found}, this release reads and writes version {self.wanted}"


class UnbalancedTransaction(LedgerError, ValueError):
    """A transaction whose postings don't sum to zero, or that has fewer than two of them."""

    def __init__(self, transaction_id: str, reason: str) -> None:
        super().__init__(transaction_id, reason)
        self.transaction_id, self.reason = transaction_id, reason

    def __str__(self) -> str:
        return f"transaction {self.transaction_id}: {self.reason}"


class UnknownAccount(LedgerError, LookupError):
    """A posting to an account that does not exist."""

    def __init__(self, account_id: str) -> None:
        super().__init__(account_id)
        self.account_id = account_id

    def __str__(self) -> str:
        return f"account {self.account_id} does not exist"


class WrongCurrency(LedgerError, ValueError):
    """A posting whose account is kept in another currency than the transaction."""

    def __init__(self, transaction_id: str, account_id: str, has: str, wanted: str) -> None:
        super().__init__(transaction_id, account_id, has, wanted)
        self.transaction_id, self.account_id, self.has, self.wanted = transaction_id, account_id, has, wanted

    def __str__(self) -> str:
        return f"transaction {self.transaction_id} is in {self.wanted}, account {self.account_id} in {self.has}"


class TransactionDiffers(LedgerError):
    """A transaction of this id is booked already, and it is not the same one."""

    def __init__(self, transaction_id: str) -> None:
        super().__init__(transaction_id)
        self.transaction_id = transaction_id

    def __str__(self) -> str:
        return f"transaction {self.transaction_id} is booked already with other contents"
