"""permissions: asks the server which commands a user may run, and runs none of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from streamq import Settings
from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.wire import Wire
from streamq.errors import StoreRefused
from tests.lua.conftest import Bench

USER = "limited"


@pytest.fixture
async def limited(bench: Bench, redis_url: str) -> AsyncIterator[Store]:
    """The bench's queue as another user sees it, who may run scripts and reads on its keys."""
    bench.redis.acl_setuser(USER, enabled=True, passwords=["+pw"], reset=True)
    allow(bench, "~sq:*", "+@scripting", "+@read", "+@connection")
    separator = "&" if "?" in redis_url else "?"
    wire = Wire(Endpoint(f"{redis_url}{separator}username={USER}&password=pw", 5.0))
    yield Store("q", wire, Settings())
    await wire.close()
    bench.redis.acl_deluser(USER)


def allow(bench: Bench, *rules: str) -> None:
    bench.redis.execute_command("ACL", "SETUSER", USER, *rules)


async def test_a_user_who_may_do_all_is_refused_nothing_and_nothing_is_run(bench: Bench) -> None:
    assert await bench.store.permissions(["SET @ v", "DEL @", "XADD @ * f v", "TIME"]) == {}
    assert bench.dump() == {}


async def test_commands_that_are_refused_are_told(limited: Store) -> None:
    assert await limited.permissions(["GET @", "SET @ v", "XGROUP CREATE @ w 0"]) == {
        "SET @ v": "refused", "XGROUP CREATE @ w 0": "refused",
    }  # fmt: skip


async def test_a_subcommand_may_be_refused_where_another_one_is_not(bench: Bench, limited: Store) -> None:
    allow(bench, "+xgroup|create")
    commands = ["XGROUP CREATE @ w 0", "XGROUP DELCONSUMER @ w c"]
    assert await limited.permissions(commands) == {"XGROUP DELCONSUMER @ w c": "refused"}


async def test_a_command_that_the_server_does_not_know_is_told(bench: Bench) -> None:
    assert await bench.store.permissions(["NOSUCH @", "GET @"]) == {"NOSUCH @": "unknown"}


@pytest.mark.parametrize("rules", [("resetkeys", "~other:*"), ("-eval", "-evalsha")], ids=["keys", "scripts"])
async def test_a_user_who_may_run_no_script_on_the_queue_is_refused(
    bench: Bench, limited: Store, rules: Sequence[str]
) -> None:
    allow(bench, *rules)
    with pytest.raises(StoreRefused, match="NOPERM"):
        await limited.permissions(["GET @"])
