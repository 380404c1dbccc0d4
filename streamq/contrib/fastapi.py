"""FastAPI (and Starlette): queues that live as long as the app, handed to its routes as dependencies.

    queues = Queues()
    app = FastAPI(lifespan=queues.lifespan)
    Emails = Annotated[Queue, queues.dependency("emails")]

    @app.post("/users", status_code=202)
    async def sign_up(user: User, emails: Emails) -> str:
        return (await emails.add("send-welcome", {"to": user.email})).id

Needs the extra `fastapi`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from fastapi import Depends

from streamq.errors import InvalidInput
from streamq.job import JobOptions, queue_name
from streamq.observer import NOBODY, Observer
from streamq.processor import Processors
from streamq.queue import Queue
from streamq.settings import Settings
from streamq.worker import Worker

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

Jobs = Processors | Mapping[str, Callable[..., Any]] | Callable[..., Any]


class Queues:
    """An app's queues: `lifespan` opens and closes them, `dependency` and `queues["emails"]` give them out.

    `redis`, `settings`, `observer` and `defaults` are those of each `Queue`; the environment is read when the app
    starts. `workers` runs workers inside the app's process, for small services: the jobs of each queue that it names,
    by its processors. They stop with the app as any worker does.
    """

    def __init__(
        self,
        redis: str | Redis | RedisCluster | None = None,
        *,
        workers: Mapping[str, Jobs] | None = None,
        defaults: JobOptions | None = None,
        settings: Settings | None = None,
        observer: Observer = NOBODY,
    ) -> None:
        self._redis, self._workers = redis, {queue_name(name): jobs for name, jobs in (workers or {}).items()}
        self._defaults, self._settings, self._observer = defaults, settings, observer
        self._open: dict[str, Queue] | None = None
        self._providers = cache(self._provider)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """Be the app's lifespan, or a part of it: `async with queues.lifespan(app): yield`.

        Raises:
            InvalidInput: It runs already, or the environment makes no sense.
            StoreError: A worker had to stop while Redis was away: what it held is requeued when its lease lapses.
        """
        if self._open is not None:
            raise InvalidInput("these queues are open already: make Queues for each app")
        settings = self._settings or Settings.from_env()
        self._settings_now = settings
        async with AsyncExitStack() as stack:
            self._open = {}
            stack.push_async_callback(self._close)
            for name, jobs in self._workers.items():
                worker = Worker(
                    name, jobs, redis=self._redis, shards="stored", settings=settings, observer=self._observer
                )
                await stack.enter_async_context(worker)
            yield

    def __getitem__(self, name: str) -> Queue:
        """Return the queue of this name, made at its first use.

        Raises:
            InvalidInput: The app has not started, or has ended, or the name makes no sense.
        """
        if self._open is None:
            raise InvalidInput("the app has not started: pass lifespan=queues.lifespan to FastAPI")
        key = queue_name(name)
        if key not in self._open:
            self._open[key] = Queue(
                key, self._redis, shards="stored", defaults=self._defaults, settings=self._settings_now,
                observer=self._observer,
            )  # fmt: skip
        return self._open[key]

    def dependency(self, name: str) -> Any:
        """Return the queue as a route's dependency: `Annotated[Queue, queues.dependency("emails")]`.

        Raises:
            InvalidInput: No queue may have this name.
        """
        return Depends(self._providers(queue_name(name)))

    def _provider(self, name: str) -> Callable[[], Coroutine[Any, Any, Queue]]:
        async def queue() -> Queue:  # async, or FastAPI would call it in a thread
            return self[name]

        return queue

    async def _close(self) -> None:
        queues, self._open = self._open or {}, None
        for queue in queues.values():
            await queue.close()
