"""A transactional outbox: jobs that are added if, and only if, a database transaction commits.

    outbox = Outbox(metadata)

    with Session(engine) as session, session.begin():
        session.add(order)
        session.execute(outbox.job("emails", "confirm", {"order": order.number}))

    await Relay(outbox, async_engine).run()         # in a process of its own, or in several

A row is written in the caller's transaction; a relay carries it into its queue and deletes it. Needs the extra
`sqlalchemy`. Made for PostgreSQL; works on whatever SQLAlchemy knows, SQLite included.
"""

from streamq.contrib.sqlalchemy.outbox import Outbox
from streamq.contrib.sqlalchemy.relay import Relay

__all__ = ["Outbox", "Relay"]
