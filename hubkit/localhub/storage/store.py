"""The data of the local Hub: a database for accounts, repos and history, files for contents.

    folder/hub.sqlite      accounts, repos, commits, refs, trees, discussions, collections
    folder/objects/ab/…    every file's content once, named by its sha256 (objects.py)
    folder/xorbs/ab/…      what xet clients uploaded (xet.py)
    folder/tmp/            uploads on their way; emptied when a server starts

A content has its final name before the one SQLite transaction that makes a commit point to it. A server
killed at any moment therefore has a commit wholly or not at all.

A tree is one JSON document {path: [git oid, size, sha256, is LFS]}, stored once under its own sha256.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hubkit.localhub.storage.errors import ApiError, check_path, check_ref, check_repo_name
from hubkit.localhub.storage.objects import Batch, Entry, Objects

__all__ = ["DATABASE", "Change", "Commit", "Repo", "Store", "Tree", "differing", "now"]

DATABASE: Final = "hub.sqlite"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY COLLATE NOCASE, kind TEXT NOT NULL CHECK (kind IN ('user', 'org')));
CREATE TABLE IF NOT EXISTS members (
    org TEXT NOT NULL COLLATE NOCASE REFERENCES accounts (name), user TEXT NOT NULL COLLATE NOCASE
    REFERENCES accounts (name), role TEXT NOT NULL, PRIMARY KEY (org, user));
CREATE TABLE IF NOT EXISTS tokens (
    sha256 TEXT PRIMARY KEY, user TEXT NOT NULL COLLATE NOCASE REFERENCES accounts (name),
    name TEXT NOT NULL, role TEXT NOT NULL, scopes TEXT NOT NULL);
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
CREATE TABLE IF NOT EXISTS discussions (
    repo INTEGER NOT NULL REFERENCES repos (id) ON DELETE CASCADE, num INTEGER NOT NULL,
    data TEXT NOT NULL, PRIMARY KEY (repo, num));
CREATE TABLE IF NOT EXISTS collections (
    slug TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, data TEXT NOT NULL,
    UNIQUE (owner, title));
"""
_VERSION: Final = "2"

_SHA: Final = re.compile(r"[0-9a-f]{7,40}")
_TREES_HELD: Final = 8
"""Trees kept in memory; one of 10,000 files takes about 5 MB."""

GITATTRIBUTES: Final = "".join(
    f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n"
    for ending in ("bin", "gguf", "onnx", "parquet", "pt", "safetensors", "zst")
)

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
    """One operation of a commit; without an entry it deletes."""

    path: str
    entry: Entry | None
    folder: bool = False


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def differing(before: Tree, after: Tree) -> list[str]:
    """Returns the paths at which two trees differ, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


class Store:
    """All state of a local Hub. Several threads may use it; only one process at a time (see folder.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # Private contents must not be readable by others on a shared machine.
        folder.chmod(0o700)
        self.objects = Objects(folder)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(folder / DATABASE, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(_SCHEMA)
        self._tree_of = functools.lru_cache(maxsize=_TREES_HELD)(self._load_tree)
        if self.meta("version", lambda: _VERSION) != _VERSION:
            raise ApiError(500, "this folder was made by another version of the local Hub")
        self.id = self.meta("id", lambda: secrets.token_hex(8))

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # Settings of the server

    def meta(self, key: str, default: Callable[[], str]) -> str:
        """Returns a value of the whole Hub; `default` makes it if there is none yet."""
        for row in self.rows("SELECT value FROM meta WHERE key = ?", key):
            return str(row["value"])
        with self.change() as db:
            db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, default()))
        return self.meta(key, default)

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
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

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # Repos

    def create_repo(
        self,
        kind: str,
        name: str,
        private: bool,
        author: str,
        settings: dict[str, Any] | None = None,
        files: Tree | None = None,
    ) -> Repo:
        """A new repo whose first commit has `files`, whose contents are here already."""
        check_repo_name(name)
        with Batch(self.objects) as batch:
            tree = files or {".gitattributes": batch.add(GITATTRIBUTES.encode())}
            batch.keep()
        with self.change() as db:
            if self.find_repo(kind, name) is not None:
                raise ApiError(409, f"{kind} {name} exists already")
            row = (kind, name, private, now(), json.dumps(settings or {}))
            db.execute(
                "INSERT INTO repos (kind, name, private, created, settings) VALUES (?, ?, ?, ?, ?)", row
            )
            repo = self.repo(kind, name)
            commit = self._add_commit(repo, None, tree, "initial commit", "", author)
            db.execute("INSERT INTO refs VALUES (?, 'refs/heads/main', ?)", (repo.id, commit.sha))
        return repo

    def find_repo(self, kind: str, name: str) -> Repo | None:
        for row in self.rows("SELECT * FROM repos WHERE kind = ? AND name = ?", kind, name):
            return _repo(row)
        return None

    def repo(self, kind: str, name: str) -> Repo:
        repo = self.find_repo(kind, name)
        if repo is None:
            raise ApiError(404, f"no {kind} {name}", "RepoNotFound")
        return repo

    def repos(self, kind: str) -> list[Repo]:
        return [_repo(row) for row in self.rows("SELECT * FROM repos WHERE kind = ? ORDER BY name", kind)]

    def repo_by_id(self, number: int) -> Repo | None:
        for row in self.rows("SELECT * FROM repos WHERE id = ?", number):
            return _repo(row)
        return None

    def update_repo(self, repo: Repo, private: bool | None, settings: dict[str, Any]) -> None:
        with self.change() as db:
            repo = self.repo(repo.kind, repo.name)
            merged = json.dumps(repo.settings | settings)
            hidden = repo.private if private is None else private
            db.execute("UPDATE repos SET private = ?, settings = ? WHERE id = ?", (hidden, merged, repo.id))

    def move_repo(self, repo: Repo, name: str) -> None:
        check_repo_name(name)
        with self.change() as db:
            other = self.find_repo(repo.kind, name)
            if other is not None and other.id != repo.id:
                raise ApiError(409, f"{repo.kind} {name} exists already")
            db.execute("UPDATE repos SET name = ? WHERE id = ?", (name, repo.id))

    def delete_repo(self, repo: Repo) -> None:
        with self.change() as db:
            db.execute("DELETE FROM repos WHERE id = ?", (repo.id,))

    # Commits

    def _load_tree(self, key: str) -> Tree:
        (row,) = self.rows("SELECT entries FROM trees WHERE key = ?", key)
        return {path: Entry(*entry) for path, entry in json.loads(row["entries"]).items()}

    def tree(self, commit: Commit) -> Tree:
        """Returns the files of a commit. The dictionary is shared: do not change it."""
        return self._tree_of(commit.tree)

    def _add_commit(
        self, repo: Repo, parent: Commit | None, tree: Tree, title: str, message: str, author: str
    ) -> Commit:
        entries = json.dumps(dict(sorted(tree.items())), separators=(",", ":"))
        key = hashlib.sha256(entries.encode()).hexdigest()
        date = now()
        parent_sha = parent.sha if parent else None
        # The nonce keeps equal commits of two repos, or of one millisecond, apart.
        identity = json.dumps([key, parent_sha, title, message, author, date, secrets.token_hex(8)])
        sha = hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest()
        with self.change() as db:
            db.execute("INSERT OR IGNORE INTO trees VALUES (?, ?)", (key, entries))
            values = (repo.id, sha, parent_sha, key, title, message, author, date)
            db.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        return Commit(sha, parent_sha, key, title, message, author, date)

    def commit(
        self,
        repo: Repo,
        ref: str,
        changes: list[Change],
        title: str,
        message: str,
        author: str,
        parent: str | None = None,
    ) -> Commit:
        """Apply changes in their order to a ref's files. Without an effect there is no new commit."""
        with self.change():
            head = self.head(repo, ref)
            if parent is not None and (len(parent) < 7 or not head.sha.startswith(parent)):
                raise ApiError(
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
            self._set_ref(repo, ref, commit)
        return commit

    def squash(self, repo: Repo, branch: str, title: str, author: str) -> Commit:
        """Replace a branch's history by one commit with the same files."""
        with self.change():
            ref = f"refs/heads/{branch}"
            commit = self._add_commit(repo, None, self.tree(self.head(repo, ref)), title, "", author)
            self._set_ref(repo, ref, commit)
        return commit

    def head(self, repo: Repo, ref: str) -> Commit:
        """Returns the newest commit of a ref, given by its full name: refs/heads/main, refs/pr/1."""
        for row in self.rows("SELECT sha FROM refs WHERE repo = ? AND name = ?", repo.id, ref):
            return self._commit(repo, row["sha"])
        raise ApiError(404, f"no {ref}", "RevisionNotFound")

    def _set_ref(self, repo: Repo, ref: str, commit: Commit) -> None:
        with self.change() as db:
            db.execute("UPDATE refs SET sha = ? WHERE repo = ? AND name = ?", (commit.sha, repo.id, ref))

    def _commit(self, repo: Repo, sha: str) -> Commit:
        (row,) = self.rows("SELECT * FROM commits WHERE repo = ? AND sha = ?", repo.id, sha)
        return _to_commit(row)

    def resolve(self, repo: Repo, revision: str) -> Commit:
        """Returns the commit of a branch, a tag, a full ref, or a commit id. Raises ApiError if there is none."""
        refs = {row["name"]: row["sha"] for row in self.rows("SELECT * FROM refs WHERE repo = ?", repo.id)}
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in refs:
                return self._commit(repo, refs[name])
        if _SHA.fullmatch(revision):
            query = "SELECT * FROM commits WHERE repo = ? AND sha >= ? AND sha < ? LIMIT 2"
            rows = self.rows(query, repo.id, revision, revision + "g")
            if len(rows) == 1:
                return _to_commit(rows[0])
        raise ApiError(404, f"no revision {revision}", "RevisionNotFound")

    def history(self, repo: Repo, commit: Commit) -> Iterator[Commit]:
        """Yields a commit and those before it, newest first."""
        current: Commit | None = commit
        while current is not None:
            yield current
            current = self._commit(repo, current.parent) if current.parent else None

    def last_commits(self, repo: Repo, commit: Commit, paths: set[str]) -> dict[str, Commit]:
        """Returns, for each path of a file or folder, the commit that last changed it."""
        found: dict[str, Commit] = {}
        for newer in self.history(repo, commit):
            missing = paths - found.keys()
            if not missing:
                break
            after = self.tree(newer)
            before = self.tree(self._commit(repo, newer.parent)) if newer.parent else {}
            if before is after:
                continue
            changed = set(differing(before, after))
            folders = {path[:i] for path in changed for i, char in enumerate(path) if char == "/"}
            found |= dict.fromkeys(missing & (changed | folders), newer)
        return found

    # Refs

    def refs(self, repo: Repo) -> list[tuple[str, str]]:
        rows = self.rows("SELECT name, sha FROM refs WHERE repo = ? ORDER BY name", repo.id)
        return [(row["name"], row["sha"]) for row in rows]

    def create_ref(self, repo: Repo, ref: str, revision: str) -> None:
        """A branch (refs/heads/…), tag (refs/tags/…) or pull request (refs/pr/…)."""
        check_ref(ref.split("/", 2)[2])
        with self.change() as db:
            commit = self.resolve(repo, revision)
            if self.rows("SELECT 1 FROM refs WHERE repo = ? AND name = ?", repo.id, ref):
                raise ApiError(409, f"{ref} exists already")
            db.execute("INSERT INTO refs VALUES (?, ?, ?)", (repo.id, ref, commit.sha))

    def delete_ref(self, repo: Repo, ref: str) -> None:
        if ref == "refs/heads/main":
            raise ApiError(403, "the branch main cannot be deleted")
        with self.change() as db:
            query = "DELETE FROM refs WHERE repo = ? AND name = ?"
            if not db.execute(query, (repo.id, ref)).rowcount:
                raise ApiError(404, f"no {ref}", "RevisionNotFound")


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
            raise ApiError(404, f"no folder {change.path}", "EntryNotFound")
        for path in inside:
            del tree[path]
    elif tree.pop(change.path, None) is None:
        raise ApiError(404, f"no file {change.path}", "EntryNotFound")


def _check_folders(tree: Tree) -> None:
    """Raise ApiError if a path is both a file and a folder of another."""
    for path in tree:
        for i, char in enumerate(path):
            if char == "/" and path[:i] in tree:
                raise ApiError(400, f"{path[:i]} cannot be a file and a folder", "BadPath")
