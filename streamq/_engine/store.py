"""One queue in Redis: a method per transition, all of them through one point.

That point loads scripts that the server has lost, repeats what is safe to repeat while Redis is away, tells errors
that pass from errors that stay, and informs an observer. Everything here is safe to repeat: reads, moves that check
first, and adds, which carry a number that the server remembers. Only `tick` is not: the worker repeats it, since it
knows what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

import hiredis

from streamq._engine import keys, scripts
from streamq._engine.cluster import slot_of
from streamq._engine.flowing import FlowTransitions
from streamq._engine.key_limits import KeyTransitions
from streamq._engine.operators import UNCHANGED as UNCHANGED
from streamq._engine.operators import OperatorTransitions
from streamq._engine.scheduling import ScheduleTransitions
from streamq._engine.transitions import Arg, NewJob, Outcome, Renewal, TickArgs, TickReply
from streamq._engine.wire import Wire
from streamq.errors import DuplicateJob, InvalidInput, QueueFull, StoreError, StoreRefused, StoreUnavailable
from streamq.job import queue_name
from streamq.observer import NOBODY, ErrorHandler, Observer, tell, tell_nobody
from streamq.payload import PLAIN, Codec
from streamq.settings import Settings

log = logging.getLogger("streamq.store")

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between repeats while Redis is away: from, up to."""

PASSING = ("LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "UNKILLABLE")
"""Redis errors that pass by themselves, and before which nothing was written."""
ELSEWHERE = ("MOVED ", "ASK ", "CROSSSLOT")
"""What a node of a cluster says when another one serves a slot, or will."""


FULL, REFUSED = -4, -5
"""How `add` and `commit` begin a reply that says that the queue has no room, or that a unique key is held."""


class Store(OperatorTransitions, ScheduleTransitions, FlowTransitions, KeyTransitions):
    """One queue's transitions. Wires are the owner's to close."""

    def __init__(
        self, queue: str, wire: Wire, settings: Settings, observer: Observer = NOBODY, shard: int | None = None
    ) -> None:
        self.queue, self.shard = queue_name(queue), shard
        self.base = keys.base(queue, shard or 0)
        self.wire = wire
        self.settings = settings
        self.observer = observer
        self.on_error: ErrorHandler = tell_nobody
        """Told of trouble that no caller hears of: what reads, waits and ticks in the background meets it."""
        self.codec: Codec = PLAIN
        """Between encoded payloads and Redis; whoever encodes and decodes them goes by it."""
        self._bound = False
        """Whether the queue has had bound jobs, as far as ticks have told."""
        self.script_reloads = 0
        """How many scripts the server had lost."""

    def check_alone(self, queues: Iterable[str | None]) -> None:
        """Make sure that a flow of a queue with shards has no jobs in others: they would not find its shard again.

        Raises:
            InvalidInput: One has; nothing was sent.
        """
        for queue in queues if self.shard is not None else ():
            if queue not in (None, self.queue):
                raise InvalidInput(f"a flow of queue {self.queue}, which has shards, can't have jobs in {queue}")

    def check_reach(self, queues: Iterable[str], what: str) -> None:
        """Make sure that scripts of this queue reach those, too: always, but in a cluster only within one slot.

        Raises:
            InvalidInput: One is in another slot; `what` can't be done then, and nothing was sent.
        """
        if not self.wire.in_cluster:
            return
        mine = slot_of(self.base)
        for queue in queues:
            if slot_of(keys.base(queue)) != mine:
                raise InvalidInput(
                    f"{what} stays within one hash slot of a Redis Cluster, and queues {self.queue!r} and {queue!r} "
                    "are in two: give their names a common tag, such as '{bank}reports' and '{bank}emails'"
                )

    def beside(self, queue: str) -> Store:
        """Return the store of another queue on the same server and wire."""
        found = Store(queue, self.wire, self.settings, self.observer)
        found.codec = self.codec
        return found

    # Producers --------------------------------------------------------------------------------------------------------

    async def add(
        self, nonce: str, number: int, jobs: Sequence[NewJob], *, within: float, all_or_none: bool = False
    ) -> list[Any]:
        """Add jobs; see `lua/add.lua` for the reply. The same nonce and number add once.

        Raises:
            QueueFull: None was added.
            DuplicateJob: None was added, since one is refused its unique key (only with `all_or_none`).
        """
        args: list[Arg] = [nonce, number, self.settings.events_cap, int(all_or_none)]
        for job in jobs:
            args.extend(job)
        bound = any(type(job.start) is bytes for job in jobs)
        call = self._persist(lambda: self._lean("add", args, self.wire, bound=bound), within)
        return self._if_taken(await self._observed("add", call))

    async def stage(self, batch: str, before: int, jobs: Sequence[NewJob]) -> None:
        """Hold part of a large batch aside; `before` is the number of parts staged before this one."""
        args: list[Arg] = [batch, before]
        for job in jobs:
            args.extend(job)
        await self._repeat("stage", args)

    async def commit(self, nonce: str, number: int, batch: str, parts: int | None) -> list[Any]:
        """Move a part of a staged batch into the queue; see `lua/commit.lua` for the reply."""
        args: list[Arg] = [nonce, number, self.settings.events_cap, batch, "" if parts is None else parts]
        return self._if_taken(await self._repeat("commit", args))

    def _if_taken(self, reply: list[Any]) -> list[Any]:
        if reply[0] == FULL:
            raise QueueFull(self.queue, reply[1], reply[2])
        if reply[0] == REFUSED:
            raise DuplicateJob(reply[2].decode(), reply[3].decode())
        return reply

    # Workers ----------------------------------------------------------------------------------------------------------

    async def tick(
        self,
        args: TickArgs,
        want: int,
        outcomes: Sequence[Outcome],
        *,
        list_held: bool = False,
        marks: Sequence[str] = (),
    ) -> TickReply:
        """Settle, renew, sweep, promote and claim in one call. Never repeated here."""
        laid_out = args.lay_out(want, list_held=list_held, marks=marks, outcomes=outcomes)
        return self._ticked(await self._observed("tick", self._lean("tick", laid_out, self.wire, bound=self._bound)))

    async def park(self, wire: Wire, args: TickArgs, want: int, *, block: float) -> TickReply:
        """Wait up to `block` seconds for the queue's wake token and tick in the very moment it comes, or after `block`.

        Both commands go out in one write on `wire`, which blocks meanwhile. Never repeated here.
        """
        if wire.client_id is None or not wire.is_open:
            wire.client_id = await wire.call("CLIENT", "ID")
        script = scripts.load("tick", plain=not self._bound)
        laid_out = args.lay_out(want, list_held=False, marks=(), outcomes=())
        token, reply = await wire.pipeline(
            ("BLPOP", keys.wake(self.base), f"{block:.3f}"),
            ("EVALSHA", script.sha, 1, self.base, *laid_out),
            wait=block,
        )
        if isinstance(token, hiredis.ReplyError) and str(token).startswith("WRONGTYPE"):
            log.warning("queue %s: its wake token's key was of another type, and is made anew", self.queue)
            await self.wake()  # which mends it
            token = None
        for answer in (token, reply):
            if isinstance(answer, hiredis.ReplyError) and not str(answer).startswith(("NOSCRIPT", scripts.NEEDS_BONDS)):
                raise refusal(answer, wire)
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith("NOSCRIPT"):
                self._note_reload()
            reply = await self._lean("tick", laid_out, wire, bound=self._bound)
        return self._ticked(reply)

    def _ticked(self, reply: Any) -> TickReply:
        found = TickReply.read(reply)
        self._bound = found.bound
        return found

    async def unblock(self, wire: Wire) -> None:
        """Make the tick that is parked on `wire` run now, as if its time were up. Best effort."""
        if wire.client_id is None:
            return
        if self.wire.is_open and self.wire.place != wire.place:
            wire.drop("the queue has moved to another server")  # where somebody else may have this number
        else:
            await self.command("CLIENT", "UNBLOCK", wire.client_id)

    async def renew(self, worker: str, lease_ms: int, *, block: float = 0.0) -> Renewal:
        """Renew a worker's lease, after waiting up to `block` seconds for a request to cancel a job that it runs.

        The wait and the renewal go out in one write. Not repeated: the caller does this on a beat.
        """
        if block <= 0:
            return Renewal.read(await self._observed("renew", self._once("renew", [worker, lease_ms], self.wire)))
        script = scripts.load("renew")
        token, reply = await self.wire.pipeline(
            ("BLPOP", keys.control(self.base, worker), f"{block:.3f}"),
            ("EVALSHA", script.sha, 1, self.base, worker, lease_ms),
            wait=block,
        )
        if isinstance(token, hiredis.ReplyError) or isinstance(reply, hiredis.ReplyError):
            return await self.renew(worker, lease_ms)  # the script is lost, or whatever it is will say so again
        return Renewal.read(reply)

    async def leave(self, worker: str) -> int:
        """Sign a worker off; returns how many jobs it still held, which then go to others at once."""
        return int(await self._repeat("leave", [worker]))

    async def progress(self, lane: int, entry: str, job_id: str, value: bytes) -> bool:
        """Store how far an active job is; False if the lease has moved on."""
        return bool(await self._repeat("progress", [lane, entry, job_id, value, self.settings.events_cap]))

    async def log(self, lane: int, entry: str, job_id: str, line: str) -> bool:
        """Add a line to an active job's log; False if the lease has moved on."""
        caps = self.settings.log_cap, self.settings.events_cap
        return bool(await self._repeat("log", [lane, entry, job_id, line, *caps]))

    async def recall(self, lane: int, entry: str, job_id: str) -> dict[str, bytes] | None:
        """Read what earlier attempts of an active job have remembered, by field; None if the lease has moved on."""
        holds, *rest = await self._repeat("recall", [lane, entry, job_id])
        return {rest[at].decode(): rest[at + 1] for at in range(0, len(rest), 2)} if holds else None

    async def remember(self, lane: int, entry: str, job_id: str, field: str, value: bytes) -> bool:
        """Keep a value for the next attempts of an active job; False if the lease has moved on."""
        return bool(await self._repeat("remember", [lane, entry, job_id, field, value]))

    async def wake(self) -> None:
        """Make one idle worker tick now."""
        await self._repeat("wake", [])

    # The one point ----------------------------------------------------------------------------------------------------

    async def command(self, *command: Arg) -> Any:
        """Send one plain command that is safe to repeat."""
        return await self._persist(lambda: self._plain(command), self.settings.timeout)

    async def now_ms(self) -> int:
        """Ask the server what time it is: ms since 1970."""
        whole_seconds, micros = await self.command("TIME")
        return int(whole_seconds) * 1000 + int(micros) // 1000

    async def _plain(self, command: tuple[Arg, ...]) -> Any:
        reply = await self.wire.call(*command)
        if isinstance(reply, hiredis.ReplyError):
            raise refusal(reply, self.wire)
        return reply

    async def _repeat(self, name: str, args: Sequence[Arg], *, within: float | None = None) -> Any:
        within = self.settings.timeout if within is None else within
        return await self._observed(name, self._persist(lambda: self._once(name, args, self.wire), within))

    async def _persist(self, attempt: Any, within: float) -> Any:
        """Repeat `attempt` while Redis is away, for `within` seconds; then raise its last error."""
        start = time.monotonic()
        try:
            if within >= self.settings.timeout:
                return await attempt()  # the wire itself gives up in time
            async with asyncio.timeout(within):
                return await attempt()
        except TimeoutError:
            raise StoreUnavailable(f"Redis did not answer within {within:.1f} s") from None
        except StoreError as error:
            if not passes(error) or self.wire.closed:
                raise
            last = error
        pause = FIRST_PAUSE
        while (left := start + within - time.monotonic()) > pause:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                async with asyncio.timeout(left):
                    return await attempt()
            except TimeoutError:
                raise last from None
            except StoreError as error:
                if not passes(error) or self.wire.closed:
                    raise
                last = error
        raise last

    async def _lean(self, name: str, args: Sequence[Arg], wire: Wire, *, bound: bool) -> Any:
        """Run a script once: without what only bound jobs need unless `bound`, and with it after all if it asks."""
        if not bound:
            with contextlib.suppress(_BondsNeeded):
                return await self._once(name, args, wire, plain=True)
        return await self._once(name, args, wire)

    async def _once(self, name: str, args: Sequence[Arg], wire: Wire, *, plain: bool = False) -> Any:
        """Run one script, once; a script that the server has lost goes along in full."""
        script = scripts.load(name, plain=plain)
        reply = await wire.call("EVALSHA", script.sha, 1, self.base, *args)
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith("NOSCRIPT"):
                self._note_reload()
                reply = await wire.call("EVAL", script.body, 1, self.base, *args)
            if isinstance(reply, hiredis.ReplyError):
                raise refusal(reply, wire)
        return reply

    def _note_reload(self) -> None:
        self.script_reloads += 1
        tell(self.observer, self.observer.scripts_reloaded, self.queue)

    async def _observed(self, name: str, call: Any) -> Any:
        start = time.perf_counter()
        error: BaseException | None = None
        try:
            return await call
        except BaseException as raised:
            error = raised
            raise
        finally:
            observer = self.observer
            tell(observer, observer.transition, self.queue, name, time.perf_counter() - start, error)


class _Passing(StoreRefused):
    """Redis refused, and will stop doing so by itself."""


def passes(error: StoreError) -> bool:
    """Whether the same call may succeed a little later."""
    return isinstance(error, StoreUnavailable | _Passing)


class _BondsNeeded(StoreRefused):
    """A script that is without what only bound jobs need has met some; nothing was written."""


def refusal(reply: Exception, wire: Wire) -> StoreError:
    """Return the error that a refusing reply is; the wire is dropped if another server is the right one."""
    text = str(reply)
    if text.startswith(scripts.NEEDS_BONDS):
        return _BondsNeeded(text)
    if text.startswith("READONLY"):
        wire.drop("Redis became a replica")  # a new connection finds the primary
    elif wire.in_cluster:
        if text.startswith(("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")):
            return _away(text, wire)
    elif text.startswith(ELSEWHERE):
        return StoreRefused(f"Redis refused: {text} (this is a node of a cluster: its address is redis+cluster://…)")
    kind = _Passing if text.startswith(PASSING) else StoreRefused
    return kind(f"Redis refused: {text}")


def _away(text: str, wire: Wire) -> StoreUnavailable:
    """Return the error of a slot that this node does not serve, no more or not now; nothing was written."""
    if text.startswith("MOVED"):
        wire.drop("the queue's slot has moved")
        return StoreUnavailable(f"the queue's slot has moved to another node: {text}")
    if text.startswith("CLUSTERDOWN"):
        wire.doubt("the node is cut off from its cluster")
        return StoreUnavailable(f"the cluster does not serve the queue's slot: {text}")
    return StoreUnavailable(f"the queue's slot is being moved to another node, and nothing runs meanwhile: {text}")
