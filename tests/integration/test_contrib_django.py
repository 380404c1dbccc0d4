"""The Django app: a real project on SQLite, its views, its command, its workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamq import JobFailed
from streamq._engine.shards import SPAN
from streamq.sync import Queue

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).parent / "django_project"
PATIENCE = 60.0


class Shop:
    """The project, with a database of its own."""

    def __init__(self, folder: Path, redis_url: str, **streamq: Any) -> None:
        self.env = {
            **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{PROJECT}", "DJANGO_SETTINGS_MODULE": "shop.settings",
            "SHOP_DB": str(folder / "shop.sqlite3"), "SHOP_STREAMQ": json.dumps({"redis": redis_url, **streamq}),
            "REDIS_URL": "redis://127.0.0.1:1/0",
        }  # fmt: skip

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=self.env, timeout=PATIENCE)

    def run(self, script: str) -> Any:
        """Run a script inside the project and return what it prints."""
        setup = "import json, django\ndjango.setup()\nfrom shop.models import Order\n"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", setup + script], capture_output=True, text=True, env=self.env,
            timeout=PATIENCE, cwd=PROJECT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def worker(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "manage.py", "streamq_worker", "--queues", "orders", *arguments]
        return subprocess.Popen(command, cwd=PROJECT, env=self.env, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def shop(tmp_path: Path, redis_url: str) -> Shop:
    shop = Shop(tmp_path, redis_url)
    made = shop.run(
        "from django.db import connection\n"
        "with connection.schema_editor() as editor:\n    editor.create_model(Order)\nprint(1)"
    )
    assert made == 1
    return shop


@pytest.fixture
def orders(redis_url: str) -> Iterator[Queue]:
    with Queue("orders", redis_url) as queue:
        yield queue


def test_a_job_is_added_when_the_transaction_commits_and_not_before(shop: Shop, orders: Queue) -> None:
    script = """
from django.db import transaction
from streamq.contrib.django import add_on_commit, get_queue
orders = get_queue("orders")
with transaction.atomic():
    data = {"order_id": 1}
    add_on_commit("orders", "confirm", data, delay=60, tags=("a",))
    data["order_id"] = 2
    before = orders.stats().total
print(json.dumps([before, orders.stats().delayed, orders.get_job("1").data, orders.get_job("1").tags]))
"""
    assert shop.run(script) == [0, 1, {"order_id": 1}, ["a"]]


def test_a_transaction_that_rolls_back_adds_nothing(shop: Shop, orders: Queue) -> None:
    script = """
from django.test import Client
answer = Client().get("/orders/5").json()
try:
    Client().get("/orders/-1")
except ValueError:
    pass
print(json.dumps([answer["order"], Order.objects.count()]))
"""
    assert shop.run(script) == [1, 1]
    assert orders.stats().waiting == 1


def test_a_job_that_does_not_fit_fails_the_transaction(shop: Shop, orders: Queue) -> None:
    script = """
from django.db import transaction
from streamq import InvalidInput
from streamq.contrib.django import add_on_commit
try:
    with transaction.atomic():
        order = Order.objects.create(number=1)
        add_on_commit("orders", "confirm", {"order": order})
except InvalidInput as error:
    print(json.dumps([Order.objects.count(), str(error)]))
"""
    count, text = shop.run(script)
    assert count == 0
    assert "data can't be encoded" in text
    assert orders.stats().total == 0


def test_without_a_transaction_a_job_is_added_at_once(shop: Shop, orders: Queue) -> None:
    shop.run("from streamq.contrib.django import add_on_commit\nadd_on_commit('orders', 'confirm', {})\nprint(1)")
    assert orders.stats().waiting == 1


def test_a_queue_with_shards_is_found_as_it_is(shop: Shop, redis_url: str) -> None:
    with Queue("orders", redis_url, shards=3) as orders:
        orders.stats()
        script = """
from streamq.contrib.django import add_on_commit, get_queue
for number in range(60):
    add_on_commit("orders", "confirm", {"order_id": number})
print(json.dumps([job.id for job in get_queue("orders").jobs("waiting", count=100)]))
"""
        ids = shop.run(script)
        assert {int(job_id) // SPAN for job_id in ids} == {0, 1, 2}
        assert orders.stats().waiting == len(ids) == 60


def test_the_command_runs_the_jobs_of_all_apps_and_stops_cleanly(shop: Shop, orders: Queue) -> None:
    ids = shop.run("print(json.dumps([Order.objects.create(number=n).id for n in range(5)]))")
    worker = shop.worker("--concurrency", "3")
    try:
        jobs = [orders.add("confirm", {"order_id": order}) for order in ids]
        assert [job.result(PATIENCE) for job in jobs] == [f"order {n} is confirmed" for n in range(5)]
        assert orders.add("count", {"state": "confirmed"}).result(PATIENCE) == 5
        with pytest.raises(JobFailed, match="matching query does not exist"):
            orders.add("confirm", {"order_id": 99}, attempts=1).result(PATIENCE)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0
    finally:
        worker.kill()
        _, said = worker.communicate()
    assert "Traceback" not in said


def test_handlers_in_processes_find_django_set_up(shop: Shop, orders: Queue) -> None:
    worker = shop.worker()
    try:
        count, process, parent = orders.add("in-process").result(PATIENCE)
        assert (count, parent) == (0, worker.pid)
        assert process != worker.pid
    finally:
        worker.terminate()
        worker.communicate()


def test_a_handler_finds_a_connection_that_is_fit_for_use(shop: Shop, orders: Queue) -> None:
    [order] = shop.run("print(json.dumps([Order.objects.create(number=7).id]))")
    shop.env["STREAMQ_THREADS"] = "1"
    worker = shop.worker()
    try:
        orders.add("breaks-the-connection").result(PATIENCE)
        assert orders.add("confirm", {"order_id": order}).result(PATIENCE) == "order 7 is confirmed"
    finally:
        worker.terminate()
        worker.communicate()


def test_several_processes_run_the_project_too(shop: Shop, orders: Queue) -> None:
    worker = shop.worker("--processes", "2")
    try:
        assert orders.add("count", {"state": "new"}).result(PATIENCE) == 0
    finally:
        worker.terminate()
        worker.communicate()


def test_the_commands_help_is_that_of_the_worker(shop: Shop) -> None:
    done = shop.manage("streamq_worker", "--help")
    assert done.returncode == 0, done.stderr
    assert "--concurrency N" in done.stdout
    wrong = shop.manage("streamq_worker", "--colour")
    assert wrong.returncode == 2
    assert "unrecognized arguments: --colour" in wrong.stderr


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"url": "x"}, "settings.STREAMQ: Object contains unknown field `url`"),
        ({"settings": {"lease": 0}}, "settings.STREAMQ: lease must be at least 0.5, not 0"),
        ({"settings": {"speed": 5}}, "settings.STREAMQ: .*speed"),
        ({"defaults": {"attempts": 0}}, "settings.STREAMQ: attempts must be between 1 and 1,000"),
    ],
)
def test_settings_that_make_no_sense_are_told_when_django_starts(
    said: dict[str, Any], text: str, tmp_path: Path, redis_url: str
) -> None:
    done = Shop(tmp_path, redis_url, **said).manage("check")
    assert done.returncode == 1
    import re

    assert re.search(f"ImproperlyConfigured: {text}", done.stderr), done.stderr[-500:]


def test_settings_lie_over_the_environment_for_queues_and_workers(tmp_path: Path, redis_url: str) -> None:
    shop = Shop(tmp_path, redis_url, settings={"attempts": 7, "retry_delay": 1.5}, defaults={"timeout": 9})
    script = """
import os
from streamq import Settings
from streamq.contrib.django import get_queue
from streamq.contrib.django.conf import read
queue = get_queue("orders")
read().into(os.environ)
worker = Settings.from_env()
print(json.dumps([queue.settings.attempts, queue.defaults.timeout, worker.attempts, worker.retry_delay]))
"""
    shop.env.update(JOB_RETRY_ATTEMPTS="2", JOB_RETRY_DELAY="5000")
    assert shop.run(script) == [7, 9, 7, 1.5]
