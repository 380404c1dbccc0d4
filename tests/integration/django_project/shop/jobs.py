"""The shop's processors."""

import os
from typing import Any

from django.db import connection  # type: ignore[import-untyped]

from shop.models import Order
from streamq import ActiveJob, Processors

processors = Processors()


@processors.register("confirm", queue="orders")
def confirm(job: ActiveJob[dict[str, int]]) -> str:
    order = Order.objects.get(id=job.data["order_id"])
    order.state = "confirmed"
    order.save()
    return f"order {order.number} is confirmed"


@processors.task("count", queue="orders")
async def count(state: str) -> int:
    return await Order.objects.filter(state=state).acount()  # type: ignore[no-any-return]


@processors.register("in-process", queue="orders", run_in="process")
def in_process(job: ActiveJob[Any]) -> list[int]:
    return [Order.objects.count(), os.getpid(), os.getppid()]


@processors.register("breaks-the-connection", queue="orders")
def break_connection(job: ActiveJob[Any]) -> None:
    connection.cursor().execute("SELECT 1")
    connection.connection.close()  # as a database that goes away does
    connection.errors_occurred = True
