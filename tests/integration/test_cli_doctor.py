"""`streamq doctor` on real servers, well and badly set up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamq.cli.findings import ACL
from tests.faults.clusters import Cluster, slot_of
from tests.integration.cli import Cli, CliWorker, Done
from tests.servers import RedisServer

DOCS = Path(__file__).resolve().parents[2] / "docs"


def levels(done: Done) -> dict[str, str]:
    """The level of each finding, by topic."""
    return {finding["topic"]: finding["level"] for finding in done.records}


def test_a_server_that_is_set_up_well_is_found_so(redis_url: str, tmp_path: Path) -> None:
    cli = Cli(redis_url, tmp_path)
    done = cli("doctor", "q", "--json")
    assert "wrong" not in levels(done).values()
    assert levels(done) | {"maxmemory-policy": "ok", "persistence": "ok", "permissions": "ok"} == levels(done)
    assert cli("doctor", "q").out.splitlines()[0].split() == ["WHAT", "HOW", "IT", "IS"]
    cli("add", "q", "work")
    warned = cli("doctor", "q", "--strict", code=1)
    assert "1 job waits" in warned.out
    assert "queue q: streamq worker --queues q" in warned.out
    assert levels(cli("doctor", "q", "--json"))["queue q"] == "warning"


def test_what_loses_jobs_is_wrong_and_ends_with_1(server: RedisServer, tmp_path: Path) -> None:
    for setting in (("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no"), ("save", "")):
        server.call("CONFIG", "SET", *setting)
    done = Cli(server.url, tmp_path)("doctor", "q", "--json", code=1)
    wrong = {topic for topic, level in levels(done).items() if level == "wrong"}
    assert wrong == {"maxmemory-policy", "persistence"}
    assert "CONFIG SET appendonly yes" in Cli(server.url, tmp_path)("doctor", "q", code=1).out


def test_a_cluster_is_fit_by_its_own_address_and_not_by_that_of_a_node(tmp_path: Path) -> None:
    with Cluster() as cluster:
        done = Cli(cluster.cluster_url, tmp_path)("doctor", "q", "--json")
        three = Cli(cluster.cluster_url, tmp_path)("doctor", "a", "b", "c", "--json")
        nodes = {cluster.owner(slot_of(f"sq:{{{name}}}")).port for name in "abc"}
        owner = cluster.owner(slot_of("sq:{q}"))
        other = next(node for node in cluster.nodes if node.is_primary and node is not owner)
        by_node = Cli(other.url, tmp_path)("doctor", "q", "--json", code=1)
    assert levels(done)["cluster mode"] == "ok"
    assert f"127.0.0.1:{owner.port}" in done.out
    assert all(f"on; node 127.0.0.1:{port}" in three.out for port in nodes)
    assert len(nodes) == three.out.count("on; node")
    assert levels(by_node)["cluster mode"] == "wrong"
    assert "redis+cluster://" in by_node.out
    assert levels(by_node)["scripts"] == "wrong"


def as_user(server: RedisServer, folder: Path, *rules: str) -> Cli:
    server.call("ACL", "SETUSER", "jobs", "reset", "on", ">pw", *rules)
    return Cli(f"redis://jobs:pw@127.0.0.1:{server.port}/0", folder)


def test_the_documented_permissions_are_enough_for_all(server: RedisServer, tmp_path: Path) -> None:
    (documented,) = re.findall(r"^ACL SETUSER jobs on >password (.*)$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert f"ACL SETUSER <user> {documented}" == ACL
    cli = as_user(server, tmp_path, *documented.split())
    assert levels(cli("doctor", "q", "--json"))["permissions"] == "ok"
    with CliWorker(cli) as worker:
        assert cli("add", "q", "echo", "1", "--wait").out == "1\n"
        assert cli("add", "q", "fails", '"no"', "--wait", code=1).out == ""
        for words in (
            ("stats", "q"), ("workers", "q"), ("dead", "q"), ("top", "q", "--once"), ("limits", "q"), ("job", "q", "2"),
            ("logs", "q", "2"), ("events", "q", "--after", "0-0", "-n", "2"), ("jobs", "q", "-s", "failed"),
            ("retry", "q", "2"), ("pause", "q"), ("drain", "q", "--delayed", "--yes"), ("purge", "q", "--all", "--yes"),
        ):  # fmt: skip
            cli(*words)
        assert worker.stop() == 0
    server.call("ACL", "SETUSER", "jobs", "+config|get")
    assert cli("add", "q", "echo", "1", "--durable").code == 0


@pytest.mark.parametrize(
    ("rules", "topic", "text"),
    [
        (("~sq:*", "+@all", "-xadd", "-xgroup|create"), "permissions", "may not run XADD, XGROUP CREATE on keys"),
        (("~sq:*", "+@all", "-time"), "permissions", "may not run TIME on keys"),
        (("~other:*", "+@all"), "scripts", "NOPERM"),
        (("~*", "+@all", "-@scripting"), "scripts", "NOPERM"),
        (("~*", "+ping"), "scripts", "NOPERM"),
    ],
)
def test_permissions_that_are_missing_are_told(
    server: RedisServer, tmp_path: Path, rules: tuple[str, ...], topic: str, text: str
) -> None:
    done = as_user(server, tmp_path, *rules)("doctor", "q", "--json", code=1)
    (finding,) = [finding for finding in done.records if finding["topic"] == topic]
    assert finding["level"] == "wrong"
    assert text in finding["text"]
    assert finding["advice"] == ACL
