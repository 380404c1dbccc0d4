"""A queue with planted faults, for the storm against other queues: the storm has to find them.

It pops a job before it runs it, so that a killed worker's jobs are lost; it adds every tenth job twice; one of its adds
never comes back; and its worker ends when the server is away. Started as the adapters in benchmarks/storm/adapters are,
with their kit on the path.
"""

from __future__ import annotations

import json
import time
from typing import Any

import redis
from kit import URL, Adapter, blocking_job, main, ready  # type: ignore[import-not-found]

KEY, HANGS = "forgetful", "0-40"
OFTEN = 10


class Forgetful(Adapter):  # type: ignore[misc]
    """A list, and nothing else."""

    blocking = True

    def connect(self) -> None:
        """Open the connection."""
        self.redis = redis.Redis.from_url(URL, retry=None)
        self.added = 0

    def add(self, data: dict[str, Any]) -> None:
        """Push a job; now and then twice."""
        if data["id"] == HANGS:
            time.sleep(3_600)
        self.redis.rpush(KEY, *[json.dumps(data)] * (2 if self.added % OFTEN == 0 else 1))
        self.added += 1

    def worker(self) -> None:
        """Pop and run."""
        self.connect()
        ready()
        while True:
            if found := self.redis.blpop([KEY], 1):
                blocking_job(json.loads(found[1]))


if __name__ == "__main__":
    main(Forgetful)
