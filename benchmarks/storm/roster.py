"""Who goes through the storm, how each is set up for it, and for how long its documentation lets recovery take.

Wherever a queue lets one say after how long a silent worker counts as dead, that is `LEASE`; limits of how often a
job may be taken back are lifted; all else is as it comes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import ROOT
from benchmarks.peers import environments
from benchmarks.peers.roster import PEERS, STREAMQ, Peer
from benchmarks.storm.plan import LEASE

ADAPTERS = Path(__file__).parent / "adapters"


class Contender(NamedTuple):
    """One queue. `recovers_within` are the seconds that its settings give, by its documentation."""

    peer: Peer
    settings: str
    recovers_within: float
    share: float = 1.0
    """The share of the jobs that it can run in the time, if that is less than all."""

    @property
    def name(self) -> str:
        """What it is called."""
        return self.peer.name

    @property
    def patience(self) -> float:
        """Seconds without a job's start or end after which recovery is given up."""
        return self.recovers_within + 30

    def command(self, cache: Path, url: str) -> tuple[Sequence[str], Mapping[str, str]]:
        """Return how the adapter is started, and its environment."""
        program = environments.command(self.peer, cache)[0]
        paths = os.pathsep.join(map(str, (ADAPTERS, ROOT) if self.peer is STREAMQ else (ADAPTERS,)))
        environment = {**environments.environment(self.peer, cache), "PYTHONPATH": paths, "STORM_URL": url}
        return [program, str(ADAPTERS / self.peer.adapter)], environment


_SETTINGS: dict[str, tuple[str, float]] = {
    "streamq": (f"`lease={LEASE}`, `max_stalls` lifted", LEASE + 1),
    "arq": (
        f"`job_timeout={LEASE}`, `max_tries` lifted, `retry` and `retry_on_error` of its `RedisSettings`",
        LEASE + 10,
    ),
    "saq": (f"`timeout={LEASE}`, `retries` lifted; a sweep every minute, as it comes", 2 * LEASE + 60),
    "taskiq-redis": (
        f"`RedisStreamBroker` with `idle_timeout` {LEASE} s, `unacknowledged_lock_timeout={LEASE}`; `taskiq worker`",
        2 * LEASE + 2,
    ),
    "streaq": (f"`idle_timeout={LEASE}`, `max_tries=None`", 2 * LEASE),
    "docket": (f"`redelivery_timeout` {LEASE} s", 2 * LEASE),
    "rq": (
        f"`Retry` lifted, `job_monitoring_interval={LEASE}`, `maintenance_interval={LEASE}`; the minute that it "
        "adds to each is fixed, and so is the quarter of an hour for which a worker that is killed in its maintenance "
        "keeps the others from it",
        2 * LEASE + 60 + 900,
    ),
    "dramatiq": (f"`heartbeat_timeout` {LEASE} s, `maintenance_chance=200_000`", 2 * LEASE),
    "celery": (
        f"`task_acks_late`, `task_reject_on_worker_lost`, `worker_prefetch_multiplier=1`, "
        f"`worker_cancel_long_running_tasks_on_connection_loss`, `visibility_timeout` {LEASE} s, "
        f"`unacked_restore_interval` 1 s, `unacked_restore_throttle=1`, `unacked_mutex_expire` {LEASE} s",
        2 * LEASE,
    ),
    "bullmq-python": (f"`lockDuration` and `stalledInterval` {LEASE} s, `maxStalledCount` lifted", 3 * LEASE),
    "bullmq-node": (f"`lockDuration` and `stalledInterval` {LEASE} s, `maxStalledCount` lifted", 3 * LEASE),
}
_SLOW = {"rq": 0.25, "saq": 0.25}
"""RQ forks for each job, and runs one at a time; SAQ's sweep takes five seconds for each job that it takes back."""
CONTENDERS = tuple(
    Contender(peer, *_SETTINGS[peer.name], share=_SLOW.get(peer.name, 1.0)) for peer in (STREAMQ, *PEERS)
)
