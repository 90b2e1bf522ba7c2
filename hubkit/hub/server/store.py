"""What the local Hub keeps: repos, commits, refs and collections in SQLite, contents as files.

    folder/hub.sqlite      repos, commits, refs, trees, collections
    folder/objects/ab/…    every file's content once, named by its sha256
    folder/xorbs/ab/…      what xet clients uploaded (see xet.py)
    folder/tmp/            uploads on their way; emptied when a server starts

A content reaches its final name complete and synced to disk before the one SQLite transaction that makes
a commit point to it. A server killed at any moment therefore has a commit wholly or not at all.

A tree is one JSON document {path: [git oid, size, sha256, is LFS]}, stored once under its own sha256.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

__all__ = [
    "Change",
    "Commit",
    "Entry",
    "Repo",
    "Store",
    "StoreError",
    "Tree",
    "Upload",
    "check_path",
    "check_ref",
    "check_repo_name",
    "git_oid",
    "pointer",
    "tree_oid",
]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS repos (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL, created TEXT NOT NULL, settings TEXT NOT NULL, UNIQUE (kind, name));
CREATE TABLE IF NOT EXISTS trees (key TEXT PRIMARY KEY, entries TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS commits (
    repo INTEGER NOT NULL REFERENCES repos (id) ON DELETE CASCADE, sha TEXT NOT NULL, parent TEXT,
    tree TEXT NOT NULL REFERENCES trees (key), title TEXT NOT NULL, message TEXT NOT NULL,
    author TEXT NOT NULL, date TEXT NOT NULL, PRIMARY KEY (repo, sha));
CREATE TABLE IF NOT EXISTS refs (
    repo INTEGER NOT NULL REFERENCES repos (id) ON DELETE CASCADE, name TEXT NOT NULL, sha TEXT NOT NULL,
    PRIMARY KEY (repo, name));
CREATE TABLE IF NOT EXISTS collections (
    slug TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, data TEXT NOT NULL,
    UNIQUE (owner, title));
"""
_VERSION: Final = "1"

_REPO_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_REF_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}")
_SHA: Final = re.compile(r"[0-9a-f]{7,40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_LONGEST_PATH: Final = 1024

GITATTRIBUTES: Final = "".join(
    f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n"
    for ending in ("bin", "gguf", "onnx", "parquet", "pt", "safetensors", "zst")
)


class StoreError(Exception):
    """A request that cannot be done. `code` is what clients read from X-Error-Code."""

    def __init__(self, status: int, message: str, code: str = "", **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.extra = extra


class Entry(NamedTuple):
    """A file in a tree."""

    oid: str
    size: int
    sha256: str
    lfs: bool


Tree = dict[str, Entry]


@dataclass(frozen=True)
class Repo:
    id: int
    kind: str
    name: str
    private: bool
    created: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    tree: str
    title: str
    message: str
    author: str
    date: str


@dataclass(frozen=True)
class Change:
    """One operation of a commit; entry None deletes."""

    path: str
    entry: Entry | None
    folder: bool = False


def git_oid(data: bytes) -> str:
    """The id git gives a blob; clients compare it to skip files that did not change."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """The text that git would hold in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_oid(tree: Tree, folder: str) -> str:
    """Id of a folder: changes when anything in it does."""
    inside = sorted((path, entry.oid) for path, entry in tree.items() if path.startswith(folder + "/"))
    return hashlib.sha1(json.dumps(inside).encode(), usedforsecurity=False).hexdigest()


def check_path(path: str) -> str:
    """Refuse names that would leave the repo when somebody downloads it, or that git could not hold."""
    parts = path.split("/")
    bad = (
        not path
        or len(path.encode("utf-8", "surrogatepass")) > _LONGEST_PATH
        or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or any(ord(char) < 32 or ord(char) == 127 or char == "\\" for char in path)
        or re.match(r"[A-Za-z]:", path) is not None
        or any("\ud800" <= char <= "\udfff" for char in path)
    )
    if bad:
        raise StoreError(400, f"not a path for a repo: {path!r}", "BadPath")
    return path


def check_repo_name(name: str) -> str:
    """namespace/name, both as the Hub allows them."""
    parts = name.split("/")
    good = len(parts) == 2 and all(
        _REPO_NAME.fullmatch(part)
        and ".." not in part
        and "--" not in part
        and not part.endswith((".", "-", ".git", ".ipynb"))
        for part in parts
    )
    if not good:
        raise StoreError(400, f"not a repo id: {name!r}", "BadRepoId")
    return name


def check_ref(name: str) -> str:
    bad = (
        not _REF_NAME.fullmatch(name)
        or ".." in name
        or "//" in name
        or name.endswith(("/", ".", ".lock"))
        or name.startswith("refs/")
        or re.fullmatch(r"[0-9a-f]{40}", name) is not None
    )
    if bad:
        raise StoreError(400, f"not a name for a branch or tag: {name!r}", "BadRefName")
    return name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Upload:
    """A content on its way in: written to tmp/, hashed as it comes, renamed when it is whole."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit
        self.path = store.temporary()
        self._file: BinaryIO = self.path.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise StoreError(413, f"more than the {self._limit} bytes announced")
        self._hash.update(data)
        self._file.write(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def keep(self, final: Path) -> None:
        """Make the content visible under its name, durably."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        final.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(final)
        _sync_folder(final.parent)
        _sync_folder(final.parent.parent)

    def check_then_keep(self, final: Path, check: Callable[[Path], None]) -> None:
        self._file.flush()
        check(self.path)
        self.keep(final)

    def keep_object(self, sha256: str | None = None, size: int | None = None) -> str:
        """Keep as an object, if it is what was announced."""
        if sha256 is not None and (self.sha256 != sha256 or self.size != size):
            raise StoreError(400, f"content does not match sha256 {sha256} and size {size}", "HashMismatch")
        final = self._store.object_path(self.sha256)
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


class Store:
    """All state of a local Hub. Safe for use from several threads; one process at a time (see __main__)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # What may be private must not be readable by others on a shared machine.
        folder.chmod(0o700)
        for name in ("objects", "xorbs", "tmp"):
            (folder / name).mkdir(exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / "hub.sqlite", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(_SCHEMA)
        self._tree_of = functools.lru_cache(maxsize=64)(self._load_tree)
        if self.meta("version", lambda: _VERSION) != _VERSION:
            raise StoreError(500, "this folder was made by another version of the local Hub")
        self.id = self.meta("id", lambda: secrets.token_hex(8))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def clear_temporary(self) -> None:
        """Throw away what a killed server left half-way."""
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        (self.folder / "tmp").mkdir(exist_ok=True)

    # Contents

    def temporary(self) -> Path:
        return self.folder / "tmp" / secrets.token_hex(16)

    def object_path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise StoreError(400, "not a sha256")
        return self.folder / "objects" / sha256[:2] / sha256

    def has_object(self, sha256: str) -> bool:
        return self.object_path(sha256).is_file()

    def put_bytes(self, data: bytes) -> Entry:
        """Keep the content of a small file, and return the entry a tree has for it."""
        with Upload(self, len(data)) as upload:
            upload.write(data)
            sha256 = upload.keep_object()
        return Entry(git_oid(data), len(data), sha256, lfs=False)

    def lfs_entry(self, sha256: str, size: int | None) -> Entry:
        """Entry for a large file whose content is here already."""
        path = self.object_path(sha256)
        if not path.is_file():
            raise StoreError(400, f"content {sha256} was not uploaded", "LfsObjectNotFound")
        real = path.stat().st_size
        if size is not None and size != real:
            raise StoreError(400, f"content {sha256} has {real} bytes, not {size}")
        return Entry(git_oid(pointer(sha256, real)), real, sha256, lfs=True)

    # Settings of the server

    def meta(self, key: str, default: Any = None) -> str:
        """A value of the whole Hub; made by `default` when there is none yet."""
        with self._change() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            if row is None:
                value = default() if default is not None else ""
                if value:
                    db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))
                return str(value)
            return str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        with self._change() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction; nested uses join it."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # Repos

    def create_repo(
        self, kind: str, name: str, private: bool, author: str, settings: dict[str, Any] | None = None
    ) -> Repo:
        check_repo_name(name)
        attributes = self.put_bytes(GITATTRIBUTES.encode())
        with self._change() as db:
            if self.find_repo(kind, name) is not None:
                raise StoreError(409, f"{kind} {name} exists already")
            row = (kind, name, private, _now(), json.dumps(settings or {}))
            db.execute(
                "INSERT INTO repos (kind, name, private, created, settings) VALUES (?, ?, ?, ?, ?)", row
            )
            repo = self.repo(kind, name)
            tree = {".gitattributes": attributes}
            commit = self._add_commit(repo, None, tree, "initial commit", "", author)
            db.execute("INSERT INTO refs VALUES (?, 'refs/heads/main', ?)", (repo.id, commit.sha))
        return repo

    def find_repo(self, kind: str, name: str) -> Repo | None:
        for row in self._rows("SELECT * FROM repos WHERE kind = ? AND name = ?", kind, name):
            return _repo(row)
        return None

    def repo(self, kind: str, name: str) -> Repo:
        repo = self.find_repo(kind, name)
        if repo is None:
            raise StoreError(404, f"no {kind} {name}", "RepoNotFound")
        return repo

    def repos(self, kind: str) -> list[Repo]:
        return [_repo(row) for row in self._rows("SELECT * FROM repos WHERE kind = ? ORDER BY name", kind)]

    def update_repo(self, repo: Repo, private: bool | None, settings: dict[str, Any]) -> None:
        with self._change() as db:
            repo = self.repo(repo.kind, repo.name)
            merged = json.dumps(repo.settings | settings)
            hidden = repo.private if private is None else private
            db.execute("UPDATE repos SET private = ?, settings = ? WHERE id = ?", (hidden, merged, repo.id))

    def move_repo(self, repo: Repo, name: str) -> None:
        check_repo_name(name)
        with self._change() as db:
            other = self.find_repo(repo.kind, name)
            if other is not None and other.id != repo.id:
                raise StoreError(409, f"{repo.kind} {name} exists already")
            db.execute("UPDATE repos SET name = ? WHERE id = ?", (name, repo.id))
            for slug, data in self._collections():
                for item in data["items"]:
                    if (item["type"], item["id"]) == (repo.kind, repo.name):
                        item["id"] = name
                self._put_collection(slug, data)

    def delete_repo(self, repo: Repo) -> None:
        with self._change() as db:
            db.execute("DELETE FROM repos WHERE id = ?", (repo.id,))
            for slug, data in self._collections():
                kept = [i for i in data["items"] if (i["type"], i["id"]) != (repo.kind, repo.name)]
                if len(kept) != len(data["items"]):
                    self._put_collection(slug, data | {"items": kept})

    # Commits

    def _load_tree(self, key: str) -> Tree:
        (row,) = self._rows("SELECT entries FROM trees WHERE key = ?", key)
        return {path: Entry(*entry) for path, entry in json.loads(row["entries"]).items()}

    def tree(self, commit: Commit) -> Tree:
        """Files of a commit. Shared: do not change it."""
        return self._tree_of(commit.tree)

    def _add_commit(
        self, repo: Repo, parent: Commit | None, tree: Tree, title: str, message: str, author: str
    ) -> Commit:
        entries = json.dumps(dict(sorted(tree.items())), separators=(",", ":"))
        key = hashlib.sha256(entries.encode()).hexdigest()
        date = _now()
        parent_sha = parent.sha if parent else None
        # The nonce keeps equal commits of two repos, or of one millisecond, apart.
        identity = json.dumps([key, parent_sha, title, message, author, date, secrets.token_hex(8)])
        sha = hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest()
        with self._change() as db:
            db.execute("INSERT OR IGNORE INTO trees VALUES (?, ?)", (key, entries))
            values = (repo.id, sha, parent_sha, key, title, message, author, date)
            db.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        return Commit(sha, parent_sha, key, title, message, author, date)

    def commit(
        self,
        repo: Repo,
        branch: str,
        changes: list[Change],
        title: str,
        message: str,
        author: str,
        parent: str | None = None,
    ) -> Commit:
        """Apply changes in their order to a branch. Without an effect there is no new commit."""
        with self._change() as db:
            ref = f"refs/heads/{branch}"
            found = self._rows("SELECT sha FROM refs WHERE repo = ? AND name = ?", repo.id, ref)
            if not found:
                raise StoreError(404, f"no branch {branch}", "RevisionNotFound")
            head = self._commit(repo, found[0]["sha"])
            if parent is not None and (len(parent) < 7 or not head.sha.startswith(parent)):
                raise StoreError(
                    412, "a commit has happened since; please refresh and try again", "CommitOutdated"
                )
            old = self.tree(head)
            tree = dict(old)
            for change in changes:
                _apply(tree, change)
            _check_folders(tree)
            if tree == old:
                return head
            commit = self._add_commit(repo, head, tree, title, message, author)
            db.execute("UPDATE refs SET sha = ? WHERE repo = ? AND name = ?", (commit.sha, repo.id, ref))
        return commit

    def squash(self, repo: Repo, branch: str, title: str, author: str) -> Commit:
        """Replace a branch's history by one commit with the same files."""
        with self._change() as db:
            head = self.resolve(repo, f"refs/heads/{branch}")
            commit = self._add_commit(repo, None, self.tree(head), title, "", author)
            ref = f"refs/heads/{branch}"
            db.execute("UPDATE refs SET sha = ? WHERE repo = ? AND name = ?", (commit.sha, repo.id, ref))
        return commit

    def _commit(self, repo: Repo, sha: str) -> Commit:
        (row,) = self._rows("SELECT * FROM commits WHERE repo = ? AND sha = ?", repo.id, sha)
        return _to_commit(row)

    def resolve(self, repo: Repo, revision: str) -> Commit:
        """Commit of a branch, a tag, a full ref, or a commit id."""
        refs = {row["name"]: row["sha"] for row in self._rows("SELECT * FROM refs WHERE repo = ?", repo.id)}
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in refs:
                return self._commit(repo, refs[name])
        if _SHA.fullmatch(revision):
            query = "SELECT * FROM commits WHERE repo = ? AND sha >= ? AND sha < ? LIMIT 2"
            rows = self._rows(query, repo.id, revision, revision + "g")
            if len(rows) == 1:
                return _to_commit(rows[0])
        raise StoreError(404, f"no revision {revision}", "RevisionNotFound")

    def history(self, repo: Repo, commit: Commit) -> Iterator[Commit]:
        """Newest first."""
        current: Commit | None = commit
        while current is not None:
            yield current
            current = self._commit(repo, current.parent) if current.parent else None

    def last_commits(self, repo: Repo, commit: Commit, paths: set[str]) -> dict[str, Commit]:
        """For each file or folder the commit that last changed it."""
        found: dict[str, Commit] = {}
        for newer in self.history(repo, commit):
            missing = paths - found.keys()
            if not missing:
                break
            after = self.tree(newer)
            before = self.tree(self._commit(repo, newer.parent)) if newer.parent else {}
            if before is after:
                continue
            changed = {path for path in after.keys() | before.keys() if after.get(path) != before.get(path)}
            folders = {path[:i] for path in changed for i, char in enumerate(path) if char == "/"}
            found |= dict.fromkeys(missing & (changed | folders), newer)
        return found

    # Refs

    def refs(self, repo: Repo) -> list[tuple[str, str]]:
        rows = self._rows("SELECT name, sha FROM refs WHERE repo = ? ORDER BY name", repo.id)
        return [(row["name"], row["sha"]) for row in rows]

    def create_ref(self, repo: Repo, kind: str, name: str, revision: str) -> None:
        """kind is heads or tags."""
        check_ref(name)
        with self._change() as db:
            commit = self.resolve(repo, revision)
            ref = f"refs/{kind}/{name}"
            if self._rows("SELECT 1 FROM refs WHERE repo = ? AND name = ?", repo.id, ref):
                raise StoreError(409, f"{ref} exists already")
            db.execute("INSERT INTO refs VALUES (?, ?, ?)", (repo.id, ref, commit.sha))

    def delete_ref(self, repo: Repo, kind: str, name: str) -> None:
        if (kind, name) == ("heads", "main"):
            raise StoreError(403, "the branch main cannot be deleted")
        with self._change() as db:
            query = "DELETE FROM refs WHERE repo = ? AND name = ?"
            if not db.execute(query, (repo.id, f"refs/{kind}/{name}")).rowcount:
                raise StoreError(404, f"no such ref: {name}", "RevisionNotFound")

    # Collections

    def _collections(self) -> list[tuple[str, dict[str, Any]]]:
        rows = self._rows("SELECT slug, data FROM collections ORDER BY slug")
        return [(row["slug"], json.loads(row["data"])) for row in rows]

    def collections(self) -> list[dict[str, Any]]:
        return [data for _, data in self._collections()]

    def collection(self, slug: str) -> dict[str, Any]:
        for row in self._rows("SELECT data FROM collections WHERE slug = ?", slug):
            data: dict[str, Any] = json.loads(row["data"])
            return data
        raise StoreError(404, f"no collection {slug}", "CollectionNotFound")

    def _put_collection(self, slug: str, data: dict[str, Any]) -> None:
        with self._change() as db:
            values = (data["title"], json.dumps(data), slug)
            db.execute("UPDATE collections SET title = ?, data = ? WHERE slug = ?", values)

    def create_collection(self, owner: str, title: str, data: dict[str, Any]) -> dict[str, Any]:
        with self._change() as db:
            query = "SELECT slug FROM collections WHERE owner = ? AND title = ?"
            for row in self._rows(query, owner, title):
                raise StoreError(409, f"a collection {title!r} exists already", slug=row["slug"])
            words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
            slug = f"{owner}/{words}-{int(time.time()):08x}{secrets.token_hex(8)}"
            data = data | {"slug": slug, "title": title, "items": [], "lastUpdated": _now()}
            db.execute("INSERT INTO collections VALUES (?, ?, ?, ?)", (slug, owner, title, json.dumps(data)))
        return data

    @contextlib.contextmanager
    def change_collection(self, slug: str) -> Iterator[dict[str, Any]]:
        """Yields the collection to edit in place."""
        with self._change():
            data = self.collection(slug)
            yield data
            data["items"].sort(key=lambda item: item["position"])
            for position, item in enumerate(data["items"]):
                item["position"] = position
            data["lastUpdated"] = _now()
            try:
                self._put_collection(slug, data)
            except sqlite3.IntegrityError:
                raise StoreError(409, f"a collection {data['title']!r} exists already") from None

    def delete_collection(self, slug: str) -> None:
        with self._change() as db:
            self.collection(slug)
            db.execute("DELETE FROM collections WHERE slug = ?", (slug,))


def _repo(row: sqlite3.Row) -> Repo:
    settings = json.loads(row["settings"])
    return Repo(row["id"], row["kind"], row["name"], bool(row["private"]), row["created"], settings)


def _to_commit(row: sqlite3.Row) -> Commit:
    return Commit(
        row["sha"], row["parent"], row["tree"], row["title"], row["message"], row["author"], row["date"]
    )


def _apply(tree: Tree, change: Change) -> None:
    if change.entry is not None:
        tree[check_path(change.path)] = change.entry
    elif change.folder:
        prefix = change.path.strip("/") + "/"
        inside = list(tree) if prefix == "/" else [path for path in tree if path.startswith(prefix)]
        if not inside:
            raise StoreError(404, f"no folder {change.path}", "EntryNotFound")
        for path in inside:
            del tree[path]
    elif tree.pop(change.path, None) is None:
        raise StoreError(404, f"no file {change.path}", "EntryNotFound")


def _check_folders(tree: Tree) -> None:
    """A name is a file or a folder."""
    for path in tree:
        for i, char in enumerate(path):
            if char == "/" and path[:i] in tree:
                raise StoreError(400, f"{path[:i]} cannot be a file and a folder", "BadPath")
