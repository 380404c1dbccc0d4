"""How the command ends: exit codes, outages, terminals, pipes; and the commands that are processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli import ESCAPES, PATIENCE, Cli
from tests.servers import RedisServer


@pytest.fixture
def cli(redis_url: str, tmp_path: Path) -> Cli:
    """The command, with an empty database."""
    return Cli(redis_url, tmp_path)


@pytest.mark.parametrize(
    "command", [("stats",), ("add", "q", "work"), ("events", "q"), ("top", "--once"), ("doctor",), ("workers",)]
)
def test_a_redis_that_is_away_ends_every_command_with_3(tmp_path: Path, command: tuple[str, ...]) -> None:
    away = Cli("redis://bank:hunter2@127.0.0.1:1/0", tmp_path, {"STREAMQ_TIMEOUT": "0.5"})
    done = away(*command, code=3)
    assert done.out == ""
    assert "no connection to Redis at" in done.err
    assert "127.0.0.1:1" in done.err
    assert "hunter2" not in done.err


def test_no_password_is_shown_whatever_is_wrong(cli: Cli, server: RedisServer, tmp_path: Path) -> None:
    server.call("ACL", "SETUSER", "bank", "on", ">hunter2", "~*", "+@all")
    good = f"redis://bank:hunter2@127.0.0.1:{server.port}/0"
    for url, code in ((good, 0), (good.replace("hunter2", "hunter3"), 3), ("redis://:hunter2/@x", 2)):
        done = cli("doctor", "q", "--json", "--redis", url, code=code)
        assert "hunter" not in done.out + done.err
    done = cli("stats", "q", f"--reddis={good}", code=2)
    assert "hunter2" not in done.err
    assert "redis://bank:***@" in done.err


def test_a_redis_that_refuses_ends_a_command_with_3(cli: Cli, server: RedisServer) -> None:
    server.call("CONFIG", "SET", "maxmemory", "1")
    done = cli("add", "q", "work", "--redis", server.url, code=3)
    assert "Redis refused: OOM" in done.err


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (("nope",), "invalid choice: 'nope'"),
        (("jobs", "q", "--state", "lost"), "'lost' is none of waiting"),
        (("add", "q", "work", "{bad"), "the data is no JSON"),
        (("add", "q", "work", "NaN"), "NaN is no JSON value"),
        (("add", "q", "work", "hello"), "text needs double quotes"),
        (("add", "q", "work", "@nowhere.json"), "can't be read"),
        (("add", "q", "work", "--id", "17"), "must not be all digits"),
        (("add", "q", "work", "--delay", "5m", "--at", "2100-01-01"), "give delay or run_at, not both"),
        (("stats", "a{b"), "must not contain braces"),
        (("top", "q"), "use --once, or --json"),
        (("events", "q", "--after", "x"), "after must be the id of an event"),
        (("--redis", "x", "worker"), "streamq worker --help"),
        ((), "usage: streamq COMMAND"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(cli: Cli, command: tuple[str, ...], complaint: str) -> None:
    done = cli(*command, code=2)
    assert complaint in done.err
    assert done.out == ""


def test_options_that_all_commands_take_may_stand_before_it(cli: Cli, tmp_path: Path) -> None:
    elsewhere = Cli("redis://127.0.0.1:1/0", tmp_path)
    assert elsewhere("--redis", cli.url, "--json", "stats", "q").record["queue"] == "q"


def test_a_reader_that_goes_away_ends_the_command_quietly(cli: Cli) -> None:
    cli("add", "q", "work", "-", "--lines", stdin="1\n" * 2_000)
    process = cli.start("jobs", "q", "--all", "--json")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_an_interrupted_command_ends_with_130(cli: Cli) -> None:
    cli("add", "q", "work")
    process = cli.start("events", "q", "--after", "0-0")
    assert process.stdout is not None
    assert "added" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert process.communicate()[1] == ""


# Terminals ------------------------------------------------------------------------------------------------------------


def test_a_terminal_gets_a_drawn_table_and_a_pipe_a_plain_one(cli: Cli) -> None:
    drawn = cli.on_terminal("stats", "q").out
    assert "─" in drawn
    assert "\x1b[" in drawn
    plain = cli("stats", "q").out
    assert "─" not in plain
    assert "\x1b" not in plain


def test_top_takes_the_screen_and_gives_it_back(cli: Cli) -> None:
    cli("add", "q", "work")
    done = cli.on_terminal("top", "q", "--interval", "200ms", until="Ctrl-C ends", interrupt=True)
    assert done.code == 0
    assert "\x1b[?1049h" in done.out
    assert "\x1b[?1049l" in done.out
    assert "added/s" in ESCAPES.sub("", done.out)


def test_top_tells_of_an_outage_and_goes_on_afterwards(server: RedisServer, tmp_path: Path) -> None:
    cli = Cli(server.url, tmp_path, {"STREAMQ_TIMEOUT": "0.3"})
    process = cli.start("top", "q", "--json", "--interval", "100ms")
    assert process.stdout is not None
    assert process.stderr is not None
    assert '"waiting": 0' in process.stdout.readline()
    server.stop()
    assert "Redis" in process.stderr.readline()
    server.start()
    cli("add", "q", "work")
    while '"waiting": 1' not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_without_rich_tables_are_plain_and_top_names_the_extra(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "rich.py").write_text("raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')")
    without = Cli(cli.url, tmp_path, {"PYTHONPATH": str(tmp_path / "blocked")})
    plain = without.on_terminal("stats", "q")
    assert plain.code == 0
    assert "QUEUE" in plain.out
    assert "─" not in plain.out
    top = without.on_terminal("top", "q")
    assert top.code == 2
    assert "pip install 'streamq[cli]'" in top.out


# Commands that are processes ------------------------------------------------------------------------------------------


def test_worker_and_demo_read_their_own_arguments(cli: Cli) -> None:
    assert "--processors MODULE[:NAME]" in cli("worker", "--help").out
    assert "--folder" in cli("demo", "--help").out
    assert "no_such_module" in cli("worker", "--processors", "no_such_module", code=2).err


@pytest.mark.skipif(sys.platform == "win32", reason="no embedded server there")
@pytest.mark.usefixtures("server")  # skips where no server can be had
def test_the_server_runs_until_it_is_told_to_end(tmp_path: Path) -> None:
    cli = Cli("", tmp_path)
    process = cli.start("server", "--data-dir", "data", "--json")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert '"url": "unix://' in line
    url = line.split('"url": "')[1].split('"')[0]
    assert cli("--redis", url, "add", "q", "work").code == 0
    process.terminate()
    assert process.wait(PATIENCE) == 0
    process.communicate()
    named = Cli("redis://127.0.0.1:1/0", tmp_path)("server", "--data-dir", "data", code=1)
    assert "nothing was started" in named.err


@pytest.mark.usefixtures("server")
def test_a_server_that_stays_outlives_the_command_until_it_may_end(tmp_path: Path) -> None:
    cli = Cli("", tmp_path)
    url = cli("server", "--data-dir", "data", "--stay").out.strip()
    try:
        assert cli("--redis", url, "add", "q", "work").code == 0
    finally:
        cli("server", "--data-dir", "data", "--stop")


# Import ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("--help",), ("stats", "--help"), ("jobs", "q", "--state", "lost")], ids=" ".join)
def test_help_and_usage_errors_import_neither_redis_nor_rich(command: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom streamq.cli import main\n"
        f"try: main({list(command)!r})\nexcept SystemExit: pass\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'redis', 'rich'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stderr.splitlines()[-1] == "[]"
