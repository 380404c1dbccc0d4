"""One view: an order comes in, and a job is added when it is committed."""

from typing import Any

from django.db import transaction  # type: ignore[import-untyped]
from django.http import HttpRequest, JsonResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from shop.models import Order
from streamq.contrib.django import add_on_commit


@transaction.atomic  # type: ignore[misc]
def order(request: HttpRequest, number: int) -> Any:
    made = Order.objects.create(number=number)
    add_on_commit("orders", "confirm", {"order_id": made.id})
    if number < 0:
        raise ValueError("no such number")
    return JsonResponse({"order": made.id})


urlpatterns = [path("orders/<str:number>", lambda request, number: order(request, int(number)))]
