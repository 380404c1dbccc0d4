"""Confirms that what was written has reached the disk, and replicas if asked, before an add returns.

WAIT and WAITAOF speak of what their own connection has sent, and block it meanwhile, so durable adds have a connection
of their own.
"""

from __future__ import annotations

import hiredis

from streamq._engine.store import Store
from streamq.errors import StoreRefused, StoreUnavailable


class Confirmation:
    """What one server can confirm, found out once per connection."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked_at = -1
        self._disk = self._always = False

    async def prepare(self) -> None:
        """Find out what the server can confirm.

        Raises:
            StoreRefused: Nothing at all, so durability can't be promised.
            StoreUnavailable: It did not answer.
        """
        store, replicas = self._store, self._store.settings.durable_replicas
        if not store.wire.is_open or self._asked_at != store.wire.connects:
            known = await store.command("COMMAND", "INFO", "WAITAOF")
            has_aof = b"aof_enabled:1" in await store.command("INFO", "persistence")
            self._disk = has_aof and bool(known and known[0])
            self._always = has_aof and await self._fsyncs_always()
            self._asked_at = store.wire.connects
        if not (self._disk or self._always or replicas):
            raise StoreRefused(
                "durable=True: this Redis can't confirm a write to disk (it needs appendonly yes, and Redis 7.2 or "
                "Valkey for WAITAOF, or appendfsync always), and STREAMQ_DURABLE_REPLICAS asks for no replica"
            )

    async def _fsyncs_always(self) -> bool:
        try:
            answer = await self._store.command("CONFIG", "GET", "appendfsync")
        except StoreRefused:
            return False  # a managed server that hides its configuration
        return bool(answer) and answer[-1] == b"always"

    async def confirm(self) -> None:
        """Wait until what this connection has sent is safe.

        Raises:
            StoreUnavailable: That was not confirmed in time; the write stands where it is.
        """
        store = self._store
        replicas, within = store.settings.durable_replicas, store.settings.durable_timeout
        if self._disk:
            reply = await store.wire.call("WAITAOF", 1, replicas, round(within * 1000), wait=within)
        elif replicas:
            reply = await store.wire.call("WAIT", replicas, round(within * 1000), wait=within)
            reply = reply if isinstance(reply, hiredis.ReplyError) else [1, reply]
        else:
            return  # appendfsync always: the reply came after the disk
        if isinstance(reply, hiredis.ReplyError):
            raise StoreUnavailable(f"the jobs were added, but Redis can't confirm them: {reply}")
        if reply[0] < 1 or reply[1] < replicas:
            raise StoreUnavailable(
                f"the jobs were added, but within {within:g} s only this much was confirmed: "
                f"disk {'yes' if reply[0] else 'no'}, {reply[1]} of {replicas} replicas"
            )
