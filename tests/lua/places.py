"""What must hold of keys, their places and their parked jobs, whatever has happened; told by reading all of Redis."""

from __future__ import annotations

from collections import Counter

import redis

LANES = (1, 2, 3, 4)


def misplaced(client: redis.Redis, base: str) -> list[str]:
    """Say which places, parked jobs, counts, turns and looks contradict the records."""
    meta = _hash(client, f"{base}:meta")
    records = {
        key.decode().partition(":job:")[2]: _hash(client, key) for key in client.scan_iter(match=f"{_glob(base)}:job:*")
    }
    keyed = {job_id: record for job_id, record in records.items() if "ky" in record}
    keys = {record["ky"] for record in keyed.values()} | set(_scores(client, f"{base}:keys"))
    found: list[str] = []
    parked_by_lane: Counter[int] = Counter()
    for key in sorted(keys):
        its_own = {job_id: record for job_id, record in keyed.items() if record["ky"] == key}
        found += _of_key(client, base, key, its_own, meta, parked_by_lane)
    for lane in LANES:
        counted = int(meta.get(f"parked_{lane}", 0))
        if counted != parked_by_lane[lane]:
            found.append(f"meta counts {counted} parked jobs in lane {lane}, not {parked_by_lane[lane]}")
        for key in set(_scores(client, f"{base}:turns:{lane}")) - keys:
            found.append(f"turns:{lane} holds {key}, which has no jobs")
    return found


def _of_key(
    client: redis.Redis,
    base: str,
    key: str,
    jobs: dict[str, dict[str, str]],
    meta: dict[str, str],
    parked_by_lane: Counter[int],
) -> list[str]:
    found = []
    places = _scores(client, f"{base}:places:{key}")
    held = {job_id for job_id, job in jobs.items() if job["s"] == "q"}
    found += [f"{key}: job {job_id} is in its lane without a place" for job_id in held - set(places)]
    for job_id, lane in places.items():
        job = jobs.get(job_id)
        if job is None or job["s"] not in ("q", "d"):
            found.append(f"{key}: {job_id} has a place, but neither waits, runs nor is to be retried: {job}")
        elif int(job["p"]) != lane:
            found.append(f"{key}: the place of {job_id} says lane {lane}, its record {job['p']}")
    parked: Counter[int] = Counter()
    for lane in LANES:
        items = [item.decode() for item in client.lrange(f"{base}:parking:{lane}:{key}", 0, -1)]
        known = set(items)
        there = Counter(
            job_id for job_id, job in jobs.items()
            if job["s"] == "p" and int(job["p"]) == lane and (job["e"] in known or f"{job['e']}:{job_id}" in known)
        )  # fmt: skip
        parked[lane] = there.total()
        if len(set(items)) != len(items):
            found.append(f"{key}: an item is parked twice in lane {lane}: {items}")
    lost = sum(1 for job in jobs.values() if job["s"] == "p") - parked.total()
    if lost:
        found.append(f"{key}: {lost} jobs say that they are parked, and are not")
    parked_by_lane.update(parked)
    counted = client.zscore(f"{base}:keys", key)
    if (counted or 0) != len(places) + parked.total():
        found.append(f"{key}: counted as {counted} jobs; {len(places)} have a place, {parked.total()} are parked")
    if counted == 0 and not client.exists(f"{base}:key:{key}"):
        found.append(f"{key}: counted at 0 without settings")
    return found + _not_found(client, base, key, places, parked, meta)


def _not_found(
    client: redis.Redis, base: str, key: str, places: dict[str, int], parked: Counter[int], meta: dict[str, str]
) -> list[str]:
    """Say what of a key's parked jobs no worker would find, though they may run."""
    own = _hash(client, f"{base}:key:{key}")
    most = int(own.get("active", meta.get("key_active", 10**9)))
    weight = int(own.get("weight", meta.get("key_weight", 1)))
    rated = "rate_max" in own or "key_rate_max" in meta
    looked_at = client.zscore(f"{base}:key_looks", key) is not None
    may = "paused" not in own and len(places) < most and not looked_at
    found = []
    for lane in LANES:
        waits = client.zscore(f"{base}:turns:{lane}", key) is not None
        in_lane = sum(1 for at in places.values() if at == lane)
        if parked[lane] and may and not waits:
            found.append(f"{key}: {parked[lane]} jobs are parked in lane {lane}, and it has no turn")
        if parked[lane] and may and in_lane < weight and not rated:
            found.append(f"{key}: {parked[lane]} jobs are parked in lane {lane}, though it has but {in_lane} places")
        # A turn stays if the key's last free place goes to a job that comes in: the claim that meets it takes it out.
        if waits and "paused" in own:
            found.append(f"{key}: has a turn in lane {lane}, though it is paused")
    return found


def _hash(client: redis.Redis, key: str | bytes) -> dict[str, str]:
    return {name.decode(): value.decode("utf-8", "replace") for name, value in client.hgetall(key).items()}


def _scores(client: redis.Redis, key: str) -> dict[str, int]:
    return {member.decode(): int(score) for member, score in client.zrange(key, 0, -1, withscores=True)}


def _glob(base: str) -> str:
    return base.replace("[", "\\[").replace("*", "\\*").replace("?", "\\?")
