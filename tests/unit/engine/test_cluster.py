"""What a cluster's URL may say, and which queues share a slot."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.connection import SSLConnection

from streamq._engine import keys
from streamq._engine.cluster import Nodes, slot_of, urls_of
from streamq._engine.endpoint import Endpoint
from streamq.errors import InvalidInput


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("redis+cluster://a", ["redis://a"]),
        ("redis+cluster://a:7000,b:7001", ["redis://a:7000", "redis://b:7001"]),
        ("rediss+cluster://u:p%40@a,b:1/0?ssl_ca_certs=x", [
            "rediss://u:p%40@a/0?ssl_ca_certs=x", "rediss://u:p%40@b:1/0?ssl_ca_certs=x",
        ]),
        ("redis+cluster://[::1]:7000?client_name=x", ["redis://[::1]:7000?client_name=x"]),
    ],
)  # fmt: skip
def test_a_clusters_url_names_one_node_or_more(url: str, urls: list[str]) -> None:
    assert urls_of(url) == urls


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+cluster://", "it names the nodes of a cluster, as in redis+cluster://host:port,host:port"),
        ("redis+cluster://a,,b", "it names the nodes of a cluster, as in redis+cluster://host:port,host:port"),
        ("redis+cluster://a/3", "a cluster has database 0 alone"),
    ],
)
def test_a_clusters_url_that_makes_no_sense_is_refused(url: str, why: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Endpoint(url, 5.0)
    assert str(raised.value) == f"{url} is no Redis URL: {why}"


async def test_a_clusters_credentials_and_tls_are_taken_over() -> None:
    by_url = Endpoint("rediss+cluster://u:p@a:1,b:2?ssl_cert_reqs=none", 5.0)
    client = RedisCluster.from_url("rediss://u:p@a:1?ssl_cert_reqs=none")
    by_client = Endpoint(client, 5.0)
    for endpoint in (by_url, by_client):
        said = {name: endpoint._options[name] for name in ("username", "password", "ssl_cert_reqs", "socket_timeout")}
        assert said == {"username": "u", "password": "p", "ssl_cert_reqs": "none", "socket_timeout": 5.0}
        assert endpoint._kind is SSLConnection
        assert endpoint.in_cluster
    assert repr(by_url) == "<Endpoint cluster of a:1,b:2 slot 0>"
    assert not Endpoint("redis://a", 5.0).in_cluster


def test_queues_share_a_slot_by_a_common_tag_alone() -> None:
    assert slot_of(keys.base("{bank}reports")) == slot_of(keys.base("{bank}emails")) == slot_of("{bank}")
    assert slot_of(keys.base("reports")) == slot_of("{reports}") != slot_of("{bank}")
    assert keys.lane(keys.base("{bank}reports"), 3) == "sq:{bank}reports:lane:3"


def node(host: Any, port: int) -> list[Any]:
    return [host, port, b"id", []]


@pytest.mark.parametrize(
    ("host", "owner"),
    [(b"b", "b"), (None, "asked"), (b"", "asked"), (b"?", "asked")],
)
def test_a_node_without_a_name_has_the_one_by_which_it_was_reached(host: Any, owner: str) -> None:
    nodes = Nodes([("asked", 1)], 5)
    ranges = [[0, 4, node(b"x", 1)], [5, 16_383, node(host, 7), node(b"replica", 8)]]
    assert nodes._owner(ranges, ("asked", 1)) == (owner, 7)
    assert nodes._places == [(owner, 7), ("asked", 1), ("x", 1), ("replica", 8)]


def test_addresses_are_translated_as_the_client_was_told() -> None:
    nodes = Nodes([("asked", 1)], 5, lambda place: (f"{place[0]}.example", place[1] + 1))
    assert nodes._owner([[0, 16_383, node(b"b", 7)]], ("asked", 1)) == ("b.example", 8)
