"""Django: queues from `settings.STREAMQ`, jobs that are added when the transaction commits, and a command for workers.

    INSTALLED_APPS = [..., "streamq.contrib.django"]
    STREAMQ = {"redis": "redis://localhost:6379/0"}

    add_on_commit("emails", "send-welcome", {"user_id": user.id})      # in a view
    python manage.py streamq_worker --queues emails                    # runs the `jobs` modules of all apps

`STREAMQ` may hold `redis`, a URL; `settings`, fields of `streamq.Settings`; `defaults`, fields of `streamq.JobOptions`;
and `processors`, modules instead of each app's `jobs`. What it leaves out is the environment's. Needs the extra
`django`.
"""

from streamq.contrib.django.adding import add_on_commit, get_queue

__all__ = ["add_on_commit", "get_queue"]
