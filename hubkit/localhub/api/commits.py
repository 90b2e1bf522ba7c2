"""Commits, and the refs that point to them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from hubkit.localhub.api import discussions, results
from hubkit.localhub.api.bodies import stream_to
from hubkit.localhub.api.request import ApiRequest, items, parse_json, text
from hubkit.localhub.storage.errors import ApiError, check_path
from hubkit.localhub.storage.objects import Batch
from hubkit.localhub.storage.store import Change, Repo

__all__ = ["commit", "create_branch", "create_tag", "delete_branch", "delete_tag", "preupload", "squash"]

_LARGEST_REGULAR: Final = 10 << 20
"""Bytes. Longer files, and files that are not text, must be uploaded as large files."""
_LINE_LIMIT: Final = 16 << 20
_COMMIT_LIMIT: Final = 1 << 30
"""Bytes of a line and of a whole commit. Small files are inside the commit, which is spooled to disk; one line at a
time is in memory."""
_OPERATIONS: Final = ("file", "lfsFile", "deletedFile", "deletedFolder")


# What to send how


def preupload(request: ApiRequest) -> Response:
    repo = request.contributed_repo()
    tree = request.store.tree(request.store.resolve(repo, request.path["revision"]))
    attributes = tree.get(".gitattributes")
    is_large = _large_rules(
        request.store.objects.read(attributes).decode("utf-8", "replace") if attributes else ""
    )
    ignored = _ignore_rules(str(request.body.get("gitIgnore") or ""))
    answers = []
    for file in items(request.body, "files"):
        path = check_path(text(file, "path"))
        there = tree.get(path)
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if is_large(path) or _is_large(file) else "regular",
                "shouldIgnore": ignored(path),
                "oid": (there.sha256 if there.lfs else there.oid) if there else None,
            }
        )
    return JSONResponse({"files": answers})


def _is_large(file: dict[str, Any]) -> bool:
    """Whether a file must be uploaded as a large one (LFS): by its size, or because its first bytes are not text."""
    try:
        sample = base64.b64decode(str(file.get("sample") or ""), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "sample is not base64") from None
    size = file.get("size")
    if not isinstance(size, int) or size < 0:
        raise ApiError(400, "size is missing")
    if size > _LARGEST_REGULAR or b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A sample may end inside a character.
        return not (len(sample) < size and error.start >= len(sample) - 3)
    return False


def _pattern(glob: str, anchored: bool) -> str:
    """Returns a regular expression for a pattern with git's wildcards *, ?, ** and [a-z]."""
    pattern = ""
    for token in re.findall(r"\\.|\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|.", glob):
        if len(token) > 2 and token[0] == "[":
            pattern += "[^" + re.escape(token[2:-1]).replace(r"\-", "-") + "]" if token[1] == "!" else token
        elif token[0] == "\\":
            pattern += re.escape(token[1:])
        else:
            pattern += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))
    return pattern if anchored else "(?:.*/)?" + pattern


@lru_cache(maxsize=100)
def _large_rules(attributes: str) -> Callable[[str], bool]:
    """By .gitattributes: the last line that matches a path and says something about `filter` decides.

    Its patterns differ from .gitignore's, which pathspec knows: they match files only, never what is in a folder.
    """
    rules: list[tuple[re.Pattern[str], bool]] = []
    for line in attributes.splitlines()[:10_000]:
        glob, *settings = line.split() or [""]
        told = [word for word in settings if word.lstrip("-!").split("=")[0] == "filter"]
        if not told or glob.startswith(("#", "!")) or glob.endswith("/"):
            continue
        with contextlib.suppress(re.error):  # a malformed [range] matches nothing, as in git
            pattern = re.compile(_pattern(glob.removeprefix("/"), anchored="/" in glob))
            rules.append((pattern, told[-1] == "filter=lfs"))

    def is_large(path: str) -> bool:
        return next((large for pattern, large in reversed(rules) if pattern.fullmatch(path)), False)

    return is_large


def _ignore_rules(ignore: str) -> Callable[[str], bool]:
    """By .gitignore: the last line that matches decides; a line with ! takes a path back in.

    On random patterns and paths, pathspec agreed with git more often than our own rules did.
    """
    patterns: list[GitIgnoreSpecPattern] = []
    for line in ignore.splitlines()[:10_000]:
        with contextlib.suppress(ValueError):  # git passes over what it cannot read
            patterns.append(GitIgnoreSpecPattern(line))
    return GitIgnoreSpec(patterns).match_file


# The commit


async def commit(request: ApiRequest) -> Response:
    """NDJSON: a header, then one operation a line. Spooled to disk, then applied in one transaction."""
    request.check_query("create_pr", "hot_reload")
    if request.flag("hot_reload"):
        raise ApiError(501, "hot_reload is not implemented: no Space runs here")
    repo, ref = await run_in_threadpool(_target, request)
    path = request.store.objects.temporary()
    try:
        with path.open("xb") as file:

            def write(data: bytes | memoryview) -> None:
                if file.tell() + len(data) > _COMMIT_LIMIT:
                    raise ApiError(413, f"a commit may have at most {_COMMIT_LIMIT} bytes")
                file.write(data)

            await stream_to(request.http, write)
        return await run_in_threadpool(_apply, request, repo, ref, path)
    finally:
        path.unlink(missing_ok=True)


def _target(request: ApiRequest) -> tuple[Repo, str]:
    """Returns the repo and the full name of the ref to commit to. Raises ApiError if the caller may not change it."""
    ref = request.path["revision"]
    ref = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
    if request.flag("create_pr"):
        return request.contributed_repo(), ref
    if ref.startswith("refs/pr/"):
        repo = request.contributed_repo()
        discussions.check_may_change(request, repo, discussions.number_of(ref))
        return repo, ref
    if not ref.startswith("refs/heads/"):
        raise ApiError(400, f"cannot commit to {ref}")
    return request.own_repo(), ref


def _apply(request: ApiRequest, repo: Repo, ref: str, path: Path) -> Response:
    store = request.store
    with Batch(store.objects) as batch, path.open("rb") as file:
        header, changes = _read(request, repo, file, batch)
        batch.keep()
        title, message = text(header, "summary"), str(header.get("description") or "")
        parent = header.get("parentCommit")
        if parent is not None and not isinstance(parent, str):
            raise ApiError(400, "parentCommit must be a commit id")
        with store.change():
            number = None
            if request.flag("create_pr"):
                start = store.resolve(repo, parent or ref).sha
                number = discussions.open_pull_request(request, repo, title, message, start, "open")
                ref, parent = f"refs/pr/{number}", None
            made = store.commit(repo, ref, changes, title, message, request.who.user, parent)
            if ref.startswith("refs/pr/"):
                discussions.note_commit(request, repo, discussions.number_of(ref), made)
    answer: dict[str, Any] = {
        "success": True,
        "commitOid": made.sha,
        "commitUrl": f"{request.url(repo)}/commit/{made.sha}",
        "hookOutput": "",
    }
    if number is not None:
        answer["pullRequestUrl"] = f"{request.url(repo)}/discussions/{number}"
    return JSONResponse(answer)


def _read(
    request: ApiRequest, repo: Repo, file: BinaryIO, batch: Batch
) -> tuple[dict[str, Any], list[Change]]:
    """Returns the commit's header and its changes; contents of small files go into `batch`."""
    objects = request.store.objects
    header: dict[str, Any] = {}
    changes: list[Change] = []
    for key, value in _lines(file):
        if key == "header":
            header = value
            continue
        if key not in _OPERATIONS:
            raise ApiError(501, f"commit operation {key!r} is not implemented")
        path = text(value, "path")
        match key:
            case "file":
                data = _content(value)
                results.check_file(repo.kind, path, data)
                changes.append(Change(check_path(path), batch.add(data)))
            case "lfsFile":
                entry = objects.lfs_entry(text(value, "oid"), value.get("size"))
                if results.is_checked(repo.kind, path) and entry.size <= results.LARGEST:
                    results.check_file(repo.kind, path, objects.read(entry))
                changes.append(Change(check_path(path), entry))
            case "deletedFile":
                changes.append(Change(path, None))
            case "deletedFolder":
                changes.append(Change(path, None, folder=True))
    return header, changes


def _lines(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    first = True
    while line := file.readline(_LINE_LIMIT + 1):
        if len(line) > _LINE_LIMIT:
            raise ApiError(413, "a file inside the commit is too large; upload it as a large file")
        if not line.strip():
            continue
        item = parse_json(line)
        key, value = item.get("key"), item.get("value")
        if not isinstance(key, str) or not isinstance(value, dict) or first != (key == "header"):
            raise ApiError(400, "malformed commit: a header, then operations")
        first = False
        yield key, value
    if first:
        raise ApiError(400, "malformed commit: no header")


def _content(value: dict[str, Any]) -> bytes:
    content = value.get("content")
    if not isinstance(content, str):
        raise ApiError(400, "content is missing")
    try:
        if value.get("encoding", "utf-8") == "utf-8":
            return content.encode()
        return base64.b64decode(content, validate=True)
    except ValueError:
        raise ApiError(400, f"content is not {value.get('encoding', 'utf-8')}") from None


# Refs


def create_branch(request: ApiRequest) -> Response:
    start = str(request.body.get("startingPoint") or "main")
    request.store.create_ref(request.own_repo(), f"refs/heads/{request.path['branch']}", start)
    return JSONResponse({})


def delete_branch(request: ApiRequest) -> Response:
    request.store.delete_ref(request.own_repo(), f"refs/heads/{request.path['branch']}")
    return JSONResponse({})


def create_tag(request: ApiRequest) -> Response:
    request.store.create_ref(
        request.own_repo(), f"refs/tags/{text(request.body, 'tag')}", request.path["revision"]
    )
    return JSONResponse({})


def delete_tag(request: ApiRequest) -> Response:
    request.store.delete_ref(request.own_repo(), f"refs/tags/{request.path['revision']}")
    return JSONResponse({})


def squash(request: ApiRequest) -> Response:
    repo = request.own_repo()
    title = str(request.body.get("message") or "squash")
    made = request.store.squash(repo, request.path["branch"], title, request.who.user)
    return JSONResponse({"commitOid": made.sha})
