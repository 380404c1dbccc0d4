"""Tell webhooks that jobs have ended: `add(..., webhook="https://example.com/hook")`.

The script that ends such a job adds another one to the same queue, in the same call: so an ending is told neither twice
nor not at all, however the job ended. A worker with these processors runs it, as any job, with retries:

    webhooks = Webhooks("whsec_…", hosts=["example.com"])
    processors.update(webhooks.processors)

It POSTs JSON, signed by the Standard Webhooks scheme, to hosts that are listed and to no other. Needs the extra
`webhooks`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import msgspec

from streamq._engine.codec import WEBHOOK
from streamq.errors import InvalidInput, RetryAfter, StreamqError, Unrecoverable
from streamq.job import JobSnapshot, JobState
from streamq.payload import Codec
from streamq.policy import Backoff, Seconds, seconds
from streamq.processor import ActiveJob, Processors
from streamq.processors.integrations_signature import sign
from streamq.queue import Queue
from streamq.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

LONGEST_RETRY_AFTER = 86_400.0
PORTS = {"https": 443, "http": 80}


class Told(msgspec.Struct, frozen=True):
    """The data of a job that tells a webhook."""

    url: str


class NotTaken(StreamqError):
    """A webhook did not answer, or not with 2xx. It is told again later."""


class Webhooks:
    """What delivers: `processors` goes into the registry of the workers of each queue whose jobs have webhooks.

    `secret` signs (the receiver checks it; `whsec_…` in base64, or any text). `hosts` may be told, and no others:
    `"example.com"`, `"*.example.com"` (what is below it), `"example.com:8443"`. No redirect is followed, and plain http
    needs `insecure=True`. `attempts` and `backoff` are those of deliveries, `timeout` is how long one may take. `codec`
    is that of the queues: without it a sealed result is told as null.

    Raises:
        InvalidInput: The secret or a host makes no sense.
    """

    def __init__(
        self,
        secret: str,
        *,
        hosts: Iterable[str],
        attempts: int = 10,
        backoff: Backoff | None = None,
        timeout: Seconds = 10.0,
        insecure: bool = False,
        redis: str | Redis | RedisCluster | None = None,
        settings: Settings | None = None,
        codec: Codec | None = None,
    ) -> None:
        sign(secret, "check", 0, b"")
        self._secret, self._insecure = secret, insecure
        self._redis, self._settings, self._codec = redis, settings, codec
        self._hosts = frozenset(_host(host) for host in hosts)
        self._timeout = seconds("timeout", timeout, low=0.01)
        self.processors = Processors()
        self.processors.register(
            WEBHOOK,
            data=Told,
            attempts=attempts,
            backoff=backoff or Backoff.exponential(5, max_delay=3_600, jitter=0.2),
        )(self._tell)

    def may_tell(self, url: str) -> bool:
        """Whether deliveries to this URL are allowed."""
        parts = urlsplit(url)
        try:
            port = parts.port or PORTS.get(parts.scheme)
        except ValueError:
            return False
        if parts.hostname is None or parts.scheme not in (("https", "http") if self._insecure else ("https",)):
            return False
        name = parts.hostname.rstrip(".").lower()
        suffix = "" if port == PORTS[parts.scheme] else f":{port}"
        above = name.split(".")
        wildcards = (f"*.{'.'.join(above[at:])}{suffix}" for at in range(1, len(above)))
        return f"{name}{suffix}" in self._hosts or any(one in self._hosts for one in wildcards)

    async def _tell(self, job: ActiveJob[Told]) -> int:
        """Deliver; the result is the receiver's status."""
        url = job.data.url
        if not self.may_tell(url):
            raise Unrecoverable(f"the webhook's host is not in the list: {urlsplit(url).hostname}")
        state, job_id = _ending(job.id)
        async with Queue(job.queue, self._redis, shards="stored", settings=self._settings, codec=self._codec) as queue:
            ended = await queue.get_job(job_id)
        body = _body(job.queue, job_id, state, ended)
        headers = {"content-type": "application/json", **sign(self._secret, job.id, int(time.time()), body)}
        try:
            async with (
                httpx.AsyncClient(timeout=self._timeout, follow_redirects=False, trust_env=False) as http,
                http.stream("POST", url, content=body, headers=headers) as answer,  # what it answers is not read
            ):
                status, after = answer.status_code, answer.headers.get("retry-after", "")
        except httpx.HTTPError as error:
            raise NotTaken(f"{urlsplit(url).hostname} did not answer: {type(error).__name__}") from None
        if 200 <= status < 300:
            return status
        if status == 410:
            raise Unrecoverable(f"{urlsplit(url).hostname} wants no more: it answered 410")
        if status in (429, 503) and after.isdigit():
            raise RetryAfter(min(float(after), LONGEST_RETRY_AFTER), f"it answered {status}")
        raise NotTaken(f"{urlsplit(url).hostname} answered {status}")


def _host(host: str) -> str:
    if not isinstance(host, str) or not host or any(mark in host for mark in "/@ ") or host in ("*", "*."):
        raise InvalidInput(f"hosts must be names such as 'example.com' or '*.example.com', not {host!r}")
    return host.lower()


def _ending(telling: str) -> tuple[str, str]:
    """Take apart the id that `lua/lib/webhook.lua` makes: how which job has ended."""
    parts = telling.split(":", 3)
    if len(parts) != 4 or parts[0] != "webhook":
        raise Unrecoverable(f"job {telling} tells of no job's end")
    return parts[2], parts[3]


def _body(queue: str, job_id: str, state: str, ended: JobSnapshot | None) -> bytes:
    """Return what is told. A job of which nothing was kept, or that has come back to life, is told with less."""
    told: dict[str, Any] = {"type": f"job.{state}", "queue": queue, "job": {"id": job_id, "state": state}}
    if ended is not None and ended.state == state:
        told["job"].update(
            name=ended.name,
            attempts=ended.attempts_made,
            finished_at=ended.finished_at.isoformat() if ended.finished_at else None,
        )
        if state == JobState.COMPLETED:
            told["job"]["result"] = ended.result
        if ended.error is not None:
            told["job"]["error"] = {"type": ended.error.type, "message": ended.error.message}
    return json.dumps(msgspec.to_builtins(told)).encode()
