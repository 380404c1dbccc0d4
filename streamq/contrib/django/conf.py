"""What `settings.STREAMQ` says."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import msgspec
from django.conf import settings as django  # type: ignore[import-untyped]
from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped]

from streamq.errors import InvalidInput
from streamq.job import JobOptions
from streamq.settings import Settings, variable


class Configuration(msgspec.Struct, frozen=True):
    """`settings.STREAMQ`, read."""

    settings: Settings
    defaults: JobOptions
    processors: tuple[str, ...] | None

    def into(self, environment: MutableMapping[str, str]) -> None:
        """Put the settings where a worker's command reads them, and the processes that it starts."""
        for field in msgspec.structs.fields(Settings):
            value = getattr(self.settings, field.name)
            if isinstance(value, str | int | float):
                environment[variable(field.name)] = str(value)
        environment.pop("JOB_RETRY_DELAY", None)  # in milliseconds; the field's own variable says it now


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    redis: str | None = None
    settings: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    processors: tuple[str, ...] | None = None


def read() -> Configuration:
    """Lay `settings.STREAMQ` over the environment.

    Raises:
        ImproperlyConfigured: It says something that makes no sense.
    """
    said = getattr(django, "STREAMQ", {})
    try:
        found = msgspec.convert(said, _Said)
        fields = {**found.settings, **({"redis_url": found.redis} if found.redis else {})}
        settings = msgspec.structs.replace(Settings.from_env(), **fields)
        return Configuration(settings, JobOptions(**found.defaults), found.processors)
    except (InvalidInput, TypeError, msgspec.ValidationError) as error:
        raise ImproperlyConfigured(f"settings.STREAMQ: {error}") from None
