"""`python -m streamq.worker`: its arguments, its complaints, its exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamq import InvalidInput, Processors, RateLimit
from streamq.worker.__main__ import parser, queues_of, rate_of, settings_of

MODULE = """
from streamq import Processors
processors = Processors()

@processors.register("a")
async def a(job): ...
"""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamq.worker", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).resolve().parents[3]), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_names_the_environment_the_signals_and_an_example(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    for words in ("QUEUE_CONCURRENCY (5)", "TERM, INT", "python -m streamq.worker --queues reports,emails"):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "text"),
    [
        (["--concurrency", "many"], {}, "argument -c/--concurrency: invalid int value: 'many'"),
        (["--colour"], {}, "unrecognized arguments: --colour"),
        (["--processors", "no_such"], {}, "streamq.worker: --processors no_such: No module named 'no_such'"),
        (["-p", "jobs", "--concurrency", "0"], {}, "streamq.worker: concurrency must be at least 1, not 0"),
        (["-p", "jobs", "--rate", "fast"], {}, "streamq.worker: --rate takes MAX/SECONDS, such as 10/1, not 'fast'"),
        (["-p", "jobs", "--queues", "a{b}"], {}, "streamq.worker: queue name must not contain braces"),
        (["-p", "jobs", "--redis", "http://:hunter2@x"], {}, "streamq.worker: http://:***@x is no Redis URL"),
        (["-p", "jobs"], {"STREAMQ_LEASE": "x"}, "streamq.worker: STREAMQ_LEASE='x' in the environment"),
    ],
)
def test_wrong_arguments_end_with_code_2_and_one_line(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], text: str
) -> None:
    (tmp_path / "jobs.py").write_text(MODULE)
    done = run(tmp_path, *arguments, **environment)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_CONCURRENCY", "7")
    monkeypatch.setenv("STREAMQ_GRACE", "3")
    monkeypatch.setenv("REDIS_URL", "redis://env:1/0")
    settings = settings_of(parser().parse_args([]))
    assert (settings.concurrency, settings.grace, settings.redis_url) == (7, 3.0, "redis://env:1/0")
    settings = settings_of(parser().parse_args(["-c", "9", "-g", "0", "-r", "redis://said:1/0"]))
    assert (settings.concurrency, settings.grace, settings.redis_url) == (9, 0.0, "redis://said:1/0")


@pytest.mark.parametrize(
    ("text", "rate"),
    [(None, None), ("10/1", RateLimit(10, 1)), ("10/0.5", RateLimit(10, 0.5)), ("10", RateLimit(10, 1))],
)
def test_a_rate_is_read(text: str | None, rate: RateLimit | None) -> None:
    assert rate_of(text) == rate


@pytest.mark.parametrize("text", ["", "/", "a/1", "10/", "0/1", "10/0", "1.5/1", "10/-1"])
def test_a_rate_that_makes_no_sense_is_refused(text: str) -> None:
    if text == "10/":
        assert rate_of(text) == RateLimit(10, 1)
        return
    with pytest.raises(InvalidInput, match="--rate takes MAX/SECONDS"):
        rate_of(text)


def test_the_queues_are_those_named_or_those_of_the_processors_or_the_banks_seven() -> None:
    async def handle(job: object) -> None: ...

    bound, free = Processors(), Processors()
    bound.register("a", queue="emails")(handle)
    free.register("a")(handle)
    assert queues_of(" a, b,,", bound) == ["a", "b"]
    assert queues_of(None, bound) == ["emails"]
    assert len(queues_of(None, free)) == 7
