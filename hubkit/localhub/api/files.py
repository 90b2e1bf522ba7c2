"""Files of a revision: lists of them, their contents, and the history they have."""

from __future__ import annotations

import hashlib
import html
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response

from hubkit.localhub.api.repos import check_gate, lfs_fields
from hubkit.localhub.api.request import ApiRequest, parse_json, read_body, yes
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.objects import Entry, pointer
from hubkit.localhub.storage.store import Commit, Repo, Store, Tree

__all__ = ["history", "inside", "is_text", "paths_info", "raw", "refs", "resolve", "tree"]

_FORM_LIMIT: Final = 8 << 20
_PAGE: Final = 1000
_EXPANDED_PAGE: Final = 50
_IMAGES: Final = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
_TEXTS: Final = (".csv", ".json", ".jsonl", ".md", ".py", ".txt", ".yaml", ".yml")


def inside(files: Tree, folder: str, recursive: bool) -> list[str]:
    """Names of the files and folders in a folder ("" is the root), sorted."""
    prefix = folder + "/" if folder else ""
    names = set()
    for path in files:
        if path.startswith(prefix):
            below = path[len(prefix) :].split("/")
            depth = len(below) if recursive else 1
            names |= {prefix + "/".join(below[:i]) for i in range(1, depth + 1)}
    return sorted(names)


def _folder_oids(files: Tree, folders: set[str]) -> dict[str, str]:
    """An id for each folder, which changes when anything in it does."""
    hashes = {folder: hashlib.sha1(usedforsecurity=False) for folder in folders}
    for path, entry in sorted(files.items()):
        for i, char in enumerate(path):
            if char == "/" and path[:i] in hashes:
                hashes[path[:i]].update(f"{path}\0{entry.oid}\n".encode())
    return {folder: digest.hexdigest() for folder, digest in hashes.items()}


def _described(
    store: Store, repo: Repo, commit: Commit, names: list[str], expand: bool
) -> list[dict[str, Any]]:
    files = store.tree(commit)
    oids = _folder_oids(files, {name for name in names if name not in files})
    last = store.last_commits(repo, commit, set(names)) if expand else {}
    described = []
    for name in names:
        entry = files.get(name)
        if entry is None:
            item: dict[str, Any] = {"type": "directory", "oid": oids[name], "size": 0}
        else:
            item = {"type": "file", "oid": entry.oid, "size": entry.size}
            if entry.lfs:
                item["lfs"] = {"oid": entry.sha256, **lfs_fields(entry)}
        item["path"] = name
        if name in last:
            item["lastCommit"] = {"id": last[name].sha, "title": last[name].title, "date": last[name].date}
        described.append(item)
    return described


def tree(request: ApiRequest) -> Response:
    request.check_query("recursive", "expand", "cursor", "limit")
    repo = request.repo()
    commit = request.store.resolve(repo, request.path["revision"])
    folder = request.path.get("path", "").strip("/")
    names = inside(request.store.tree(commit), folder, request.flag("recursive"))
    if folder and not names:
        raise ApiError(404, f"no folder {folder}", "EntryNotFound", commit=commit.sha)
    # Only the page is described: last commits take time.
    expand = request.flag("expand")
    page, headers = request.page(names, _EXPANDED_PAGE if expand else _PAGE)
    return JSONResponse(_described(request.store, repo, commit, page, expand), headers=headers)


def _asked(request: ApiRequest, body: bytes) -> tuple[list[str], bool]:
    """Returns the paths, and whether with their last commits. Python's client sends a form, JavaScript's JSON."""
    if "json" not in request.http.headers.get("content-type", ""):
        form = parse_qs(body.decode("utf-8", "replace"))
        return form.get("paths", []), yes(form, "expand")
    sent = parse_json(body)
    paths = sent.get("paths")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ApiError(400, "paths must be a list of texts")
    return paths, bool(sent.get("expand"))


async def paths_info(request: ApiRequest) -> Response:
    body = await read_body(request.http, _FORM_LIMIT)

    def answer() -> Response:
        paths, expand = _asked(request, body)
        repo = request.repo()
        commit = request.store.resolve(repo, request.path["revision"])
        files = request.store.tree(commit)
        folders = {path[:i] for path in files for i, char in enumerate(path) if char == "/"}
        asked = dict.fromkeys(path.strip("/") for path in paths)
        names = [path for path in asked if path in files or path in folders]
        return JSONResponse(_described(request.store, repo, commit, names, expand))

    return await run_in_threadpool(answer)


# Contents


def is_text(path: str, entry: Entry) -> bool:
    return not entry.lfs and path.lower().endswith(_TEXTS)


def _find(request: ApiRequest) -> tuple[Commit, Entry]:
    repo = request.repo()
    check_gate(request, repo)
    commit = request.store.resolve(repo, request.path["revision"])
    entry = request.store.tree(commit).get(request.path["path"])
    if entry is None:
        raise ApiError(404, "Entry not found", "EntryNotFound", commit=commit.sha)
    return commit, entry


def _headers(commit: Commit, etag: str) -> dict[str, str]:
    return {
        "X-Repo-Commit": commit.sha,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache",
        # Somebody else's HTML must not run in a browser on this address.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }


def resolve(request: ApiRequest) -> Response:
    """Answer with a file, or a range of its bytes."""
    commit, entry = _find(request)
    etag = f'"{entry.sha256 if entry.lfs else entry.oid}"'
    headers = _headers(commit, etag)
    if entry.lfs:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry.size)}
    if request.http.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    path = Path(request.path["path"])
    media = _IMAGES.get(path.suffix.lower(), "application/octet-stream")
    response = FileResponse(
        request.store.objects.path(entry.sha256),
        headers=headers,
        media_type="text/plain; charset=utf-8" if is_text(request.path["path"], entry) else media,
        filename=path.name,
        content_disposition_type="inline",
    )
    response.chunk_size = 1 << 20  # of 64 KiB a large download takes twice as long
    return response


def raw(request: ApiRequest) -> Response:
    """Answer with what git stores: of a large file its LFS pointer."""
    commit, entry = _find(request)
    if not entry.lfs:
        return resolve(request)
    data = pointer(entry.sha256, entry.size)
    return Response(data, headers=_headers(commit, f'"{entry.oid}"'), media_type="text/plain; charset=utf-8")


# History


def refs(request: ApiRequest) -> Response:
    answer: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
    names = {"heads": "branches", "tags": "tags"}
    if request.flag("include_prs"):
        answer["pullRequests"] = []
        names["pr"] = "pullRequests"
    for ref, sha in request.store.refs(request.repo()):
        _, kind, name = ref.split("/", 2)
        if kind in names:
            answer[names[kind]].append({"name": name, "ref": ref, "targetCommit": sha})
    return JSONResponse(answer)


def history(request: ApiRequest) -> Response:
    request.check_query("expand[]", "cursor", "limit", "p")
    if "p" in request.query:
        raise ApiError(501, "pages of commits by number are not implemented; follow the Link header")
    repo = request.repo()
    page, headers = request.page(
        request.store.history(repo, request.store.resolve(repo, request.path["revision"])), _EXPANDED_PAGE
    )
    formatted = "formatted" in request.query.get("expand[]", [])
    return JSONResponse([_commit(commit, formatted) for commit in page], headers=headers)


def _commit(commit: Commit, formatted: bool) -> dict[str, Any]:
    item: dict[str, Any] = {
        "id": commit.sha,
        "title": commit.title,
        "message": commit.message,
        "date": commit.date,
        "authors": [{"user": commit.author}],
    }
    if formatted:
        item["formatted"] = {key: html.escape(str(item[key])) for key in ("title", "message")}
    return item
