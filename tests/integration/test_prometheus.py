"""The deployment's Prometheus: its rules, and a real one that scrapes a real worker and answers every query.

Skipped where Debian's `prometheus` package (prometheus, promtool) isn't there.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamq import Queue, Schedule
from tests.faults.workers import ROOT, eventually
from tests.integration.scraping import PATIENCE, served
from tests.integration.test_metrics import worker_of
from tests.servers import RedisServer
from tests.unit.test_metrics import listed

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "streamq.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "streamq.json"
SERIES = re.compile(r"\bstreamq_\w+")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed here")


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def panel_queries() -> list[tuple[str, str]]:
    """All queries of the dashboard, as Grafana would send them with all queues chosen."""
    board = json.loads(DASHBOARD.read_text())
    return [
        (panel["title"], target["expr"].replace("$queue", ".*").replace("$__rate_interval", "10s"))
        for panel in board["panels"]
        for target in panel.get("targets", [])
    ]


def rules() -> list[tuple[str, str]]:
    """The rules' names and expressions, as `promtool` writes them out in one line each."""
    text = RULES.read_text()
    found = re.findall(
        r"- (?:record|alert): (\S+)\n\s+expr: (?:>-\n)?((?:.|\n)*?)(?=\n\s*(?:for:|labels:|- |\n|$))", text
    )
    return [(name, " ".join(expression.split())) for name, expression in found]


@needs("promtool")
def test_promtool_accepts_the_configuration_and_its_rules() -> None:
    assert f"{len(rules())} rules found" in run("promtool", "check", "rules", str(RULES))
    run("promtool", "check", "config", str(PROMETHEUS / "prometheus.yml"))


@needs("promtool")
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    run("promtool", "test", "rules", str(PROMETHEUS / "streamq.rules.test.yml"))
    tested = set(re.findall(r"alertname: (\w+)", (PROMETHEUS / "streamq.rules.test.yml").read_text()))
    assert tested == {name for name, _ in rules() if ":" not in name}


def test_every_alert_is_listed_has_a_section_in_the_runbook_and_leads_to_it() -> None:
    alerts = [name for name, _ in rules() if ":" not in name]
    metrics, runbook = ((ROOT / "docs" / name).read_text() for name in ("metrics.md", "runbook.md"))
    assert re.findall(r"^\| \[`(\w+)`\]\(runbook\.md#\w+\) \|", metrics, re.MULTILINE) == alerts
    sections = re.split(r"^## ", runbook, flags=re.MULTILINE)[1:]
    assert [section.split()[0] for section in sections] == alerts
    assert all(word in section for section in sections for word in ("**Means.**", "**Look.**", "**Do.**"))
    led = re.findall(r"- alert: (\w+)\n(?:.*\n)*?\s+runbook: (\S+)", RULES.read_text())
    assert led == [(name, f"docs/runbook.md#{name.lower()}") for name in alerts]


def test_every_panel_has_a_title_a_source_and_queries_and_none_lies_over_another() -> None:
    board = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or (panel["targets"] and panel["datasource"]["uid"] == "${datasource}")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


# A real Prometheus ----------------------------------------------------------------------------------------------------


class Prometheus:
    """A running one."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    async def query(self, expression: str) -> list[Any]:
        """Return what a query finds now."""
        return await asyncio.to_thread(self._query, expression)

    def _query(self, expression: str) -> list[Any]:
        url = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - our own process
                found: list[Any] = json.load(answer)["data"]["result"]
                return found
        except ConnectionError:
            return []
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:  # it starts
                    return []
                raise AssertionError(f"{expression}: {error.read().decode()}") from None
        except urllib.error.URLError:
            return []


@contextmanager
def prometheus(folder: Path, worker: str, exporter: str) -> Iterator[Prometheus]:
    """Run one on the deployment's configuration, with these targets and quicker."""
    config = (PROMETHEUS / "prometheus.yml").read_text()
    config = config.replace('["worker-1:9464", "worker-2:9464"]', f'["{worker}"]').replace("exporter:9465", exporter)
    config = re.sub(r"(\w+_(?:interval|timeout)): \w+", r"\1: 1s", config)
    assert worker in config
    assert exporter in config
    (folder / "prometheus.yml").write_text(config)
    (folder / RULES.name).write_text(RULES.read_text())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    async with Queue("m", redis_url) as queue:
        yield queue


@needs("prometheus")
async def test_every_query_of_dashboard_and_rules_finds_something(queue: Queue, redis_url: str, tmp_path: Path) -> None:
    await queue.upsert_schedule("daily", Schedule(name="pid", every=3600))
    exporter_of = served(tmp_path, ["streamq", "exporter", "m", "--port", "0"], REDIS_URL=redis_url)
    with worker_of(redis_url, tmp_path) as worker, exporter_of as exporter:
        await worker.serves()
        await exporter.serves()
        targets = [one.url.removeprefix("http://") for one in (worker, exporter)]
        (tmp_path / "p").mkdir()
        with prometheus(tmp_path / "p", *targets) as server:
            left = dict(panel_queries_by_expression())
            missing: list[str] = list(left)

            async def all_answer() -> bool:
                await queue.add("pid")
                await queue.add("fails")
                still = [expression for expression in missing if not await server.query(expression)]
                missing[:] = still
                return not still

            await eventually(all_answer, 60, lambda: f"found nothing: {[(left[e], e) for e in missing]}")
            nan = [e for e in left if all(value["value"][1] == "NaN" for value in await server.query(e))]
            assert not nan


@needs("prometheus")
async def test_a_scraper_hears_of_an_outage_from_the_exporter_and_the_worker_and_of_its_end(
    server: RedisServer, tmp_path: Path
) -> None:
    exporter_of = served(tmp_path, ["streamq", "exporter", "m", "--port", "0"], REDIS_URL=server.url)
    with worker_of(server.url, tmp_path, STREAMQ_LEASE="2") as worker, exporter_of as exporter:
        await worker.serves()
        await exporter.serves()
        targets = [one.url.removeprefix("http://") for one in (worker, exporter)]
        (tmp_path / "p").mkdir()
        with prometheus(tmp_path / "p", *targets) as scraper:

            async def says(**values: str) -> None:
                """Wait until the last scrape of each series has this value."""

                async def does() -> bool:
                    found = {name: await scraper.query(name) for name in values}
                    return all({one["value"][1] for one in found[name]} == {value} for name, value in values.items())

                await eventually(does, 60)

            await says(up="1", streamq_up="1", streamq_worker_healthy="1", streamq_queue_workers="1")
            server.kill()
            await says(up="1", streamq_up="0", streamq_worker_healthy="0")
            assert await scraper.query("streamq_queue_workers") == []  # an old state would be a lie
            server.start()
            await says(up="1", streamq_up="1", streamq_worker_healthy="1", streamq_queue_workers="1")


def panel_queries_by_expression() -> Iterator[tuple[str, str]]:
    """Every query by its text: the panels', and the rules' less the thresholds, which a good day does not reach."""
    for title, expression in panel_queries():
        yield expression, title
    for name, expression in rules():
        plain = re.sub(r" (?:[<>]=?|==) [\d.]+", "", expression).split(" unless ")[0]
        for part in plain.split(" and on (queue) "):
            yield re.sub(r"\[\d+m\]", "[10s]", part), name


def test_queries_name_only_series_that_the_page_lists() -> None:
    page = {name: kind for name, (kind, _) in listed().items()}
    for expression, title in panel_queries_by_expression():
        for name in SERIES.findall(expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in page or page.get(base) == "histogram", (title, name)
