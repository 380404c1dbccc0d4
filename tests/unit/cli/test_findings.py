"""What `streamq doctor` makes of what a server says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamq._engine.scripts import load, names
from streamq.cli.doctor import COMMANDS
from streamq.cli.findings import Facts, Finding, judge
from streamq.policy import Priority
from streamq.queue import QueueStats

ROOT = Path(__file__).resolve().parents[3]
LUA, ACL = ROOT / "lua", ROOT / "deploy" / "redis" / "users.acl"
MB = 1 << 20

INFO = {
    "redis_version": "7.0.15", "redis_mode": "standalone", "role": "master", "connected_slaves": "0", "loading": "0",
    "used_memory": str(10 * MB), "maxmemory": str(100 * MB), "total_system_memory": str(1000 * MB),
    "maxmemory_policy": "noeviction", "aof_enabled": "1", "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok", "rdb_last_bgsave_status": "ok", "connected_clients": "5", "maxclients": "10000",
}  # fmt: skip
HEALTHY = Facts(
    info=INFO, config={"save": "", "appendfsync": "everysec"}, pings=[0.0001, 0.0002, 0.0003], clock_ahead=0.0,
    refused={}, script_error="", queues={},
)  # fmt: skip


def stats(**fields: Any) -> QueueStats:
    counts = ("waiting", "active", "completed", "failed", "delayed", "cancelled", "dead", "workers")
    plain: dict[str, Any] = dict.fromkeys(counts, 0)
    lanes: dict[str, Any] = {"waiting_by_priority": dict.fromkeys(Priority, 0), "oldest_by_priority": {}}
    return QueueStats(**{**plain, "paused": False, "oldest_waiting_age": None, **lanes, **fields})


def found(topic: str, *, info: dict[str, str] | None = None, **fields: Any) -> Finding:
    """Change a healthy server and return the worst finding about `topic`."""
    facts = msgspec.structs.replace(HEALTHY, info={**INFO, **(info or {})}, **fields)
    order = ("ok", "note", "warning", "wrong")
    return max((f for f in judge(facts) if f.topic == topic), key=lambda finding: order.index(finding.level))


def test_a_healthy_server_is_found_so_and_needs_no_advice() -> None:
    findings = judge(HEALTHY)
    assert {finding.level for finding in findings} == {"ok"}
    assert not any(finding.advice for finding in findings)


@pytest.mark.parametrize(
    ("topic", "level", "text", "changes"),
    [
        ("version", "wrong", "Redis 6.2.14 is too old", {"info": {"redis_version": "6.2.14"}}),
        ("version", "ok", "Valkey 9.1.2", {"info": {"redis_version": "7.2.4", "valkey_version": "9.1.2"}}),
        ("cluster mode", "wrong", "one node", {"info": {"redis_mode": "cluster"}}),
        ("cluster mode", "ok", "on; node db:7000", {"info": {"redis_mode": "cluster"}, "node": "db:7000"}),
        ("role", "wrong", "a replica of db:1", {"info": {"role": "slave", "master_host": "db", "master_port": "1"}}),
        ("role", "wrong", "loading", {"info": {"loading": "1"}}),
        ("maxmemory-policy", "wrong", "jobs vanish", {"info": {"maxmemory_policy": "allkeys-lru"}}),
        ("maxmemory-policy", "warning", "would vanish", {"info": {"maxmemory_policy": "any", "maxmemory": "0"}}),
        ("maxmemory-policy", "note", "not told", {"info": {"maxmemory_policy": ""}}),
        ("memory", "warning", "80%", {"info": {"used_memory": str(80 * MB)}}),
        ("memory", "wrong", "96%", {"info": {"used_memory": str(96 * MB)}}),
        ("memory", "wrong", "the machine's memory", {"info": {"used_memory": str(960 * MB), "maxmemory": "0"}}),
        ("memory", "note", "no limit is known", {"info": {"maxmemory": "0", "total_system_memory": "0"}}),
        ("maxmemory", "note", "not set", {"info": {"maxmemory": "0"}}),
        ("persistence", "wrong", "none", {"info": {"aof_enabled": "0"}}),
        ("persistence", "warning", "snapshots only", {"info": {"aof_enabled": "0"}, "config": {"save": "3600 1"}}),
        ("persistence", "warning", "snapshots only:", {"info": {"aof_enabled": "0"}, "config": {}}),
        ("persistence", "warning", "appendfsync no", {"config": {"appendfsync": "no"}}),
        ("persistence", "wrong", "write to the append", {"info": {"aof_last_write_status": "err"}}),
        ("persistence", "wrong", "the last snapshot failed", {"info": {"rdb_last_bgsave_status": "err"}}),
        ("latency", "warning", "20 ms in the middle", {"pings": [0.001, 0.020, 0.5]}),
        ("latency", "wrong", "200 ms in the middle", {"pings": [0.2]}),
        ("clocks", "warning", "2.0 s ahead of", {"clock_ahead": 2.0}),
        ("clocks", "wrong", "2m 0s behind", {"clock_ahead": -120.0}),
        ("connections", "warning", "9,000 of 10,000", {"info": {"connected_clients": "9000"}}),
        ("permissions", "wrong", "may not run XGROUP CREATE, GET on", {"refused": {"XGROUP CREATE @ w 0": "refused",
                                                                              "GET @": "refused"}}),
        ("permissions", "wrong", "does not know XACK", {"refused": {"XACK @ w 1-0": "unknown"}}),
        ("scripts", "wrong", "NOPERM", {"script_error": "Redis refused: NOPERM no"}),
        ("queue q", "warning", "3 jobs wait, the oldest for 5.0 s, and no worker", {
            "queues": {"q": stats(waiting=3, oldest_waiting_age=5.0)}}),
        ("queue q", "warning", "paused, with 1 job waiting", {"queues": {"q": stats(waiting=1, paused=True)}}),
        ("queue q", "note", "2 dead letters", {"queues": {"q": stats(dead=2)}}),
    ],
)  # fmt: skip
def test_what_is_not_well_is_told_and_what_to_do(topic: str, level: str, text: str, changes: dict[str, Any]) -> None:
    finding = found(topic, **changes)
    assert finding.level == level
    assert text in finding.text
    assert bool(finding.advice) == (level != "ok")


def test_a_queue_that_is_served_or_empty_is_not_told_of() -> None:
    facts = msgspec.structs.replace(
        HEALTHY, queues={"a": stats(), "b": stats(waiting=3, workers=1), "c": stats(paused=True)}
    )
    assert judge(facts) == judge(HEALTHY)


def test_what_a_user_may_not_ask_is_left_out_and_said() -> None:
    facts = msgspec.structs.replace(HEALTHY, info={}, config={}, pings=[], clock_ahead=None)
    assert [(finding.level, finding.topic) for finding in judge(facts)] == [("note", "server"), ("ok", "permissions")]


def test_the_permissions_asked_for_are_all_that_the_scripts_use() -> None:
    """A script that calls another command makes `doctor` ask for that one too."""
    source = "\n".join(script.read_text() for script in LUA.rglob("*.lua"))
    calls = re.findall(r"redis\.p?call\(([^,)]*)", source)
    called = {name for call in calls for name in re.findall(r"'([A-Z]+)'", call)}
    called |= {" ".join(words) for words in re.findall(r"'(XGROUP|XINFO)', '([A-Z]+)'", source)}
    asked = {" ".join(command.split()[:n]) for command in COMMANDS for n in (1, 2)}
    assert len(called) > 40
    assert called - asked == set()


READS = set(re.findall(r"^\| `(\w+)` \| reads \|", (ROOT / "docs" / "state-machine.md").read_text(), re.MULTILINE))
ROLES = {
    "producer": {"add", "stage", "commit", "get", "stats", "children", "flow", "schedule", "schedules", "cancel"},
    "worker": set(names()),
    "operator": set(names()) - {"tick"},
    "viewer": READS - {"permissions"},
}
"""The transitions that the users of deploy/redis/users.acl are for."""
_WRITES = """
del hdel hincrby hset hsetnx incr incrby lpop lpush lrem ltrim persist pexpire rpop rpush set unlink xack xadd xclaim
xdel xgroup|create xgroup|delconsumer xgroup|setid xreadgroup xsetid xtrim zadd zincrby zrem zremrangebyrank zunionstore
"""
WRITES = set(_WRITES.split())
"""They stand in libraries that reading scripts include, too, and are not called by these."""


def called_by(script: str) -> set[str]:
    """The commands that a script calls by name, as an ACL writes them."""
    found = set()
    for first, second in re.findall(r"redis\.p?call\(([^,)]*)(?:, '([A-Z]+)')?", load(script).body):
        for word in re.findall(r"'([A-Z]+)'", first):
            found.add((f"{word}|{second}" if word in ("XGROUP", "XINFO", "OBJECT") else word).lower())
    return found


@pytest.mark.parametrize("role", ROLES)
def test_the_users_of_the_deployment_may_run_all_that_their_scripts_call(role: str) -> None:
    """A script that calls another command wants it in deploy/redis/users.acl, too."""
    (rules,) = (line for line in ACL.read_text().splitlines() if line.startswith(f"user {role} "))
    allowed = set(re.findall(r"\+([a-z|]+)", rules))
    called = {command for script in ROLES[role] for command in called_by(script)}
    assert called - allowed - (WRITES if role == "viewer" else set()) == set()
    assert role != "viewer" or not allowed & WRITES
    if role == "worker":
        asked = {command.split()[0].lower() for command in COMMANDS}
        assert asked - {command.split("|")[0] for command in allowed} == set()
