"""The outbox's table, and the rows that callers write into it. Never talks to Redis or to a database by itself."""

from __future__ import annotations

import uuid
from typing import Any, Unpack

import msgspec
from sqlalchemy import BigInteger, Column, DateTime, Index, Insert, Integer, LargeBinary, MetaData, String, Table, func
from sqlalchemy.dialects import postgresql

from streamq._engine import codec
from streamq.errors import InvalidInput
from streamq.job import MAX_NAME, JobOptions, check_text, queue_name
from streamq.queue import OptionFields
from streamq.settings import Settings

PREFIX = "outbox-"


class Outbox:
    """A table of jobs that are to be added. `metadata` is that of your models, so migrations see the table.

    Attributes:
        table: The table: `id` in the order of writing, `key`, `queue`, `name`, `data` and `options` as msgpack,
            `created_at`, and `refused`, which says why a row can't become a job.
    """

    def __init__(self, metadata: MetaData, *, table: str = "streamq_outbox", max_payload: int | None = None) -> None:
        number = BigInteger().with_variant(Integer, "sqlite")
        self.table = Table(
            table,
            metadata,
            Column("id", number, primary_key=True, autoincrement=True),
            Column("key", String(32), nullable=False, unique=True),
            Column("queue", String(MAX_NAME), nullable=False),
            Column("name", String(MAX_NAME), nullable=False),
            Column("data", LargeBinary, nullable=False),
            Column("options", LargeBinary, nullable=False),
            Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
            Column("refused", String(1_000).with_variant(postgresql.TEXT(), "postgresql")),
            Index(f"{table}_waiting", "refused", "id"),
        )
        self._max_payload = Settings().max_payload if max_payload is None else max_payload

    def job(self, queue: str, name: str, data: Any = None, **options: Unpack[OptionFields]) -> Insert:
        """Return the statement that writes a job: `session.execute(outbox.job(…))`, or awaited on an async session.

        Name, data and options are those of `Queue.add`, and are checked here. A `delay` begins when a relay adds the
        job. Without a `job_id` the job's id is the row's, `outbox-<key>`. The row's key is its unique key in the queue
        unless it brings one of its own (`unique`).

        Raises:
            InvalidInput, PayloadTooLarge: The job does not fit; nothing was written.
        """
        unknown = options.keys() - set(JobOptions.__struct_fields__)
        if unknown:
            raise InvalidInput(f"unknown option {min(unknown)!r}; see JobOptions")
        return self.table.insert().values(
            key=uuid.uuid4().hex,
            queue=queue_name(queue),
            name=str.__str__(check_text("job name", name, MAX_NAME)),
            data=codec.encode_data("data", data, self._max_payload),
            options=msgspec.msgpack.encode(JobOptions(**options)),
        )
