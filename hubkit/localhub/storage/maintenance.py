"""What commands do with a local Hub's folder: tokens and members, fsck, gc.

fsck only reads, and may run beside a server: contents are stored before the commits that need them, and only gc
removes any. gc refuses to run beside a server: contents uploaded for a commit that is still to come look unused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from hubkit.errors import BusyError, HubError
from hubkit.localhub.storage import xet
from hubkit.localhub.storage.accounts import add_member, add_token, new_token
from hubkit.localhub.storage.errors import ApiError, check_path
from hubkit.localhub.storage.folder import lock, open_store
from hubkit.localhub.storage.objects import Entry, git_oid, pointer
from hubkit.localhub.storage.store import Store

__all__ = ["Freed", "Report", "fsck", "gc", "make_member", "make_token"]

_CHUNK: Final = 1 << 20


def make_token(folder: Path, user: str, role: str, name: str, scopes: list[str]) -> str:
    """Returns a new token of a user. scopes: `namespace=permission` or `namespace/repo=permission`."""
    parsed: dict[str, list[str]] = {}
    for scope in scopes:
        entity, _, permission = scope.partition("=")
        parsed.setdefault(entity, []).append(permission)
    store = open_store(folder)
    try:
        token = new_token()
        add_token(store, token, user, name, role, parsed)
    except ApiError as error:
        raise HubError(error.message, "see hubkit hub token --help") from None
    finally:
        store.close()
    return token


def make_member(folder: Path, org: str, user: str, role: str) -> None:
    """Make a user a member of an organisation. Both are created if missing."""
    store = open_store(folder)
    try:
        add_member(store, org, user, role)
    except ApiError as error:
        raise HubError(error.message, "see hubkit hub member --help") from None
    finally:
        store.close()


@dataclass
class Report:
    """What fsck checked, and what is wrong: one line each."""

    problems: list[str]
    repos: int = 0
    commits: int = 0
    objects: int = 0
    bytes: int = 0


class Freed(NamedTuple):
    commits: int
    objects: int
    bytes: int


class _Content(NamedTuple):
    size: int
    git_oid: str


def fsck(folder: Path) -> Report:
    store = open_store(folder)
    report = Report([])
    try:
        trees = _check_database(store, report)
        contents = dict(_contents(store, report))
        for key, entries in trees.items():
            _check_tree(key, entries, contents, report)
        for path in _files(folder / "xorbs"):
            try:
                xet.check_xorb(path)
            except ApiError:
                report.problems.append(f"xorb {path.name} is damaged")
    finally:
        store.close()
    return report


def _check_database(store: Store, report: Report) -> dict[str, str]:
    """Check, in one snapshot, that what rows point to exists. Returns the trees, whose contents are checked next."""
    wrong = report.problems
    with store.change():
        for row in store.rows("PRAGMA integrity_check"):
            if row[0] != "ok":
                wrong.append(f"database: {row[0]}")
        for row in store.rows("PRAGMA foreign_key_check"):
            wrong.append(f"database: a row of {row[0]} points to no row of {row[2]}")
        commits: dict[int, set[str]] = {}
        rows = store.rows("SELECT repo, sha, parent FROM commits")
        report.commits = len(rows)
        for row in rows:
            commits.setdefault(row["repo"], set()).add(row["sha"])
        for row in rows:
            if row["parent"] is not None and row["parent"] not in commits[row["repo"]]:
                wrong.append(f"commit {row['sha']} has no parent {row['parent']}")
        refs: dict[int, set[str]] = {}
        for row in store.rows("SELECT repo, name, sha FROM refs"):
            refs.setdefault(row["repo"], set()).add(row["name"])
            if row["sha"] not in commits.get(row["repo"], set()):
                wrong.append(f"{row['name']} points to no commit: {row['sha']}")
        for row in store.rows("SELECT id, kind, name FROM repos"):
            report.repos += 1
            if "refs/heads/main" not in refs.get(row["id"], set()):
                wrong.append(f"{row['kind']} {row['name']} has no branch main")
        for row in store.rows("SELECT repo, num, data FROM discussions"):
            start = json.loads(row["data"])["start"]
            missing = f"refs/pr/{row['num']}" not in refs.get(row["repo"], set())
            if start is not None and (missing or start not in commits.get(row["repo"], set())):
                wrong.append(f"pull request {row['num']} of repo {row['repo']} has lost its commits")
        return {row["key"]: row["entries"] for row in store.rows("SELECT key, entries FROM trees")}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.glob("*/*")) if path.is_file())


def _contents(store: Store, report: Report) -> Iterator[tuple[str, _Content]]:
    """Check that each object has the SHA-256 of its name, and yield those that have."""
    for path in _files(store.folder / "objects"):
        sha256, sha1, size = hashlib.sha256(), hashlib.sha1(usedforsecurity=False), path.stat().st_size
        sha1.update(b"blob %d\0" % size)
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                sha256.update(data)
                sha1.update(data)
        report.objects += 1
        report.bytes += size
        if sha256.hexdigest() == path.name:
            yield path.name, _Content(size, sha1.hexdigest())
        else:
            report.problems.append(f"object {path.name} is damaged")


def _check_tree(key: str, text: str, contents: dict[str, _Content], report: Report) -> None:
    if hashlib.sha256(text.encode()).hexdigest() != key:
        report.problems.append(f"tree {key} is damaged")
        return
    for path, fields in json.loads(text).items():
        entry = Entry(*fields)
        content = contents.get(entry.sha256)
        try:
            check_path(path)
        except ApiError as error:
            report.problems.append(f"tree {key}: {error.message}")
        if content is None:
            report.problems.append(
                f"tree {key}: the content of {path!r} is missing or damaged: {entry.sha256}"
            )
            continue
        oid = git_oid(pointer(entry.sha256, entry.size)) if entry.lfs else content.git_oid
        if (entry.size, entry.oid) != (content.size, oid):
            report.problems.append(f"tree {key}: size or id of {path!r} is wrong")


def gc(folder: Path) -> Freed:
    store = open_store(folder)
    held = lock(folder)
    try:
        if held is None:
            raise BusyError(f"a local Hub is running in {folder}", "stop it first: uploads may be under way")
        commits = _drop_commits(store)
        used = {
            fields[2]
            for row in store.rows("SELECT entries FROM trees")
            for fields in json.loads(row["entries"]).values()
        }
        unused = [path for path in _files(folder / "objects") if path.name not in used]
        # All that was sent to xet's storage is in the objects. Clients must forget it before it goes.
        xet.forget_address(store)
        unused += _files(folder / "xorbs")
        freed = Freed(commits, len(unused), sum(path.stat().st_size for path in unused))
        for path in unused:
            path.unlink()
        store.objects.clear_temporary()
        store.rows("VACUUM")
    finally:
        store.close()
        if held is not None:
            held.close()
    return freed


def _drop_commits(store: Store) -> int:
    """Delete the commits that no branch, tag or pull request reaches, as squashing leaves. Returns their number."""
    with store.change() as db:
        needed = """
            WITH RECURSIVE needed (repo, sha) AS (
                SELECT repo, sha FROM refs
                UNION SELECT repo, json_extract(data, '$.start') FROM discussions
                UNION SELECT needed.repo, commits.parent FROM needed
                    JOIN commits ON commits.repo = needed.repo AND commits.sha = needed.sha)
            SELECT repo, sha FROM needed WHERE sha IS NOT NULL"""
        dropped = db.execute(f"DELETE FROM commits WHERE (repo, sha) NOT IN ({needed})").rowcount  # noqa: S608
        db.execute("DELETE FROM trees WHERE key NOT IN (SELECT tree FROM commits)")
    return int(dropped)
