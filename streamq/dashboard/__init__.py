"""The dashboard: queues, jobs, workers, schedules and dead letters as web pages, and what operators do to them.

`create_app` makes an ASGI app to mount; `streamq dashboard` serves it alone. Needs the extra `[dashboard]`.
`docs/dashboard.md` tells who may see and do what.
"""

from streamq.dashboard.access import Access, Role, User
from streamq.dashboard.app import create_app
from streamq.dashboard.passwords import hash_password

__all__ = ["Access", "Role", "User", "create_app", "hash_password"]
