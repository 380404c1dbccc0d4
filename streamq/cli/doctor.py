"""`streamq doctor`: look whether the server is fit for jobs."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from streamq.cli import arguments
from streamq.cli.findings import Facts, judge
from streamq.cli.output import Cell, Table
from streamq.errors import StoreRefused

if TYPE_CHECKING:
    from streamq._engine.store import Store
    from streamq.cli.session import Session
    from streamq.queue import Queue
    from streamq.settings import Settings

PINGS = 50
CONFIG = ("maxmemory-policy", "save", "appendonly", "appendfsync")
TONES = {"ok": "good", "note": "dim", "warning": "warn", "wrong": "bad"}

COMMANDS = (
    # What the scripts call.
    "DEL @", "EXISTS @", "GET @", "SET @ v", "OBJECT ENCODING @", "PERSIST @", "PEXPIRE @ 1", "PTTL @",
    "UNLINK @", "INCR @", "INCRBY @ 1", "TIME",
    "HDEL @ f", "HEXISTS @ f", "HGET @ f", "HGETALL @", "HINCRBY @ f 1", "HMGET @ f", "HSET @ f v", "HSETNX @ f v",
    "LINDEX @ 0", "LLEN @", "LPOP @", "LPUSH @ v", "LRANGE @ 0 1", "LREM @ 1 v", "LTRIM @ 0 1", "RPOP @", "RPUSH @ v",
    "XACK @ w 1-0", "XADD @ * f v", "XCLAIM @ w c 0 1-0", "XDEL @ 1-0", "XGROUP CREATE @ w 0",
    "XGROUP DELCONSUMER @ w c", "XGROUP SETID @ w 0", "XINFO CONSUMERS @ w", "XINFO GROUPS @", "XLEN @",
    "XPENDING @ w", "XRANGE @ - +", "XREVRANGE @ + -",
    "XREADGROUP GROUP w c STREAMS @ >", "XSETID @ 1-1", "XTRIM @ MAXLEN 1",
    "ZADD @ 1 m", "ZCARD @", "ZCOUNT @ 0 1", "ZINCRBY @ 1 m", "ZRANDMEMBER @",
    "ZRANGE @ 0 1", "ZRANGEBYSCORE @ 0 1", "ZRANK @ m", "ZREM @ m",
    "ZREMRANGEBYRANK @ 0 1", "ZREVRANGE @ 0 1", "ZREVRANK @ m", "ZSCORE @ m", "ZUNIONSTORE @ 1 @",
    # What workers and queues send themselves.
    "PING", "EVAL s 1 @", "EVALSHA s 1 @", "BLPOP @ 1", "XREAD STREAMS @ 0", "XINFO STREAM @",
    "CLIENT ID", "CLIENT UNBLOCK 1",
)  # fmt: skip
"""All commands that streamq needs, as `Store.permissions` takes them."""

EXAMPLES = """
  streamq doctor
  streamq doctor reports emails --strict
  streamq doctor --json | jq 'select(.level == "wrong")'
"""


def add_parsers(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = commands.add("look", "doctor", doctor, "look whether the server is fit for jobs", examples=EXAMPLES)
    arguments.add_queues(parser)
    parser.add_argument("--strict", action="store_true", help="let warnings make the exit code 1 as well")


async def doctor(session: Session) -> int:
    """Gather facts, judge them, and tell."""
    findings = [finding for facts in await gather(session) for finding in judge(facts)]
    if session.out.json:
        for finding in findings:
            session.out.record(finding)
    else:
        rows = [(Cell(f.level, TONES[f.level]), f.topic, f.text) for f in findings]
        session.out.table(Table(("", "what", "how it is"), rows))
        advice = [f"  {finding.topic}: {finding.advice}" for finding in findings if finding.advice]
        if advice:
            session.out.line("\n".join(["", "what to do:", *advice]))
    bad = ("wrong", "warning") if session.options.strict else ("wrong",)
    return 1 if any(finding.level in bad for finding in findings) else 0


async def gather(session: Session) -> list[Facts]:
    """Ask each server that serves one of the queues all that is to be known, and do without what may not be asked.

    Raises:
        StoreUnavailable: One can't be reached.
    """
    settings = session.settings
    found = []
    async with session.queues() as queues, AsyncExitStack() as stack:
        served: dict[Any, tuple[Store, list[Queue]]] = {}
        for queue in queues:
            for shard in range(await _nodes_at_most(queue)):
                store = _store(queue, shard, settings)
                stack.push_async_callback(store.wire.close)
                if store.wire.in_cluster:
                    await store.wire.call("PING")  # so that its place is known
                its_queues = served.setdefault(store.wire.place, (store, []))[1]
                if shard == 0:
                    its_queues.append(queue)
        for store, its_queues in served.values():
            found.append(await _ask(store, its_queues))
    return found


async def _nodes_at_most(queue: Queue) -> int:
    """Return how many nodes may serve a queue: in a cluster one for each shard, or as many as can be told."""
    if not queue._store.wire.in_cluster:
        return 1
    try:
        return await queue.count_shards() or 1
    except StoreRefused:
        return 1


def _store(queue: Queue, shard: int, settings: Settings) -> Store:
    from streamq._engine import keys
    from streamq._engine.endpoint import Endpoint
    from streamq._engine.store import Store
    from streamq._engine.wire import Wire

    endpoint = Endpoint(settings.redis_url, settings.timeout, keys.base(queue.name, shard))
    return Store(queue.name, Wire(endpoint), settings, shard=shard)


async def _ask(store: Store, queues: list[Queue]) -> Facts:
    """Gather the facts of one server; `queues` are those to count here."""
    info, config = await _info(store), await _config(store)
    pings, ahead = await _pings(store)
    refused, script_error = await _permissions(store)
    counted = {} if script_error or refused else {queue.name: await queue.stats() for queue in queues}
    place = store.wire.place if store.wire.in_cluster else None
    return Facts(
        info=info, config=config, pings=pings, clock_ahead=ahead, refused=refused, script_error=script_error,
        queues=counted, node=f"{place[0]}:{place[1]}" if place else "",
    )  # fmt: skip


async def _permissions(store: Store) -> tuple[dict[str, str], str]:
    """Return the commands that may not be run, and why no script could be run, if none could."""
    try:
        return await store.permissions(COMMANDS), ""
    except StoreRefused as error:
        return {}, str(error)


async def _info(store: Store) -> dict[str, str]:
    try:
        reply: bytes = await store.command("INFO")
    except StoreRefused:
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


async def _config(store: Store) -> dict[str, str]:
    try:
        flat: list[Any] = await store.command("CONFIG", "GET", *CONFIG)
    except StoreRefused:
        return {}  # many services don't allow it
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}


async def _pings(store: Store) -> tuple[list[float], float | None]:
    """Return round-trip times, and by how much the server's clock is ahead: as the quickest of them tells."""
    took, aheads = [], []
    for _ in range(PINGS):
        sent, start = time.time(), time.perf_counter()
        try:
            seconds, micros = await store.command("TIME")
        except StoreRefused:
            return [], None
        took.append(time.perf_counter() - start)
        aheads.append(int(seconds) + int(micros) / 1e6 - (sent + took[-1] / 2))
    return took, aheads[took.index(min(took))]
