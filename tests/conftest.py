"""Where the tests get their servers: real ones, one per pytest process, empty at the start of each test."""

from __future__ import annotations

import gc
import logging
import os
import re
import warnings
from collections.abc import Iterator

import pytest
import redis

from streamq.errors import ServerNotFound
from tests.servers import RedisServer

LOST = ("exception was never retrieved", "was destroyed but it is pending")


@pytest.fixture(scope="session")
def shared_server_url() -> Iterator[str]:
    """A server for the whole run of this pytest process: named, found, or in a container; else the test is skipped.

    Tests use `redis_url` instead, which empties it.
    """
    named = os.environ.get("STREAMQ_TEST_REDIS_URL")
    if named:
        yield _own_database(named)
        return
    try:
        server = RedisServer()
    except ServerNotFound as error:
        yield from _container(str(error))
        return
    with server:
        yield server.url


@pytest.fixture
def redis_url(shared_server_url: str) -> str:
    """The address of an empty database that no other test uses at the same time."""
    with redis.Redis.from_url(shared_server_url) as client:
        client.flushdb()
    return shared_server_url


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, on a TCP port and durable to the last command, to kill and freeze at will."""
    try:
        own = RedisServer(port=0, always=True)
    except ServerNotFound as error:
        pytest.skip(str(error))
    with own:
        yield own


@pytest.fixture(autouse=True)
def no_lost_exception(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that talks to a server and leaves a task's exception, or a task, to the garbage collector."""
    if not {"redis_url", "server", "shared_server_url"} & set(request.fixturenames):
        yield
        return
    heard = _Heard()
    logger = logging.getLogger("asyncio")
    logger.addHandler(heard)
    try:
        yield
        gc.collect()  # the message is logged when the task is collected, after its loop has closed
    finally:
        logger.removeHandler(heard)
    lost = [text for text in heard.texts if any(words in text for words in LOST)]
    if lost:
        pytest.fail("left behind: " + "; ".join(lost), pytrace=False)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


def _own_database(url: str) -> str:
    """Give each process of a parallel run a database of its own on a server that they share."""
    process = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "0")))
    if process == 0:
        return url
    with redis.Redis.from_url(url) as client:
        first = int(client.get_connection_kwargs().get("db") or 0)
    base, _, query = url.partition("?")
    if base.startswith("unix:"):
        return f"{base}?db={first + process}"
    return re.sub(r"^(\w+://[^/]+).*", rf"\1/{first + process}", base) + (f"?{query}" if query else "")


def _container(reason: str) -> Iterator[str]:
    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer

    container, refusal = None, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker drops a socket when nothing answers
        try:
            container = DockerContainer("valkey/valkey:8-alpine").with_exposed_ports(6379).start()
        except DockerException as error:
            refusal = str(error)
        gc.collect()
    if container is None:
        pytest.skip(f"{reason}; and no Docker engine answers: {refusal}")
    try:
        url = f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
        retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100)
        with redis.Redis.from_url(url, retry=retry, retry_on_error=[redis.ConnectionError]) as client:
            client.ping()
        yield url
    finally:
        container.stop()
