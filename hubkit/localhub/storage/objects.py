"""Contents: each is one file named by its SHA-256. A file gets that name only when it is complete and on disk."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from hubkit.localhub.storage.errors import ApiError

__all__ = ["Batch", "Entry", "Objects", "Upload", "git_oid", "pointer", "sync_folder"]

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_AT_ONCE: Final = 16
"""Files synced to disk at the same time: the disk's own journal then does several in one go."""


class Entry(NamedTuple):
    """A file in a tree."""

    oid: str
    size: int
    sha256: str
    lfs: bool


def git_oid(data: bytes) -> str:
    """Returns git's id of a blob, which clients compare to skip unchanged files."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """Returns the LFS pointer that git stores in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that renames into it survive a power failure."""
    _sync(folder)


class Objects:
    def __init__(self, folder: Path) -> None:
        self._folder = folder / "objects"
        self._temporary = folder / "tmp"
        for path in (self._folder, self._temporary):
            path.mkdir(exist_ok=True)

    def path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise ApiError(400, "not a sha256")
        return self._folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def read(self, entry: Entry) -> bytes:
        return self.path(entry.sha256).read_bytes()

    def temporary(self) -> Path:
        """Returns an unused path for an upload in progress."""
        return self._temporary / secrets.token_hex(16)

    def clear_temporary(self) -> None:
        """Delete the unfinished uploads of a server that was killed."""
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(exist_ok=True)

    def lfs_entry(self, sha256: str, size: int | None) -> Entry:
        """Returns the tree entry of a large file. Raises ApiError if its content has not been uploaded."""
        path = self.path(sha256)
        if not path.is_file():
            raise ApiError(400, f"content {sha256} was not uploaded", "LfsObjectNotFound")
        real = path.stat().st_size
        if size is not None and size != real:
            raise ApiError(400, f"content {sha256} has {real} bytes, not {size}")
        return Entry(git_oid(pointer(sha256, real)), real, sha256, lfs=True)


class Upload:
    """An upload in progress: written to tmp/, hashed as it comes, renamed when it is complete."""

    def __init__(self, objects: Objects, limit: int) -> None:
        self._objects = objects
        self._limit = limit
        self.path = objects.temporary()
        self._file: BinaryIO = self.path.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise ApiError(413, f"more than the {self._limit} bytes announced")
        self._hash.update(data)
        self._file.write(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def keep(self, final: Path, check: Callable[[Path], None] | None = None) -> None:
        """Sync the content to disk and give it its final name."""
        self._file.flush()
        if check is not None:
            check(self.path)
        os.fsync(self._file.fileno())
        self._file.close()
        final.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(final)
        sync_folder(final.parent)
        sync_folder(final.parent.parent)

    def keep_object(self, sha256: str | None = None, size: int | None = None) -> str:
        """Store the content as an object. Raises ApiError if its SHA-256 or size is not the announced one."""
        if sha256 is not None and (self.sha256 != sha256 or self.size != size):
            raise ApiError(400, f"content does not match sha256 {sha256} and size {size}", "HashMismatch")
        final = self._objects.path(self.sha256)
        if final.exists():
            self.drop()
        else:
            self.keep(final)
        return self.sha256

    def drop(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()


class Batch:
    """The small files of one commit. Syncing each for itself would take most of a large commit's time."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._written: dict[str, Path] = {}

    def add(self, data: bytes) -> Entry:
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 not in self._written and not self._objects.has(sha256):
            path = self._objects.temporary()
            self._written[sha256] = path
            path.write_bytes(data)
        return Entry(git_oid(data), len(data), sha256, lfs=False)

    def keep(self) -> None:
        """Sync all of them to disk and give them their final names."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(_sync, self._written.values()))
            folders = set()
            for sha256, path in self._written.items():
                final = self._objects.path(sha256)
                final.parent.mkdir(exist_ok=True)
                path.replace(final)
                folders.add(final.parent)
            list(pool.map(_sync, folders))
        for parent in {folder.parent for folder in folders}:
            sync_folder(parent)
        self._written = {}

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._written.values():
            path.unlink(missing_ok=True)
