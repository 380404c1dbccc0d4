"""Where large payloads lie: in a folder, or in whatever fsspec reaches (extra `offload`).

A name is a day, a slash and 32 hexadecimal digits. An object is written once, whole, and never changed. Everything here
blocks, and may be called from several threads at once; `streamq.offload` says when objects are written and deleted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from streamq.errors import InvalidInput


class PayloadStore(Protocol):
    """What `Offload` needs of a place for payloads. All may raise any exception where it can't be reached."""

    def put(self, name: str, body: bytes) -> None:
        """Write an object; it is there, whole and safe, when this returns."""

    def get(self, name: str, most: int) -> bytes:
        """Return an object, or its first `most` bytes; raise FileNotFoundError if there is none."""

    def days(self) -> list[str]:
        """Return the days that have objects, as 2026-11-25."""

    def names(self, day: str) -> Iterator[str]:
        """Yield the names of a day's objects."""

    def delete(self, name: str) -> None:
        """Delete an object, which may be gone already."""


class FolderStore:
    """Objects as files below a folder, which is created. Each is on the disk when `put` returns."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self._root.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<FolderStore {self._root}>"

    def put(self, name: str, body: bytes) -> None:
        """Write a file under another name, and give it its own when it is whole."""
        path = self._root / name
        if not path.parent.exists():
            path.parent.mkdir(mode=0o750, exist_ok=True)
            _sync(self._root)
        part = path.with_suffix(".part")
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
            with os.fdopen(handle, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync(path.parent)

    def get(self, name: str, most: int) -> bytes:
        """Read a file."""
        with (self._root / name).open("rb") as file:
            return file.read(most)

    def days(self) -> list[str]:
        """Return the folders below this one."""
        return sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False))

    def names(self, day: str) -> Iterator[str]:
        """Yield the files of a folder, those that were left unfinished too."""
        for entry in os.scandir(self._root / day):
            yield f"{day}/{entry.name}"

    def delete(self, name: str) -> None:
        """Delete a file, and its day's folder with the last one."""
        path = self._root / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not empty, or gone
            path.parent.rmdir()


class FsspecStore:
    """Objects in a bucket, or whatever else fsspec has a protocol for; `options` are those of its file system."""

    def __init__(self, url: str, **options: Any) -> None:
        try:
            import fsspec  # type: ignore[import-untyped]

            self._fs: Any
            self._fs, root = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            raise InvalidInput(f'no payloads can be stored there: {error} (pip install "streamq[offload]")') from error
        self._root = root.rstrip("/")
        self._where = f"{url.partition('://')[0]}://{self._root.lstrip('/')}"
        self._made: set[str] = set()

    def __repr__(self) -> str:
        return f"<FsspecStore {self._where}>"

    def put(self, name: str, body: bytes) -> None:
        """Write an object in one piece."""
        day = name.partition("/")[0]
        if day not in self._made:
            self._fs.makedirs(f"{self._root}/{day}", exist_ok=True)
            self._made.add(day)
        self._fs.pipe_file(f"{self._root}/{name}", body)

    def get(self, name: str, most: int) -> bytes:
        """Read an object."""
        body: bytes = self._fs.cat_file(f"{self._root}/{name}", start=0, end=most)
        return body

    def days(self) -> list[str]:
        """Return the folders below the URL, or what stands for such."""
        return self._below(self._root)

    def names(self, day: str) -> Iterator[str]:
        """Yield the objects of a day."""
        for found in self._below(f"{self._root}/{day}"):
            yield f"{day}/{found}"

    def delete(self, name: str) -> None:
        """Delete an object."""
        try:
            self._fs.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return

    def _below(self, folder: str) -> list[str]:
        try:
            found = self._fs.ls(folder, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)


def open_store(url: str, *, create: bool = True) -> PayloadStore:
    """Return the store at `url`: a path or file:// URL is a folder, any other one fsspec's (s3://bucket/payloads).

    A folder is created if it is not there, unless `create` is false.

    Raises:
        InvalidInput: fsspec knows no such protocol, or its package is not installed; or a folder is not to be created.
    """
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    if "://" in url:
        return FsspecStore(url)
    if not create and not Path(url).is_dir():
        raise InvalidInput(f"{url} is no folder")
    return FolderStore(Path(url))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
