"""A queue as its producers and operators use it.

Opens a connection with the first call and keeps two for most users: one for commands, and one that waits for events
while somebody awaits a result. Durable adds and each reader of events, logs or dead letters have one of their own.
Never runs a job. What operators do, and results, flows and schedules, is in the modules of its base classes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import msgspec

from streamq._engine import codec, keys
from streamq._engine.adder import Adder
from streamq._engine.durable import Confirmation
from streamq._engine.endpoint import Endpoint
from streamq._engine.shards import read_number, shard_of_number
from streamq._engine.snapshots import snapshot
from streamq._engine.store import Store
from streamq._engine.transitions import Added, NewJob
from streamq._engine.wire import Wire
from streamq.bulk import BulkOperations
from streamq.dead_letters import DeadLetters, Watch
from streamq.errors import InvalidInput, WrongShards
from streamq.events import Endings, Event, EventReader, follow, start_on
from streamq.fairness import Fairness
from streamq.flows import Flows
from streamq.job import MAX_NAME, Job, JobOptions, JobSnapshot, check_text
from streamq.listing import Listings
from streamq.middleware import Middleware, around_add, checked
from streamq.minutes import Minutes
from streamq.observer import NOBODY, ErrorHandler, Observer, Sending, begin, careful, told
from streamq.operations import Operations, known_id, new_job
from streamq.overview import Overview
from streamq.payload import PLAIN, Codec, aside
from streamq.policy import Backoff, Priority, Retention, Seconds
from streamq.results import Results
from streamq.schedules import Schedules
from streamq.settings import Settings
from streamq.unique import REFUSING, Unique

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

NORMAL = int(Priority.NORMAL)
MOST_NAMES = 1_000
"""Job names that are remembered as good."""


class OptionFields(TypedDict, total=False):
    """The fields of `JobOptions`, as keyword arguments."""

    priority: Priority
    attempts: int | None
    delay: Seconds
    run_at: Any
    backoff: Backoff | None
    timeout: Seconds | None
    job_id: str | None
    keep_completed: Retention | None
    keep_failed: Retention | None
    expires_in: Seconds | None
    tags: tuple[str, ...]
    headers: Mapping[str, str] | None
    unique: Unique | None
    key: str | None
    webhook: str | None


Shards = int | Literal["stored"] | None
"""Over how many shards a queue is spread: a number, the one that Redis has stored, or none."""
NewJobSpec = tuple[str, Any] | tuple[str, Any, JobOptions]
"""A job for `add_many`: its name, its data, and its options if it has any."""


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs are where. `total` counts all seven states; ages are seconds, None where none waits."""

    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int
    cancelled: int
    dead: int
    paused: bool
    oldest_waiting_age: float | None
    workers: int
    waiting_children: int = 0
    waiting_by_priority: dict[Priority, int]
    oldest_by_priority: dict[Priority, float | None]

    @property
    def total(self) -> int:
        """All jobs that are known, whatever their state."""
        unended = self.waiting + self.active + self.delayed + self.waiting_children
        return unended + self.completed + self.failed + self.cancelled


class Queue(Operations, Fairness, BulkOperations, Listings, Overview, Minutes, Results, DeadLetters, Schedules, Flows):
    """A named queue.

    `redis` is a URL, a redis-py asyncio client (its settings are used, also Sentinel's or a Cluster's), or None for the
    environment. With `shards` the queue is spread over so many, each in a slot of its own; "stored" takes the number
    that it has. `defaults` are the options of jobs that say nothing themselves. `on_error` is told of trouble in the
    background, which no call raises (a reader of events that lost Redis, a handler of dead letters that failed); it is
    logged all the same, and goes on. `middleware` is entered around each add. `codec` seals what goes to Redis of data,
    and opens results; its workers need it too. Belongs to one event loop. Use it as an async context manager, or call
    `close`.

    Raises:
        InvalidInput: The name can't be part of a key, or `redis` is neither a URL nor a client.
    """

    _shard: int | None = None
    """Which one of a queue's shards this is."""
    _shared_wire: Wire | None = None
    """The connection for commands, if it is another object's."""
    _may_have_shards = False

    def __new__(cls, *args: Any, shards: Shards = None, **fields: Any) -> Queue:
        """Make a queue; one with shards is of a class of its own."""
        if shards is not None and cls is Queue:
            from streamq.sharding import ShardedQueue

            return object.__new__(ShardedQueue)
        return object.__new__(cls)

    def __init__(
        self,
        name: str,
        redis: str | Redis | RedisCluster | None = None,
        *,
        shards: Shards = None,
        defaults: JobOptions | None = None,
        settings: Settings | None = None,
        observer: Observer = NOBODY,
        on_error: ErrorHandler | None = None,
        middleware: Sequence[Middleware] = (),
        codec: Codec | None = None,
    ) -> None:
        if shards is not None and not self._may_have_shards:
            raise InvalidInput(f"a {type(self).__name__} can't have shards, only a Queue itself can")
        self.settings = settings or Settings.from_env()
        self.defaults = defaults or JobOptions()
        target = self.settings.redis_url if redis is None else redis
        endpoint = Endpoint(target, self.settings.timeout, keys.base(name, self._shard or 0))
        shared = None if endpoint.in_cluster else self._shared_wire
        self._wire, self._event_wire = shared or Wire(endpoint), Wire(endpoint)
        self._endpoint = endpoint
        self._store = Store(name, self._wire, self.settings, observer, self._shard)
        self._store.codec = codec or PLAIN
        self._middleware = checked(middleware)
        self.on_error = on_error
        self._adder = Adder(self._store)
        self._names: set[str] = set()
        self._endings = Endings(self._store, self._event_wire)
        self._plain = self.defaults == JobOptions()
        self._durable: tuple[Adder, Wire] | None = None
        self._watches: list[Watch] = []

    @property
    def on_error(self) -> ErrorHandler | None:
        """Told of trouble that no call raises; None for nobody. May be set at any time."""
        return self._on_error

    @on_error.setter
    def on_error(self, handler: ErrorHandler | None) -> None:
        self._on_error = handler
        self._store.on_error = careful(handler)

    def __repr__(self) -> str:
        return f"<Queue {self.name} at {self._endpoint!r}>"

    @property
    def redis(self) -> str | Redis | RedisCluster:
        """Where Redis is: the URL or the client that this was made with, or the environment's URL."""
        return self._endpoint.target

    @property
    def shards(self) -> Shards:
        """Over how many shards it is spread, as it was given; None without."""
        return None

    def _new_wire(self) -> Wire:
        return Wire(self._endpoint)

    # Adding -----------------------------------------------------------------------------------------------------------

    async def add(
        self,
        name: str,
        data: Any = None,
        *,
        options: JobOptions | None = None,
        durable: bool = False,
        **fields: Unpack[OptionFields],
    ) -> Job:
        """Add one job and return its handle. Redis holds it when this returns.

        `data` must come back exactly as it is: dicts, lists, text, bytes, numbers, booleans, None, or a msgspec struct
        or dataclass. Options are given as `options=JobOptions(...)` or one by one; see `JobOptions`. Concurrent adds
        share round trips. A connection lost on the way is retried under the same number, so the job exists once. While
        a job of the same `job_id` is known, or another one holds the key of `unique`, nothing is added: the handle is
        that job's, and its `is_new` is False. With `durable` this also waits until the job is on the server's disk and
        on `STREAMQ_DURABLE_REPLICAS` replicas.

        Raises:
            InvalidInput: A name, id, option or the data does not fit; nothing was sent.
            DuplicateJob: Another job holds the unique key, and `on_conflict` has this one refused; nothing was added.
            PayloadTooLarge: Nothing was sent.
            QueueFull: The queue is at its `set_max_size`; nothing was added.
            StoreRefused: Redis can't take it (out of memory …) or can't keep `durable`'s promise; nothing was added.
            StoreUnavailable: Redis did not answer in time, or did not confirm (the text says which); repeat with the
                same `job_id` to be sure of one job.
        """
        observer = self._store.observer
        sending = None if observer is NOBODY else begin(observer, observer.sending, self.name, name, 1)
        if self._middleware or self._store.codec.blocking:
            return await self._add_within(sending or Sending(), name, data, options, durable, fields)
        if sending is None:
            job = self._encode(name, data, options, fields)
            done = (await self._adder_for(durable).add((job,)))[0].if_taken()
        else:
            with told(observer, sending) as ids:
                job = self._encode(name, data, options, fields, sending.headers)
                done = (await self._adder_for(durable).add((job,)))[0].if_taken()
                ids.append(done.job_id)
        return Job(self, done.job_id, name, is_new=done.is_new)

    async def _add_within(
        self, sending: Sending, name: str, data: Any, options: JobOptions | None, durable: bool, fields: OptionFields
    ) -> Job:
        """Add one job with the middleware around it, or by a codec that may block."""
        with told(self._store.observer, sending) as ids:
            async with around_add(self._middleware, self.name, name, 1) as adding:
                carried = {**sending.headers, **adding.headers}
                job = await aside(self._store.codec, self._encode, name, data, options, fields, carried)
                done = (await self._adder_for(durable).add((job,)))[0].if_taken()
            ids.append(done.job_id)
        return Job(self, done.job_id, name, is_new=done.is_new)

    async def add_many(self, jobs: Iterable[NewJobSpec], *, durable: bool = False) -> list[Job]:
        """Add jobs, all or none, and return their handles in the same order.

        Each is `(name, data)` or `(name, data, JobOptions(...))`. All are checked and encoded before anything is sent.
        Large batches go in parts that no worker sees before the last one is there. `durable` as in `add`.

        Raises:
            InvalidInput, PayloadTooLarge: One does not fit (the message says which); nothing was sent.
            QueueFull, StoreRefused: None was added.
            DuplicateJob: The unique key of one is held, and its `on_conflict` has it refused; none was added.
            PartlyAdded: The queue has shards, and some took their part while others did not: it says which jobs are
                there.
            StoreUnavailable: Redis did not answer in time, or did not confirm; whether they were added is unknown.
        """
        specs = list(jobs)
        observer = self._store.observer
        sending = None if observer is NOBODY else begin(observer, observer.sending, self.name, "", len(specs))
        if sending is None and not self._middleware:
            return await self._add_specs(specs, durable, None)
        sending = sending or Sending()
        with told(observer, sending) as ids:
            async with around_add(self._middleware, self.name, "", len(specs)) as adding:
                added = await self._add_specs(specs, durable, {**sending.headers, **adding.headers})
            ids.extend(job.id for job in added)
        return added

    async def _add_specs(self, specs: list[NewJobSpec], durable: bool, carried: Mapping[str, str] | None) -> list[Job]:
        encoded, names = [], []
        uniques: list[tuple[int, Unique]] = []
        for at, spec in enumerate(specs):
            if not isinstance(spec, tuple) or not 2 <= len(spec) <= 3:
                found = f"a tuple of {len(spec)}" if isinstance(spec, tuple) else f"a {type(spec).__name__}"
                raise InvalidInput(f"job {at} must be (name, data) or (name, data, JobOptions), not {found}")
            options = spec[2] if len(spec) == 3 else None
            if options is not None and not isinstance(options, JobOptions):
                raise InvalidInput(f"job {at}: options must be JobOptions, not {type(options).__name__}")
            try:
                if self._store.codec.blocking:
                    encoded.append(await asyncio.to_thread(self._encode, spec[0], spec[1], options, {}, carried))
                else:
                    encoded.append(self._encode(spec[0], spec[1], options, {}, carried))
            except InvalidInput as error:
                error.add_note(f"in job {at} of add_many")
                raise
            names.append(spec[0])
            unique = (options and options.unique) or self.defaults.unique
            if unique is not None:
                uniques.append((at, unique))
        done = await self._adder_for(durable).add(encoded, all_or_none=bool(uniques) and _may_be_refused(uniques))
        return [Job(self, job.job_id, name, is_new=job.is_new) for job, name in zip(done, names, strict=True)]

    def _adder_for(self, durable: bool) -> Adder:
        if not durable:
            return self._adder
        if self._durable is None:
            wire = self._new_wire()
            store = Store(self.name, wire, self.settings, self._store.observer, self._shard)
            self._durable = Adder(store, Confirmation(store)), wire
        return self._durable[0]

    async def _add_encoded(self, jobs: list[NewJob]) -> list[Added]:
        """Add jobs that are encoded already: what another queue's dead letters hold."""
        return await self._adder.add(jobs)

    def _encode(
        self,
        name: str,
        data: Any,
        options: JobOptions | None,
        fields: OptionFields,
        carried: Mapping[str, str] | None = None,
    ) -> NewJob:
        if type(name) is not str or name not in self._names:
            check_text("job name", name, MAX_NAME)
            if len(self._names) < MOST_NAMES:
                self._names.add(str(name))
        body = codec.encode_data("data", data, self.settings.max_payload)
        if self._store.codec is not PLAIN:
            body = self._store.codec.seal(body)
        if options is None and not fields and self._plain and not carried:
            return NewJob(NORMAL, "0", "", codec.encode_envelope(name, body, None))
        chosen = self._options(options, fields)
        if carried:
            chosen = _with_headers(chosen, carried)
        return new_job(name, body, chosen)

    def _options(self, options: JobOptions | None, fields: OptionFields) -> JobOptions:
        """Lay what the call says over the queue's defaults."""
        known = JobOptions.__struct_fields__
        for field in fields:
            if field not in known:
                raise InvalidInput(f"unknown option {field!r}; the options are {', '.join(known)}")
        chosen = self.defaults
        if options is not None:
            if not isinstance(options, JobOptions):
                raise InvalidInput(f"options must be JobOptions, not {type(options).__name__}")
            plain = JobOptions()
            said = {f: v for f in known if (v := getattr(options, f)) != getattr(plain, f)}
            chosen = msgspec.structs.replace(chosen, **said)
        return msgspec.structs.replace(chosen, **fields) if fields else chosen

    # Looking ----------------------------------------------------------------------------------------------------------

    async def get_job(self, job_id: str) -> JobSnapshot | None:
        """Read a job as it is now; None if it is unknown (never there, removed, or its retention is over).

        Raises:
            WrongShards: The id is of a shard, and this queue was made without shards.
        """
        stored = await self._store.get(known_id(job_id))
        if stored is None:
            if self._shard is None and shard_of_number(job_id):
                raise WrongShards(self.name, await read_number(self._store) or 0, 1)
            return None
        return await aside(self._store.codec, snapshot, self.name, job_id, stored, self._store.codec)

    async def stats(self) -> QueueStats:
        """Count the queue's jobs; the cost does not grow with their number."""
        counts = await self._store.stats()
        ages = {p: None if (ms := counts.oldest_ms[p]) is None else ms / 1000 for p in Priority}
        return QueueStats(
            waiting=sum(counts.waiting.values()),
            active=counts.active,
            completed=counts.completed,
            failed=counts.failed,
            delayed=counts.delayed,
            cancelled=counts.cancelled,
            dead=counts.dead,
            paused=counts.paused,
            oldest_waiting_age=max((age for age in ages.values() if age is not None), default=None),
            workers=counts.workers,
            waiting_children=counts.waiting_children,
            waiting_by_priority={p: counts.waiting[p] for p in Priority},
            oldest_by_priority=ages,
        )

    async def events(self, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Yield what happens in the queue, for ever and over reconnects.

        Starts behind the event whose id is `after`, or with what comes next. Takes a connection of its own while it
        runs. An event of kind `gap` says that the stream's cap has dropped events before they could be read.
        """
        async with aclosing(self._events_from(asyncio.Event(), after)) as events:
            async for event in events:
                yield event

    async def _events_from(self, begun: asyncio.Event, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Yield events as `events` does; `begun` is set from when on none is missed."""
        wire = self._new_wire()
        reader = EventReader(self._store, wire, after)
        try:
            await start_on(reader)
            begun.set()
            async for event in follow(reader):
                yield event
        finally:
            await wire.close()

    async def count_shards(self) -> int | None:
        """Read over how many shards Redis says that the queue is spread; None if it was never made with any."""
        return await read_number(self._store)

    async def set_shards(self, shards: int, *, grow: bool = False) -> None:
        """Spread the queue over another number of shards from now on; made without shards, it counts as one.

        Goes while the queue holds no jobs, dead letters and schedules; with `grow` also while it does, to a greater
        number: ids of one's own and unique keys then hold among the jobs that are added from here on. Limits, a pause,
        and what is set for keys are carried over. Stop its producers first, or they miss it; processes that start with
        another number are refused.

        Raises:
            InvalidInput: The number makes no sense, the queue holds something, a limit can't be split over so many, or
                keys with settings of their own have jobs that would be in another shard. Nothing was changed.
            StoreError: Redis did not answer: `count_shards` says which number holds. If it is the new one, set limits
                and pause again.
        """
        from streamq.sharding import ShardedQueue

        async with ShardedQueue(self.name, self.redis, settings=self.settings) as whole:
            await whole.set_shards(shards, grow=grow)

    # Closing ----------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Wait for adds that are on their way, end the waits for results, and close the connections."""
        await self._adder.close()
        if self._durable is not None:
            adder, wire = self._durable
            await adder.close()
            await wire.close()
        await self._endings.close()
        await asyncio.gather(*(watch.stop() for watch in self._watches))
        await self._event_wire.close()
        if self._wire is not self._shared_wire:
            await self._wire.close()

    async def __aenter__(self) -> Queue:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _may_be_refused(jobs: list[tuple[int, Unique]]) -> bool:
    """Whether a unique key may have one of these jobs refused, and so all of them.

    Raises:
        InvalidInput: Two of them have the same key, and the second is to be refused then.
    """
    held = set()
    for at, unique in jobs:
        if unique.on_conflict == "raise" and unique.key in held:
            raise InvalidInput(f"job {at} has the unique key {unique.key!r} of one before it; on_conflict is 'raise'")
        held.add(unique.key)
    return any(unique.on_conflict in REFUSING for _, unique in jobs)


def _with_headers(options: JobOptions, carried: Mapping[str, str]) -> JobOptions:
    """Add what an observer wants carried; the job's own headers come first, and are never pushed over the limit."""
    try:
        return msgspec.structs.replace(options, headers={**carried, **(options.headers or {})})
    except InvalidInput:
        return options
