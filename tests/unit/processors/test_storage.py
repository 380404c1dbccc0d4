from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq.errors import InvalidInput
from streamq.processors.storage import FolderStorage, check_name, open_storage, safe_part


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    return open_storage(str(tmp_path / "files") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path):
    return FolderStorage(tmp_path / "files")


def put(storage, name, content):
    with storage.create(name) as draft:
        draft.file.write(content)
    return draft.result


def test_a_file_is_read_back_as_it_was_written(storage):
    stored = put(storage, "reports/2024/november.csv", b"a,b\n")
    assert (stored.size, stored.sha256) == (4, hashlib.sha256(b"a,b\n").hexdigest())
    with storage.read("reports/2024/november.csv") as file:
        assert file.read() == b"a,b\n"
        assert file.seek(2) == 2
    assert storage.names() == ["reports/2024/november.csv"]


def test_a_second_file_of_the_same_name_replaces_the_first(storage):
    put(storage, "a.csv", b"one")
    put(storage, "a.csv", b"two")
    with storage.read("a.csv") as file:
        assert file.read() == b"two"
    assert storage.names() == ["a.csv"]


def test_a_missing_file_is_said_to_be_missing_and_deleting_it_does_nothing(storage):
    with pytest.raises(FileNotFoundError), storage.read("nowhere.csv"):
        pass
    assert storage.delete("nowhere.csv") is False
    put(storage, "here.csv", b"")
    assert storage.delete("here.csv") is True
    assert storage.names() == []


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(storage):
    put(storage, "a.csv", b"old")

    def fail_half_way():
        with storage.create("a.csv") as draft:
            draft.file.write(b"half")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail_half_way()
    with storage.read("a.csv") as file:
        assert file.read() == b"old"
    assert storage.names() == ["a.csv"]


def test_an_unfinished_file_is_not_seen_by_others(folder, tmp_path):
    with folder.create("a.csv") as draft:
        draft.file.write(b"half")
        draft.file.flush()
        assert folder.names() == []
        assert not (tmp_path / "files" / "a.csv").exists()
    assert folder.names() == ["a.csv"]


def test_a_writer_that_is_killed_leaves_nothing_and_its_leftovers_go_in_time(folder, tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from streamq.processors.storage import FolderStorage\n"
        "with FolderStorage(Path(sys.argv[1])).create('a.csv') as draft:\n"
        "    draft.file.write(b'half'); draft.file.flush(); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "files")], check=False).returncode == -9
    assert folder.names() == []
    (leftover,) = (tmp_path / "files" / ".parts").iterdir()
    put(folder, "b.csv", b"")
    assert leftover.exists()  # young: its writer may still be at work
    os.utime(leftover, (0, 0))
    put(folder, "b.csv", b"")
    assert not leftover.exists()


@pytest.mark.parametrize(
    "name",
    [
        "", "..", "../a", "a/../../b", "/etc/passwd", "//server/share", "a//b", "a/", "./a", ".hidden", ".parts/x",
        "a\x00.csv", "a\nb", "..\\a", "a\\b", "C:\\a", "C:a", "a:stream", "con", "NUL.txt", "lpt1", "a.", "a ",
        "x" * 201, "x/" * 200 + "x", "\ud800", "a*b", None, 7, b"a",
    ],
)  # fmt: skip
def test_a_name_that_could_leave_the_folder_is_refused(storage, name):
    with pytest.raises(InvalidInput), storage.create(name):
        pass
    with pytest.raises(InvalidInput), storage.read(name):
        pass
    with pytest.raises(InvalidInput):
        storage.delete(name)
    assert storage.names() == []


@given(st.text(max_size=40))
def test_every_accepted_name_stays_below_the_folder(name):
    try:
        parts = check_name(name)
    except InvalidInput:
        return
    root = "/srv/files"
    path = os.path.normpath(os.path.join(root, *parts))
    assert path == f"{root}/{name}"


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_becomes_a_plain_part_and_different_texts_stay_different(one, other):
    for text in (one, other):
        check_name(f"{safe_part(text)}.csv")
    assert (safe_part(one) == safe_part(other)) == (one == other)


def test_a_symbolic_link_is_not_followed_out_of_the_folder(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(b"secret")
    (tmp_path / "files" / "link").symlink_to(outside)
    (tmp_path / "files" / "secret.txt").symlink_to(outside / "secret.txt")
    for name in ("link/secret.txt", "secret.txt"):
        with pytest.raises(InvalidInput, match="is not a plain file"), folder.read(name):
            pass
    with pytest.raises(InvalidInput), folder.create("link/new.txt"):
        pass
    put(folder, "secret.txt", b"mine")  # the link itself is replaced, not what it leads to
    assert (outside / "secret.txt").read_bytes() == b"secret"
    assert sorted(path.name for path in outside.iterdir()) == ["secret.txt"]


def test_the_storage_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMQ_STORAGE_URL", f"file://{tmp_path}/there")
    put(open_storage(), "a.csv", b"1")
    assert (tmp_path / "there" / "a.csv").read_bytes() == b"1"
    with pytest.raises(InvalidInput, match="no storage at nosuch://x"):
        open_storage("nosuch://x")
