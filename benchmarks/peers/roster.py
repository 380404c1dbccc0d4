"""Who is measured: packages and versions, and how one sees from outside that everything is settled.

Each is set up as its own documentation says for speed; its adapter's docstring names the settings that matter.
"""

from __future__ import annotations

from typing import NamedTuple

HIREDIS = "hiredis==3.5.0"
UVLOOP = "uvloop==0.23.0"


class Peer(NamedTuple):
    """One queue. `settled` are commands that all answer zero when nothing waits and nothing runs."""

    name: str
    packages: tuple[str, ...]
    settled: tuple[tuple[str, ...], ...]
    concurrent: bool = True
    """Whether its client is asynchronous, so that adds can be concurrent."""
    bulk: bool = False
    """Whether it can add many jobs by one call."""
    delays: bool = True
    """Whether the server itself holds its delayed jobs."""
    most_jobs: int = 1_000_000
    node: bool = False

    @property
    def adapter(self) -> str:
        """Its script in `adapters/`."""
        return f"with_{self.name.replace('-', '_')}.{'js' if self.node else 'py'}"


PEERS = (
    Peer("arq", ("arq==0.28.0", HIREDIS, UVLOOP), (("ZCARD", "arq:queue"),)),
    Peer(
        "saq", ("saq[redis]==0.26.4", HIREDIS, UVLOOP, "typing_extensions"),
        (("LLEN", "saq:default:incomplete"), ("ZCARD", "saq:default:incomplete")),
    ),
    Peer("taskiq-redis", ("taskiq==0.13.0", "taskiq-redis==1.2.4", HIREDIS, UVLOOP),
         (("XPENDING", "taskiq", "taskiq"),), delays=False),
    Peer("streaq", ("streaq==7.2.0", UVLOOP), (("XLEN", "streaq:default:queues:normal"),), bulk=True),
    Peer("docket", ("pydocket==0.27.0", HIREDIS, UVLOOP), (("XLEN", "bench:stream"),), bulk=True),
    Peer("rq", ("rq==3.0.0", HIREDIS), (("LLEN", "rq:queue:default"), ("ZCARD", "rq:wip:default")),
         concurrent=False, bulk=True, most_jobs=2_000),
    Peer("dramatiq", ("dramatiq[redis]==2.2.1", HIREDIS), (("HLEN", "dramatiq:default.msgs"),), concurrent=False),
    Peer("celery", ("celery[redis]==5.7.0", HIREDIS), (("LLEN", "celery"), ("HLEN", "unacked")), concurrent=False),
    Peer("bullmq-python", ("bullmq==3.4.4", HIREDIS, UVLOOP),
         (("LLEN", "bull:bench:wait"), ("LLEN", "bull:bench:active")), bulk=True),
    Peer("bullmq-node", ("bullmq@6.7.0", "ioredis@6.0.0"),
         (("LLEN", "bull:bench:wait"), ("LLEN", "bull:bench:active")), bulk=True, node=True),
)  # fmt: skip
STREAMQ = Peer("streamq", (), (), bulk=True)
