"""What `streamq doctor` makes of the facts that it has gathered: findings, each with what to do about it.

Pure: takes what the server said and returns findings. `wrong` is what loses jobs or stops them; `warning` what may;
`note` what is worth knowing, or could not be looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Literal

import msgspec

from streamq.cli.values import age, count, size

if TYPE_CHECKING:
    from streamq.queue import QueueStats

Level = Literal["ok", "note", "warning", "wrong"]

OLDEST = (7, 0)
"""The oldest Redis (and the number by which Valkey calls itself Redis) that knows all commands of the scripts."""
SLOW, TOO_SLOW = 0.010, 0.100
"""Seconds of a round trip."""
OFF, FAR_OFF = 1.0, 60.0
"""Seconds between two clocks."""
ACL = "ACL SETUSER <user> ~sq:* +@read +@write +@scripting +@connection +@blocking +info +time"
"""What gives a user all that streamq needs."""
FULL, NEARLY_FULL = 0.95, 0.80
"""Shares of a limit."""


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at: how it is, and what to do if it is not well."""

    level: Level
    topic: str
    text: str
    advice: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the server said; empty, or None, where this user may not ask. Times are seconds."""

    info: Mapping[str, str]
    config: Mapping[str, str]
    pings: Sequence[float]
    clock_ahead: float | None
    refused: Mapping[str, str]
    script_error: str
    queues: Mapping[str, QueueStats]
    node: str = ""
    """Which node of a cluster this is, if it was reached by the cluster's address."""

    def number(self, name: str) -> int:
        """Return a number of INFO, 0 if it is not there."""
        text = self.info.get(name, "0")
        return int(text) if text.lstrip("-").isdigit() else 0


def judge(facts: Facts) -> list[Finding]:
    """Return all findings, in the order in which they are best read."""
    server = (_version, _mode, _policy, _memory, _persistence) if facts.info else (_untold,)
    checks = (*server, _latency, _clock, _clients, _permissions, _queues)
    return [finding for check in checks for finding in check(facts)]


def _untold(facts: Facts) -> Iterator[Finding]:
    what = "version, memory and persistence were not looked at"
    yield Finding("note", "server", f"this user may not run INFO: {what}", "ACL SETUSER <user> +info")


def _version(facts: Facts) -> Iterator[Finding]:
    info = facts.info
    name = "Valkey" if "valkey_version" in info else "Redis"
    shown = f"{name} {info.get('valkey_version') or info.get('redis_version', '?')}"
    parts = re.findall(r"\d+", info.get("redis_version", ""))[:2]
    if tuple(map(int, parts)) >= OLDEST:
        yield Finding("ok", "version", shown)
    else:
        yield Finding("wrong", "version", f"{shown} is too old", "upgrade to Redis 7.0 or newer, or to any Valkey")


def _mode(facts: Facts) -> Iterator[Finding]:
    if facts.info.get("loading") == "1":
        yield Finding("wrong", "role", "the server is loading its data", "wait until it has done so")
    if facts.node:
        yield Finding("ok", "cluster mode", f"on; node {facts.node}")
    elif facts.info.get("redis_mode") == "cluster":
        yield Finding(
            "wrong", "cluster mode", "on, and the address is one node's: queues in other nodes' slots are refused",
            "use the cluster's address: redis+cluster://host:port,host:port",
        )  # fmt: skip
    else:
        yield Finding("ok", "cluster mode", "off")
    if facts.info.get("role") == "slave":
        where = f"{facts.info.get('master_host')}:{facts.info.get('master_port')}"
        yield Finding("wrong", "role", f"a replica of {where}: it takes no jobs", "connect to the primary")
    else:
        replicas = facts.number("connected_slaves")
        yield Finding("ok", "role", f"primary, {count(replicas, 'replica')}")


def _policy(facts: Facts) -> Iterator[Finding]:
    policy = facts.info.get("maxmemory_policy") or facts.config.get("maxmemory-policy", "")
    if policy == "noeviction":
        yield Finding("ok", "maxmemory-policy", policy)
    elif not policy:
        yield Finding("note", "maxmemory-policy", "not told by the server", "make sure that it is noeviction")
    else:
        when = "jobs vanish" if facts.number("maxmemory") else "jobs would vanish if maxmemory were set,"
        yield Finding(
            "wrong" if facts.number("maxmemory") else "warning", "maxmemory-policy",
            f"{policy}: {when} when memory runs out",
            "CONFIG SET maxmemory-policy noeviction (and in redis.conf); keep caches on another server",
        )  # fmt: skip


def _memory(facts: Facts) -> Iterator[Finding]:
    used, most, machine = (facts.number(name) for name in ("used_memory", "maxmemory", "total_system_memory"))
    limit, what = (most, "maxmemory") if most else (machine, "the machine's memory")
    if not limit:
        yield Finding("note", "memory", f"{size(used)} used; no limit is known", "watch used_memory")
        return
    text = f"{size(used)} used of {size(limit)} ({what}), {used / limit:.0%}"
    if used >= limit * FULL:
        yield Finding("wrong", "memory", text, "adds are about to be refused: give it memory, drain or clean queues")
    elif used >= limit * NEARLY_FULL:
        yield Finding("warning", "memory", text, "give it memory, or set limits (streamq limits --max-size)")
    else:
        yield Finding("ok", "memory", text)
    if not most:
        yield Finding(
            "note", "maxmemory", "not set: a full machine kills the server instead of refusing jobs",
            "set maxmemory to some 70 % of the machine's memory",
        )  # fmt: skip


def _persistence(facts: Facts) -> Iterator[Finding]:
    aof, save = facts.info.get("aof_enabled") == "1", facts.config.get("save")
    if aof:
        sync = facts.config.get("appendfsync", "")
        if sync == "no":
            yield Finding(
                "warning", "persistence", "append-only file, but synced when the system likes (appendfsync no)",
                "CONFIG SET appendfsync everysec: a power cut then costs a second at most",
            )  # fmt: skip
        else:
            yield Finding("ok", "persistence", "append-only file" + (f", synced {sync}" if sync else ""))
    elif save == "":
        yield Finding(
            "wrong", "persistence", "none: all jobs are lost when the server restarts",
            "CONFIG SET appendonly yes (and in redis.conf)",
        )  # fmt: skip
    else:
        shown = f" ({save})" if save else ""
        yield Finding(
            "warning", "persistence", f"snapshots only{shown}: a crash loses the jobs since the last one",
            "CONFIG SET appendonly yes (and in redis.conf)",
        )  # fmt: skip
    for field, what in (("aof_last_write_status", "write to the append-only file"),
                        ("aof_last_bgrewrite_status", "rewrite of the append-only file"),
                        ("rdb_last_bgsave_status", "snapshot")):  # fmt: skip
        if facts.info.get(field, "ok") != "ok":
            yield Finding(
                "wrong", "persistence", f"the last {what} failed", "look at the server's log; is the disk full?"
            )


def _latency(facts: Facts) -> Iterator[Finding]:
    if not facts.pings:
        return
    middle, worst = median(facts.pings), max(facts.pings)
    text = f"{age(middle)} in the middle, {age(worst)} at worst, of {len(facts.pings)} round trips"
    if middle >= TOO_SLOW:
        yield Finding("wrong", "latency", text, "run workers near the server; look at its SLOWLOG and CPU")
    elif middle >= SLOW:
        yield Finding("warning", "latency", text, "run workers nearer to the server; raise their concurrency")
    else:
        yield Finding("ok", "latency", text)


def _clock(facts: Facts) -> Iterator[Finding]:
    if facts.clock_ahead is None:
        return
    off = abs(facts.clock_ahead)
    if off < OFF:
        yield Finding("ok", "clocks", f"{age(off)} apart")
        return
    which = "ahead of" if facts.clock_ahead > 0 else "behind"
    yield Finding(
        "wrong" if off >= FAR_OFF else "warning", "clocks",
        f"the server's clock is {age(off)} {which} this machine's: by it run_at and schedules are kept",
        "synchronise both with NTP",
    )  # fmt: skip


def _clients(facts: Facts) -> Iterator[Finding]:
    now, most = facts.number("connected_clients"), facts.number("maxclients")
    if most and now >= most * NEARLY_FULL:
        yield Finding("warning", "connections", f"{now:,} of {most:,}", "raise maxclients, or close what is not used")
    elif most:
        yield Finding("ok", "connections", f"{now:,} of {most:,}")


def _permissions(facts: Facts) -> Iterator[Finding]:
    if facts.script_error:
        advice = ACL if "NOPERM" in facts.script_error else "see what is wrong above, and the server's log"
        yield Finding("wrong", "scripts", f"none can be run: {facts.script_error}", advice)
        return
    if not facts.refused:
        yield Finding("ok", "permissions", "this user may run all that streamq needs")
        return
    names: dict[str, list[str]] = {}
    for command, word in facts.refused.items():
        names.setdefault(word, []).append(" ".join(word for word in command.split()[:2] if word.isupper()))
    for word, commands in names.items():
        listed = ", ".join(dict.fromkeys(commands))
        if word == "unknown":
            yield Finding("wrong", "permissions", f"the server does not know {listed}", "is it renamed, or too old?")
        else:
            yield Finding("wrong", "permissions", f"this user may not run {listed} on keys that begin with sq:", ACL)


def _queues(facts: Facts) -> Iterator[Finding]:
    for name, stats in facts.queues.items():
        topic = f"queue {name}"
        if stats.paused and stats.waiting:
            yield Finding(
                "warning",
                topic,
                f"paused, with {count(stats.waiting, 'job')} waiting",
                f"streamq resume {name}, when it is time",
            )
        elif stats.waiting and not stats.workers:
            waits = "1 job waits" if stats.waiting == 1 else f"{stats.waiting:,} jobs wait"
            oldest = age(stats.oldest_waiting_age)
            text = f"{waits}, the oldest for {oldest}, and no worker is there"
            yield Finding("warning", topic, text, f"streamq worker --queues {name}")
        if stats.dead:
            yield Finding("note", topic, count(stats.dead, "dead letter"), f"streamq dead {name}")
