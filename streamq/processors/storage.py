"""Keep the files that jobs read and write: in a folder, or in an object store through fsspec.

Names are relative paths with forward slashes; a name that could leave the folder is refused before anything is
touched, and a symbolic link on the way is not followed. A file appears whole or not at all: it is written beside,
synced, and renamed. Functions block: call them in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import msgspec

from streamq.errors import InvalidInput

T = TypeVar("T")

DEFAULT_FOLDER = "streamq-files"
_PARTS = ".parts"
_PART_AGE = 86_400  # seconds; an unfinished file this old has no writer any more
_MAX_NAME, _MAX_PART = 400, 200
_REFUSED = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|\ud800-\udfff]')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|\Z)", re.IGNORECASE)
_HASHED = re.compile(r"-[0-9a-f]{8}\Z")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class StoredFile(msgspec.Struct, frozen=True, rename="camel"):
    """A file that the storage holds: its name there, where that is for a person, its size in bytes and its hash."""

    name: str
    location: str
    size: int
    sha256: str


class Draft:
    """A file being written. `file` is open for writing; `stored` is set once the block has ended well."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.stored: StoredFile | None = None

    @property
    def result(self) -> StoredFile:
        """The stored file, after the block."""
        if self.stored is None:
            raise RuntimeError("the file is not stored yet")
        return self.stored


class Storage(Protocol):
    """What the processors need of a place for files."""

    def create(self, name: str) -> AbstractContextManager[Draft]:
        """Open a new file for writing; it replaces one of the same name when the block ends, unless it raises."""

    def read(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading, seekable. Raises FileNotFoundError."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def delete(self, name: str) -> bool:
        """Delete a file; return whether it was there."""


def check_name(name: str) -> list[str]:
    """Return the parts of a file name that can't leave the folder.

    Raises:
        InvalidInput: It is empty, too long or absolute, has a part that is empty or starts with a dot (so `..`, too),
            or has a character that some file system gives a meaning: backslash, colon, NUL, a wildcard, a lone
            surrogate.
    """
    if not isinstance(name, str) or not name:
        raise InvalidInput("a file name must be text, and not empty")
    shown = repr(name[:80])
    if _REFUSED.search(name):
        raise InvalidInput(f'a file name must not contain control characters or any of \\ : * ? " < > |: {shown}')
    if len(name.encode()) > _MAX_NAME:
        raise InvalidInput(f"a file name takes at most {_MAX_NAME} bytes: {shown}")
    parts = name.split("/")
    for part in parts:
        if not part or part.startswith(".") or part.endswith((".", " ")) or _DEVICES.match(part):
            raise InvalidInput(f"a file name must be a plain relative path: {shown}")
        if len(part.encode()) > _MAX_PART:
            raise InvalidInput(f"each part of a file name takes at most {_MAX_PART} bytes: {shown}")
    return parts


def safe_part(text: str) -> str:
    """Return `text` as one part of a file name: unchanged if it is plain, else cleaned and made unique by a hash."""
    cleaned = _UNSAFE.sub("-", text).strip("-")[:60]
    if cleaned and cleaned == text and not _HASHED.search(text) and not _DEVICES.match(text):
        return text
    return f"{cleaned or 'x'}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a blocking context manager in a thread: `async with in_thread(storage.create(name)) as draft`."""
    value = await asyncio.to_thread(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        if not await asyncio.to_thread(manager.__exit__, type(error), error, error.__traceback__):
            raise
    else:
        await asyncio.to_thread(manager.__exit__, None, None, None)


def open_storage(url: str | None = None) -> Storage:
    """Return the storage at `url`, else STREAMQ_STORAGE_URL, else the folder `streamq-files`.

    A path or file:// URL is a folder, which is created; any other URL (s3://bucket/prefix) is fsspec's.

    Raises:
        InvalidInput: fsspec knows no such protocol, or its package is not installed.
    """
    url = url or os.environ.get("STREAMQ_STORAGE_URL") or DEFAULT_FOLDER
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    if "://" not in url:
        return FolderStorage(Path(url))
    try:
        return RemoteStorage(url)
    except (ValueError, ImportError) as error:
        raise InvalidInput(f"no storage at {url}: {error}") from error


class FolderStorage:
    """Files in one folder. Every step below it is opened without following symbolic links."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self._root.mkdir(parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<FolderStorage {self._root}>"

    @contextmanager
    def create(self, name: str) -> Iterator[Draft]:
        parts = check_name(name)
        with self._folder([_PARTS], make=True) as beside, self._folder(parts[:-1], make=True) as folder:
            _remove_leftovers(beside)
            part = f"{secrets.token_hex(8)}.part"
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640, dir_fd=beside)
            try:
                with os.fdopen(handle, "w+b") as file:
                    draft = Draft(file)
                    yield draft
                    file.flush()
                    os.fsync(file.fileno())
                    file.seek(0)
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    size = file.tell()
                os.rename(part, parts[-1], src_dir_fd=beside, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=beside)
                raise
            os.fsync(folder)
            draft.stored = StoredFile(name, str(self._root.joinpath(*parts)), size, digest)

    @contextmanager
    def read(self, name: str) -> Iterator[BinaryIO]:
        parts = check_name(name)
        with self._folder(parts[:-1]) as folder:
            handle = _refuse_links(name, parts[-1], os.O_RDONLY, folder)
        with os.fdopen(handle, "rb") as file:
            yield file

    def names(self) -> list[str]:
        found = []
        for folder, below, files in os.walk(self._root):
            below[:] = [name for name in below if not name.startswith(".")]
            inside = Path(folder).relative_to(self._root)
            found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
        return sorted(found)

    def delete(self, name: str) -> bool:
        parts = check_name(name)
        try:
            with self._folder(parts[:-1]) as folder:
                os.unlink(parts[-1], dir_fd=folder)
                os.fsync(folder)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _folder(self, parts: list[str], *, make: bool = False) -> Iterator[int]:
        """Open the folder `parts` below the root, one step at a time."""
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o750, dir_fd=handle)
                        os.fsync(handle)
                below = _refuse_links("/".join(parts), part, os.O_RDONLY | os.O_DIRECTORY, handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)


class RemoteStorage:
    """Files in whatever fsspec reaches. They are written to a local temporary file, then put in one piece."""

    def __init__(self, url: str) -> None:
        import fsspec  # type: ignore[import-untyped]

        self._fs: Any
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root, self._url = root.rstrip("/"), url.rstrip("/")

    def __repr__(self) -> str:
        return f"<RemoteStorage {self._url}>"

    @contextmanager
    def create(self, name: str) -> Iterator[Draft]:
        path = self._path(name)
        with tempfile.NamedTemporaryFile(suffix=".part") as file:
            draft = Draft(file)  # type: ignore[arg-type]  # a wrapper with all of a BinaryIO
            yield draft
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(file.name, path)
        draft.stored = StoredFile(name, f"{self._url}/{name}", size, digest)

    @contextmanager
    def read(self, name: str) -> Iterator[BinaryIO]:
        path = self._path(name)
        with tempfile.TemporaryFile() as file:
            with self._fs.open(path, "rb") as remote:
                while chunk := remote.read(1 << 20):
                    file.write(chunk)
            file.seek(0)
            yield file

    def names(self) -> list[str]:
        return sorted(path.removeprefix(self._root).lstrip("/") for path in self._fs.find(self._root))

    def delete(self, name: str) -> bool:
        path = self._path(name)
        if not self._fs.exists(path):
            return False
        self._fs.rm_file(path)
        return True

    def _path(self, name: str) -> str:
        return "/".join([self._root, *check_name(name)])


def _refuse_links(name: str, part: str, flags: int, folder: int) -> int:
    try:
        return os.open(part, flags | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        raise FileNotFoundError(f"the storage has no file {name}") from None
    except OSError as error:
        raise InvalidInput(f"{name} is not a plain file below the storage's folder ({error.strerror})") from None


def _remove_leftovers(folder: int) -> None:
    """Remove unfinished files whose writers were killed long ago."""
    limit = time.time() - _PART_AGE
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):
            if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < limit:
                os.unlink(name, dir_fd=folder)
