"""The ledger's tables, as SQLAlchemy Core has them. Definitions only; `database` creates them.

Ids are text and the caller's: they are what makes a booking, an e-mail or an import idempotent.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from streamq.processors.ledger.money import Money, UtcTime, now

SCHEMA_VERSION = 1
"""Raised with every change of a table; a ledger of another version is refused at opening."""

metadata = MetaData()

schema = Table("ledger_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

members = Table(
    "members",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("email", String(254)),
    Column("phone", String(32)),
    Column("status", String(16), nullable=False, default="active"),
    Column("joined_on", Date, nullable=False),
    Column("created_at", UtcTime, nullable=False, default=now),
    Column("updated_at", UtcTime, nullable=False, default=now, onupdate=now),
    Index("ix_members_updated_at", "updated_at", "id"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("member_id", ForeignKey("members.id"), index=True),  # none: the bank's own
    Column("kind", String(16), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("status", String(16), nullable=False, default="open"),
    Column("opened_on", Date, nullable=False),
    Column("created_at", UtcTime, nullable=False, default=now),
    Column("updated_at", UtcTime, nullable=False, default=now, onupdate=now),
    Index("ix_accounts_updated_at", "updated_at", "id"),
)

transactions = Table(
    "transactions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("booked_on", Date, nullable=False),
    Column("currency", String(3), nullable=False),
    Column("description", String(500), nullable=False, default=""),
    Column("job_id", String(200)),
    Column("created_at", UtcTime, nullable=False, default=now),
    Index("ix_transactions_booked_on", "booked_on"),
    Index("ix_transactions_created_at", "created_at", "id"),
    sqlite_with_rowid=False,
)

postings = Table(
    "postings",
    metadata,
    Column("transaction_id", ForeignKey("transactions.id"), nullable=False),
    Column("line", Integer, nullable=False),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("amount", Money, nullable=False),
    PrimaryKeyConstraint("transaction_id", "line"),
    CheckConstraint("amount <> 0", name="ck_postings_amount"),
    Index("ix_postings_account_id", "account_id", "amount"),  # balances are summed from it alone
    sqlite_with_rowid=False,
)

recurring_transactions = Table(
    "recurring_transactions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("from_account_id", ForeignKey("accounts.id"), nullable=False),
    Column("to_account_id", ForeignKey("accounts.id"), nullable=False),
    Column("amount", Money, nullable=False),
    Column("description", String(500), nullable=False, default=""),
    Column("frequency", String(16), nullable=False),
    Column("interval", Integer, nullable=False, default=1),
    Column("start", Date, nullable=False),
    Column("end_date", Date),
    Column("count", Integer),
    Column("month_end", String(8), nullable=False, default="clamp"),
    Column("insufficient_funds", String(8), nullable=False, default="retry"),
    Column("missed", String(8), nullable=False, default="all"),
    Column("next_due_on", Date, index=True),  # none: it has ended
    Column("status", String(16), nullable=False, default="active"),
    Column("created_at", UtcTime, nullable=False, default=now),
    CheckConstraint("amount > 0", name="ck_recurring_amount"),
)

recurring_instances = Table(
    "recurring_instances",
    metadata,
    Column("recurring_id", ForeignKey("recurring_transactions.id"), nullable=False),
    Column("due_on", Date, nullable=False),
    Column("transaction_id", ForeignKey("transactions.id")),  # none: it was not booked, `reason` says why
    Column("status", String(16), nullable=False),
    Column("reason", String(500), nullable=False, default=""),
    Column("tries", Integer, nullable=False, default=1),
    Column("retry_on", Date, index=True),  # of a deferred one: the day from which it is tried again
    Column("job_id", String(200)),
    Column("created_at", UtcTime, nullable=False, default=now),
    PrimaryKeyConstraint("recurring_id", "due_on"),
)

interest_rates = Table(
    "interest_rates",
    metadata,
    Column("account_kind", String(16), nullable=False),
    Column("currency", String(3), nullable=False),
    Column("valid_from", Date, nullable=False),
    Column("rate", BigInteger, nullable=False),  # a year's rate is rate / rate_scale
    Column("rate_scale", BigInteger, nullable=False),
    Column("day_count", String(16), nullable=False),
    PrimaryKeyConstraint("account_kind", "currency", "valid_from"),
    CheckConstraint("rate_scale > 0", name="ck_interest_rates_scale"),
)

interest_postings = Table(
    "interest_postings",
    metadata,
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("day", Date, nullable=False),
    Column("balance", Money, nullable=False),
    Column("amount", Money, nullable=False),
    Column("transaction_id", ForeignKey("transactions.id")),  # none: the interest was zero
    Column("job_id", String(200)),
    Column("created_at", UtcTime, nullable=False, default=now),
    PrimaryKeyConstraint("account_id", "day"),
)

import_progress = Table(
    "import_progress",
    metadata,
    Column("job_id", String(200), primary_key=True),
    Column("entity", String(32), nullable=False),
    Column("source", Text, nullable=False),
    Column("source_size", BigInteger, nullable=False),
    Column("row", BigInteger, nullable=False),  # the last one whose outcome is committed
    Column("imported", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("started_at", UtcTime, nullable=False, default=now),
    Column("updated_at", UtcTime, nullable=False, default=now, onupdate=now),
    Column("finished_at", UtcTime),
)

import_errors = Table(
    "import_errors",
    metadata,
    Column("job_id", ForeignKey("import_progress.job_id"), nullable=False),
    Column("row", BigInteger, nullable=False),
    Column("field", String(64), nullable=False),
    Column("reason", String(500), nullable=False),
    PrimaryKeyConstraint("job_id", "row", "field"),
)

generated_files = Table(
    "generated_files",
    metadata,
    Column("name", String(400), primary_key=True),  # in the storage
    Column("job_id", String(200), nullable=False, index=True),
    Column("purpose", String(32), nullable=False),
    Column("format", String(16), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("user_id", String(64)),
    Column("created_at", UtcTime, nullable=False, default=now),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("key", String(200), primary_key=True),  # the idempotency key: one message to one recipient
    Column("channel", String(16), nullable=False),
    Column("recipient", String(254), nullable=False),
    Column("template", String(64), nullable=False, default=""),
    Column("subject", String(500), nullable=False, default=""),
    Column("status", String(16), nullable=False),
    Column("message_id", String(200)),
    Column("provider_ref", String(200)),
    Column("attempts", Integer, nullable=False, default=0),
    Column("error", Text, nullable=False, default=""),
    Column("job_id", String(200)),
    Column("created_at", UtcTime, nullable=False, default=now),
    Column("sent_at", UtcTime),
)

sync_cursors = Table(
    "sync_cursors",
    metadata,
    Column("source", String(100), nullable=False),
    Column("destination", String(100), nullable=False),
    Column("entity", String(32), nullable=False),
    Column("cursor", Text, nullable=False),
    Column("checksum", String(64), nullable=False, default=""),
    Column("records", BigInteger, nullable=False, default=0),
    Column("updated_at", UtcTime, nullable=False, default=now, onupdate=now),
    PrimaryKeyConstraint("source", "destination", "entity"),
)
