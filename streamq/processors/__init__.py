"""The processors of a bank: reports, imports, exports, e-mails, notifications, synchronisation, interest, recurring.

Each is a plugin that the worker finds through the entry-point group `streamq.processors`; the extra
`streamq[processors]` installs what they need. They keep their books in `streamq.processors.ledger` and their files in
`streamq.processors.storage`. `docs/processors.md` lists every job with its data and its result.
"""
