"""Processes that serve `/metrics` on a port of their own, and a scraper to read them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.faults.workers import ROOT, eventually

PATIENCE = 30.0
ADDRESS = re.compile(r"metrics and health at (http://[\w.:]+)")


class Served:
    """A running command that serves metrics; its output is in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self._log = process, log

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    @property
    def url(self) -> str:
        """Where it serves."""
        found = ADDRESS.search(self.log)
        assert found is not None, self.log
        return found[1]

    async def serves(self) -> None:
        """Wait until it serves."""
        await eventually(lambda: ADDRESS.search(self.log) or self.process.poll() is not None, PATIENCE)

    async def get(self, path: str) -> tuple[int, str]:
        """Ask for a page: its status and its text; status 0 where nothing answers."""
        return await asyncio.to_thread(_get, self.url + path)

    async def answers(self, path: str, status: int, text: str = "") -> None:
        """Wait until a page answers so."""
        last: tuple[int, str] = (0, "")

        async def does() -> bool:
            nonlocal last
            last = await self.get(path)
            return last[0] == status and text in last[1]

        await eventually(does, PATIENCE, lambda: f"{path} answers {status} {text!r}, last {last}\n{self.log[-2000:]}")

    async def scrape(self) -> Scrape:
        """Read all series."""
        status, text = await self.get("/metrics")
        assert status == 200, text
        return Scrape(text)

    async def shows(self, name: str, value: float, **labels: str) -> None:
        """Wait until a series has this value."""

        async def does() -> bool:
            return (await self.scrape()).value(name, **labels) == value

        await eventually(does, PATIENCE, lambda: f"{name} {labels} is {value}; the log ends\n{self.log[-2000:]}")

    async def ends(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and return its exit code."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, PATIENCE)


class Scrape:
    """The series of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return one series' value; None if there is none."""
        return self.samples.get((name, frozenset(labels.items())))


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - our own process
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


@contextmanager
def served(folder: Path, arguments: list[str], **environment: str) -> Iterator[Served]:
    """Run `python -m` with these arguments until the block ends."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("REDIS_", "STREAMQ_", "QUEUE_", "JOB_"))}
    path = folder / f"{arguments[0]}-{len(list(folder.iterdir()))}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT, env={**plain, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield Served(process, path)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
