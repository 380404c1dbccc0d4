"""What is known of a night from outside the ledger: what was asked for, and how the queue said that each job ended."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from streamq.demo.plan import Ending, Size


class JobFacts(msgspec.Struct, frozen=True):
    """An accepted job: how it was meant to end, and each ending that the queue's events told of it."""

    job: str
    expected: Ending
    endings: list[str]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the reconciliation compares the ledgers, the mailbox and the files with.

    Attributes:
        size: How much the night was to do.
        payments_total: What the file of card payments comes to.
        recipients: Whom the e-mails were for, one e-mail each.
        jobs: Every job that was accepted, those of the schedules included.
        unfinished: Jobs that still waited, ran or were delayed at the end, by queue.
    """

    size: Size
    payments_total: Decimal
    recipients: list[str]
    jobs: list[JobFacts]
    unfinished: dict[str, int]
