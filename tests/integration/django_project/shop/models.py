"""Orders."""

from django.db import models  # type: ignore[import-untyped]


class Order(models.Model):  # type: ignore[misc]
    """One order."""

    number = models.IntegerField()
    state = models.CharField(max_length=20, default="new")
