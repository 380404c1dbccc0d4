"""A worker's conversation with a server that does not answer."""

from __future__ import annotations

import asyncio
import contextlib

from streamq import Processors, Settings
from streamq._engine import keys
from streamq._engine.endpoint import Endpoint
from streamq._engine.store import Store
from streamq._engine.wire import Wire
from streamq.worker.gathering import Gathering
from streamq.worker.runner import Runner
from streamq.worker.sharing import SharedHoldings, Slots
from streamq.worker.ticker import Ticker

PATIENCE = 30.0


class Hanging:
    """A server that hangs up until `silent` is set, and says nothing to whoever comes afterwards."""

    def __init__(self) -> None:
        self.silent, self.asked, self._over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.silent.is_set() and await reader.read(1):
            self.asked.set()
            await self._over.wait()
        writer.close()

    def end(self) -> None:
        self._over.set()


async def test_a_shard_whose_server_hangs_keeps_one_slot_at_most_from_the_others_once_a_tick_has_failed() -> None:
    hanging, slots = Hanging(), Slots(8)
    server = await asyncio.start_server(hanging.serve, "127.0.0.1", 0)
    settings = Settings(concurrency=8, timeout=2 * PATIENCE)
    endpoint = Endpoint(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", settings.timeout, keys.base("q", 1))
    store, parked = Store("q", Wire(endpoint), settings, shard=1), Wire(endpoint)
    store.on_error = lambda error: hanging.silent.set()
    healthy = SharedHoldings(slots, 3, lambda attempt: None, Gathering(lambda batch: None))
    ticker = Ticker(
        store, parked, lambda ticker: Runner(store, Processors(), settings, ticker.finished), settings, "w", None, slots
    )
    run = asyncio.create_task(ticker.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await hanging.asked.wait()
        assert healthy.room() == 7
    finally:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        hanging.end()
        await asyncio.gather(store.wire.close(), parked.close())
        server.close()
        await server.wait_closed()
