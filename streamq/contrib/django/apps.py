"""The app, as `INSTALLED_APPS` names it."""

from __future__ import annotations

from django.apps import AppConfig  # type: ignore[import-untyped]


class StreamqConfig(AppConfig):  # type: ignore[misc]
    """streamq as a Django app. It has no models."""

    name = "streamq.contrib.django"
    label = "streamq"
    verbose_name = "streamq"

    def ready(self) -> None:
        """Check `settings.STREAMQ`, so that a mistake in it is told when Django starts."""
        from streamq.contrib.django.conf import read

        read()
