"""What must be true of a queue's keys at any time, whatever was done to it: looked up in Redis, past the scripts."""

from __future__ import annotations

from collections import Counter

import redis

from tests.lua.key_table import strays
from tests.lua.places import misplaced

LANES = (1, 2, 3, 4)
SPARE = "spare"
SETS = {"d": "delayed", "c": "completed", "f": "failed", "x": "cancelled", "w": "waiting_children"}


def faults(client: redis.Redis, base: str) -> list[str]:
    """Return what contradicts itself, or docs/keys.md."""
    found = [stray for stray in strays(client) if not stray.startswith("test:")]
    places: Counter[str] = Counter()
    in_lanes: dict[str, tuple[int, str]] = {}
    leases = {name.decode() for name in client.zrange(f"{base}:workers", 0, -1)}
    spare = 0
    for lane in LANES:
        key = f"{base}:lane:{lane}"
        entries = {entry.decode(): fields for entry, fields in client.xrange(key)}
        pending = _pending(client, key)
        found += [f"{entry} of lane {lane} is pending and not there" for entry in pending if entry not in entries]
        spare += sum(who == SPARE for who in pending.values())
        for entry, who in pending.items():
            if who != SPARE and who not in leases:
                found.append(f"{entry} of lane {lane} is held by {who}, whom no lease speaks for")
        for entry, fields in entries.items():
            job_id = fields.get(b"j", entry.partition("-")[0].encode()).decode()
            places[job_id] += 1
            in_lanes[job_id] = lane, entry
            if b"d" not in fields and not client.hexists(f"{base}:job:{job_id}", "d"):
                found.append(f"job {job_id} has no envelope")
    members = {state: {m.decode() for m in client.zrange(f"{base}:{name}", 0, -1)} for state, name in SETS.items()}
    for ids in members.values():
        places.update(ids)
    records = _records(client, base)
    for job_id, record in records.items():
        state = record.get("s", "")
        if state == "q":
            if in_lanes.get(job_id) != (int(record["p"]), record["e"]):
                found.append(f"job {job_id} says that it is in lane {record['p']} under {record['e']}; it is not")
        elif state != "p" and job_id not in members.get(state, ()):
            found.append(f"job {job_id} says that its state is {state!r}; that set does not hold it")
        places[job_id] += state == "p"
    found += [f"job {job_id} is in {count} places" for job_id, count in places.items() if count > 1]
    found += misplaced(client, base)
    for state, ids in members.items():
        found += [f"{SETS[state]} holds {job_id}, which has no record" for job_id in ids if job_id not in records]
    for kind in ("log", "steps", "children"):
        for key in client.scan_iter(match=f"{base}:{kind}:*"):
            if key.decode().partition(f":{kind}:")[2] not in records:
                found.append(f"{key.decode()} belongs to no record")
    found += _unique_keys(client, base, records)
    found += [fault for job_id in records for fault in _children(client, base, job_id, records[job_id])]
    if spare and not int(client.hget(f"{base}:meta", "spare") or 0):
        found.append(f"{spare} claims that were given back are known to nobody")
    if client.llen(f"{base}:wake") > 1:
        found.append("there is more than one wake token")
    return found


def _unique_keys(client: redis.Redis, base: str, records: dict[str, dict[str, str]]) -> list[str]:
    """Who holds a key lives, unless it outlives its job for a time; who is next waits for it, as delayed."""
    found = []
    for kind in ("unique", "next"):
        for key in client.scan_iter(match=f"{base}:{kind}:*"):
            name, job_id = key.decode().partition(f":{kind}:")[2], client.get(key).decode()
            record = records.get(job_id)
            if record is None and (kind == "next" or client.pttl(key) < 0):
                found.append(f"{kind} key {name} is of job {job_id}, which is gone")
            elif record is not None and record.get("uk") != name:
                found.append(f"{kind} key {name} is of job {job_id}, whose key is {record.get('uk')}")
            elif record is not None and record["s"] in "cf" and record["uw"] != "k":
                found.append(f"{kind} key {name} is of job {job_id}, which has ended")
            elif kind == "next" and record is not None and record["s"] != "d":
                found.append(f"job {job_id} is next for key {name}, and its state is {record['s']}")
    return found


def _children(client: redis.Redis, base: str, job_id: str, record: dict[str, str]) -> list[str]:
    """A parent's count of open children is that of its list; one that waits for none does not wait."""
    told = {field.decode(): value for field, value in client.hgetall(f"{base}:children:{job_id}").items()}
    had, left = int(record.get("fn", 0)), int(record.get("fo", 0))
    ended = sum(field.startswith("e") for field in told)
    found = []
    if left != had - ended:
        found.append(f"job {job_id} has {had} children of which {ended} have ended, and counts {left} open")
    if record.get("s") == "w" and not left:
        found.append(f"job {job_id} waits for children, and none is open")
    return found


def _pending(client: redis.Redis, key: str) -> dict[str, str]:
    if not client.exists(key) or not client.xinfo_groups(key):
        return {}
    found = client.xpending_range(key, "w", "-", "+", 10_000)
    return {item["message_id"].decode(): item["consumer"].decode() for item in found}


def _records(client: redis.Redis, base: str) -> dict[str, dict[str, str]]:
    found = {}
    for key in client.scan_iter(match=f"{base}:job:*", count=1000):
        record = client.hgetall(key)
        name = key.decode().partition(":job:")[2]
        found[name] = {field.decode(): value.decode("utf-8", "replace") for field, value in record.items()}
    return found
