"""The Hub's HTTP API over a Store.

Requests are told apart by method and path, the path cut at its raw slashes before it is unquoted: a revision
or a folder with a slash arrives as one quoted segment. Everything the clients rely on beyond the bodies is in
headers: X-Error-Code (over plain HTTP the only thing by which they recognise a missing repo),
X-Repo-Commit, ETag, and Link for the next page. What is not implemented answers 501 and its name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import parse_qs, unquote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from hubkit.hub.server import cards, lfs, xet
from hubkit.hub.server.store import (
    Change,
    Commit,
    Entry,
    Repo,
    Store,
    StoreError,
    Tree,
    Upload,
    check_path,
    tree_oid,
)

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["App"]

_KINDS: Final = {"models": "model", "datasets": "dataset", "spaces": "space"}
_JSON_LIMIT: Final = 8 << 20
_COMMIT_LIMIT: Final = 1 << 30
"""Small files come inside the commit; it is spooled to disk, a line of it is held in memory."""
_LARGEST_REGULAR: Final = 1 << 20
"""Longer files, and all that are not text, are asked for as large files."""
_LINE_LIMIT: Final = 16 << 20
_PAGE: Final = 1000
_EXPANDED_PAGE: Final = 50
_LARGEST_CARD: Final = 1 << 20

Query = dict[str, list[str]]


class App:
    """An ASGI application; `endpoint` is the address it tells clients to come back to."""

    def __init__(self, store: Store, endpoint: str, namespace: str, token_sha256: str) -> None:
        self.store = store
        self.endpoint = endpoint
        self.namespace = namespace
        self._token_sha256 = token_sha256

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except StoreError as error:
            response = _problem(error)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    # Who asks

    def _is_owner(self, request: Request) -> bool:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        digest = hashlib.sha256(sent.encode("utf-8", "surrogateescape")).hexdigest()
        return hmac.compare_digest(digest, self._token_sha256)

    def _must_be_owner(self, request: Request) -> None:
        if not self._is_owner(request):
            message = "Invalid credentials in Authorization header"
            if "authorization" not in request.headers:
                message = "Invalid username or password."
            raise StoreError(401, message)

    def _repo(self, kind: str, name: str, request: Request) -> Repo:
        """The repo, if it may be seen: a private one is for others as if it was not there."""
        repo = self.store.repo(kind, name)
        if repo.private and not self._is_owner(request):
            raise StoreError(404, f"no {kind} {name}", "RepoNotFound")
        return repo

    def _own_repo(self, kind: str, name: str, request: Request) -> Repo:
        repo = self._repo(kind, name, request)
        self._must_be_owner(request)
        self._check_namespace(name)
        return repo

    def _check_namespace(self, name: str) -> None:
        if name.split("/")[0].lower() != self.namespace.lower():
            raise StoreError(403, f"this token may write to {self.namespace}, not to {name.split('/')[0]}")

    # Dispatch

    async def _answer(self, request: Request) -> Response:
        raw = request.scope.get("raw_path") or request.scope["path"].encode()
        try:
            parts = [
                unquote(part, errors="strict") for part in raw.decode("ascii").split("?")[0].split("/")[1:]
            ]
        except ValueError:
            raise StoreError(400, "the path is not UTF-8") from None
        if any("\0" in part for part in parts):
            raise StoreError(400, "the path has a NUL")
        method = request.method
        match parts:
            case ["health"] if method == "GET":
                return JSONResponse({"hub": self.store.id})
            case ["lfs", *rest]:
                return await self._lfs_upload(request, rest)
            case ["xet", hub, *rest] if hub == self.store.id:
                return await self._xet(request, rest)
            case ["api", "repos", action] if action in ("create", "delete", "move"):
                body = await _json(request)
                return await run_in_threadpool(self._repos, request, action, body)
            case ["api", "validate-yaml"] if method == "POST":
                return _validated(await _json(request))
            case ["api", "collections", *rest]:
                body = await _json(request) if method in ("POST", "PATCH") else {}
                return await run_in_threadpool(self._collections_api, request, rest, body)
            case ["api", kinds, owner, name, "commit", revision] if kinds in _KINDS and method == "POST":
                repo = await run_in_threadpool(self._own_repo, _KINDS[kinds], f"{owner}/{name}", request)
                return await self._commit(request, repo, revision)
            case ["api", kinds, owner, name, "paths-info", revision] if kinds in _KINDS and method == "POST":
                repo = await run_in_threadpool(self._repo, _KINDS[kinds], f"{owner}/{name}", request)
                form = parse_qs((await _body(request, _JSON_LIMIT)).decode("utf-8", "replace"))
                return await run_in_threadpool(self._paths_info, repo, revision, form)
            case ["api", kinds, owner, name, *rest] if kinds in _KINDS:
                body = await _json(request) if method in ("POST", "PUT", "DELETE") else {}
                return await run_in_threadpool(
                    self._repo_api, request, _KINDS[kinds], f"{owner}/{name}", rest, body
                )
            case ["api", kinds] if kinds in _KINDS and method == "GET":
                return await run_in_threadpool(self._list, request, _KINDS[kinds])
            case ["api", "whoami-v2"] if method == "GET":
                self._must_be_owner(request)
                return JSONResponse(self._whoami())
            case [*prefix, owner, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                repo_name = f"{owner}/{name.removesuffix('.git')}"
                await run_in_threadpool(self._own_repo, _kind(prefix), repo_name, request)
                body = await _json(request)
                answer = await run_in_threadpool(lfs.batch, self.store, self.endpoint, body)
                return JSONResponse(answer, media_type="application/vnd.git-lfs+json")
            case [("datasets" | "spaces") as kinds, owner, name, "resolve" | "raw", revision, *path]:
                return await run_in_threadpool(
                    self._resolve, request, _KINDS[kinds], f"{owner}/{name}", revision, "/".join(path)
                )
            case [owner, name, "resolve" | "raw", revision, *path]:
                return await run_in_threadpool(
                    self._resolve, request, "model", f"{owner}/{name}", revision, "/".join(path)
                )
        raise _not_implemented(request)

    def _repo_api(
        self, request: Request, kind: str, name: str, rest: list[str], body: dict[str, Any]
    ) -> Response:
        store, query = self.store, parse_qs(request.url.query)
        match request.method, rest:
            case "GET", []:
                return self._info(self._repo(kind, name, request), "main", query)
            case "GET", ["revision", revision]:
                return self._info(self._repo(kind, name, request), revision, query)
            case "GET", ["tree", revision, *path]:
                return self._tree(self._repo(kind, name, request), revision, "/".join(path), request)
            case "GET", ["refs"]:
                return JSONResponse(self._refs(self._repo(kind, name, request)))
            case "GET", ["commits", revision]:
                return self._commits(self._repo(kind, name, request), revision, request)
            case "GET", ["auth-check"]:
                self._repo(kind, name, request)
                return JSONResponse({})
            case "GET", ["auth-check", "write"]:
                self._own_repo(kind, name, request)
                return JSONResponse({})
            case "GET", ["xet-write-token", _]:
                self._own_repo(kind, name, request)
                return self._xet_token()
            case "POST", ["preupload", revision]:
                return self._preupload(self._own_repo(kind, name, request), revision, body)
            case "POST", ["branch", branch]:
                start = body.get("startingPoint") or "main"
                store.create_ref(self._own_repo(kind, name, request), "heads", branch, str(start))
                return JSONResponse({})
            case "DELETE", ["branch", branch]:
                store.delete_ref(self._own_repo(kind, name, request), "heads", branch)
                return JSONResponse({})
            case "POST", ["tag", revision]:
                repo = self._own_repo(kind, name, request)
                store.create_ref(repo, "tags", _text(body, "tag"), revision)
                return JSONResponse({})
            case "DELETE", ["tag", tag]:
                store.delete_ref(self._own_repo(kind, name, request), "tags", tag)
                return JSONResponse({})
            case "POST", ["super-squash", branch]:
                repo = self._own_repo(kind, name, request)
                commit = store.squash(repo, branch, str(body.get("message") or "squash"), self.namespace)
                return JSONResponse({"commitOid": commit.sha})
            case "PUT", ["settings"]:
                repo = self._own_repo(kind, name, request)
                unknown = body.keys() - {"private", "visibility"}
                if unknown:
                    raise StoreError(501, f"settings not implemented: {', '.join(sorted(unknown))}")
                store.update_repo(repo, _private(body), {})
                return JSONResponse({"private": store.repo(kind, name).private})
            case _, ["variables" | "secrets" as what] if kind == "space":
                return self._space_values(self._own_repo(kind, name, request), request, what, body)
            case "GET", ["runtime"] if kind == "space":
                return JSONResponse(_runtime(self._repo(kind, name, request)))
        raise _not_implemented(request)

    # Repos

    def _whoami(self) -> dict[str, Any]:
        return {
            "type": "user",
            "id": self.store.id,
            "name": self.namespace,
            "fullname": self.namespace,
            "isPro": False,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": {"displayName": "local", "role": "write"}},
        }

    def _repos(self, request: Request, action: str, body: dict[str, Any]) -> Response:
        self._must_be_owner(request)
        match request.method, action:
            case "POST", "create":
                return self._create(body)
            case "DELETE", "delete":
                kind, name = self._named(body)
                self.store.delete_repo(self._own_repo(kind, name, request))
                return JSONResponse({})
            case "POST", "move":
                kind = _repo_kind(body)
                repo = self._own_repo(kind, _text(body, "fromRepo"), request)
                target = _text(body, "toRepo")
                self._check_namespace(target)
                self.store.move_repo(repo, target)
                return JSONResponse({"url": self._url(kind, target)})
        raise _not_implemented(request)

    def _named(self, body: dict[str, Any]) -> tuple[str, str]:
        owner = body.get("organization") or self.namespace
        return _repo_kind(body), f"{owner}/{_text(body, 'name')}"

    def _create(self, body: dict[str, Any]) -> Response:
        kind, name = self._named(body)
        self._check_namespace(name)
        settings = {}
        if kind == "space":
            if body.get("sdk") not in ("gradio", "docker", "static", "streamlit"):
                raise StoreError(400, "a Space needs an sdk: gradio, docker or static")
            settings["sdk"] = body["sdk"]
            for what in ("variables", "secrets"):
                for item in body.get(what) or []:
                    settings.setdefault(what, {})[_text(item, "key")] = _kept_value(what, item)
        url = self._url(kind, name)
        try:
            repo = self.store.create_repo(kind, name, bool(_private(body)), self.namespace, settings)
        except StoreError as error:
            if error.status == 409:
                error.extra["url"] = url
            raise
        return JSONResponse({"url": url, "name": repo.name, "id": f"{repo.id:024x}"})

    def _url(self, kind: str, name: str) -> str:
        return f"{self.endpoint}/{'' if kind == 'model' else kind + 's/'}{name}"

    def _card(self, tree: Tree) -> tuple[dict[str, Any], list[str]]:
        readme = tree.get("README.md")
        if readme is None or readme.size > _LARGEST_CARD:
            return {}, []
        text = self.store.object_path(readme.sha256).read_text("utf-8", "replace")
        card = cards.parse_card(text)
        return card, cards.tags_of(card, text)

    def _describe(self, repo: Repo, commit: Commit, full: bool = True, blobs: bool = False) -> dict[str, Any]:
        tree = self.store.tree(commit)
        card, tags = self._card(tree)
        described: dict[str, Any] = {
            "_id": f"{repo.id:024x}",
            "id": repo.name,
            "author": repo.name.split("/")[0],
            "sha": commit.sha,
            "lastModified": commit.date,
            "createdAt": repo.created,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": tags,
        }
        if repo.kind == "model":
            described["modelId"] = repo.name
            for field, key in (("pipeline_tag", "pipeline_tag"), ("library_name", "library_name")):
                if isinstance(card.get(field), str):
                    described[key] = card[field]
        if repo.kind == "space":
            described["sdk"] = card.get("sdk") or repo.settings.get("sdk")
            described["runtime"] = _runtime(repo)
        if full:
            described["cardData"] = card or None
            described["siblings"] = [_sibling(path, entry, blobs) for path, entry in sorted(tree.items())]
        return described

    def _info(self, repo: Repo, revision: str, query: Query) -> Response:
        commit = self.store.resolve(repo, revision)
        described = self._describe(repo, commit, blobs=_yes(query, "blobs"))
        described["usedStorage"] = sum({e.sha256: e.size for e in self.store.tree(commit).values()}.values())
        expand = query.get("expand", []) + query.get("expand[]", [])
        if expand:
            described = {k: v for k, v in described.items() if k in ("_id", "id", *expand)}
        return JSONResponse(described)

    def _list(self, request: Request, kind: str) -> Response:
        query = parse_qs(request.url.query)
        unknown = query.keys() - {
            "author", "search", "filter", "limit", "sort", "direction", "full", "cardData", "config", "expand",
            "pipeline_tag", "cursor",
        }  # fmt: skip
        if unknown:
            # Leaving a filter out would answer with repos that were not asked for.
            raise StoreError(501, f"not implemented in lists of repos: {', '.join(sorted(unknown))}")
        owner = self._is_owner(request)
        author, search = (query.get(key, [""])[0].lower() for key in ("author", "search"))
        wanted = [part for value in query.get("filter", []) for part in value.split(",")]
        wanted += query.get("pipeline_tag", [])
        full = _yes(query, "full") or _yes(query, "cardData") or "expand" in query
        found = []
        for repo in self.store.repos(kind):
            namespace, _, _ = repo.name.lower().partition("/")
            if (
                (repo.private and not owner)
                or (author and author != namespace)
                or search not in repo.name.lower()
            ):
                continue
            described = self._describe(repo, self.store.resolve(repo, "main"), full)
            if set(wanted) <= set(described["tags"]):
                found.append(described)
        by = query.get("sort", ["lastModified"])[0]
        by = {"modified": "lastModified", "created": "createdAt"}.get(by, by)
        if by not in ("lastModified", "createdAt", "downloads", "likes", "trendingScore"):
            raise StoreError(501, f"sorting by {by} is not implemented")
        found.sort(key=lambda item: item.get(by) or 0 if by == "trendingScore" else item[by], reverse=True)
        if expand := query.get("expand"):
            found = [{k: v for k, v in item.items() if k in ("_id", "id", *expand)} for item in found]
        limit = query.get("limit", [str(_PAGE)])[0]
        if not limit.isdecimal():
            raise StoreError(400, "limit must be a number")
        return self._page(request, found, min(int(limit) or _PAGE, _PAGE))

    def _page(self, request: Request, items: list[Any], size: int) -> Response:
        """One page of a list, and where the next is."""
        query = parse_qs(request.url.query)
        start = query.get("cursor", ["0"])[0]
        if not start.isdecimal() or len(start) > 12:
            raise StoreError(400, "malformed cursor")
        first = int(start)
        headers = {}
        if first + size < len(items):
            query["cursor"] = [str(first + size)]
            path = request.scope["raw_path"].decode("ascii")
            headers["Link"] = f'<{self.endpoint}{path}?{urlencode(query, doseq=True)}>; rel="next"'
        return JSONResponse(items[first : first + size], headers=headers)

    # Files

    def _tree(self, repo: Repo, revision: str, path: str, request: Request) -> Response:
        commit = self.store.resolve(repo, revision)
        tree = self.store.tree(commit)
        query = parse_qs(request.url.query)
        path = path.strip("/")
        prefix = path + "/" if path else ""
        inside = [name for name in tree if name.startswith(prefix)]
        if path and not inside:
            raise StoreError(404, f"no folder {path}", "EntryNotFound", commit=commit.sha)
        names = set()
        for name in inside:
            below = name[len(prefix) :].split("/")
            depth = len(below) if _yes(query, "recursive") else 1
            names |= {prefix + "/".join(below[:i]) for i in range(1, depth + 1)}
        expand = _yes(query, "expand")
        size = _EXPANDED_PAGE if expand else _PAGE
        # Only the page is described: ids of folders and last commits take time.
        response = self._page(request, sorted(names), size)
        page = json.loads(bytes(response.body))
        headers = {"Link": response.headers["Link"]} if "Link" in response.headers else {}
        return JSONResponse(self._describe_paths(repo, commit, page, expand), headers=headers)

    def _describe_paths(
        self, repo: Repo, commit: Commit, names: list[str], expand: bool
    ) -> list[dict[str, Any]]:
        tree = self.store.tree(commit)
        last = self.store.last_commits(repo, commit, set(names)) if expand else {}
        described = []
        for name in names:
            entry = tree.get(name)
            if entry is None:
                item: dict[str, Any] = {"type": "directory", "oid": tree_oid(tree, name), "size": 0}
            else:
                item = {"type": "file", "oid": entry.oid, "size": entry.size}
                if entry.lfs:
                    item["lfs"] = {
                        "oid": entry.sha256,
                        "size": entry.size,
                        "pointerSize": _pointer_size(entry),
                    }
            item["path"] = name
            if name in last:
                commit_ = last[name]
                item["lastCommit"] = {"id": commit_.sha, "title": commit_.title, "date": commit_.date}
            described.append(item)
        return described

    def _paths_info(self, repo: Repo, revision: str, form: Query) -> Response:
        commit = self.store.resolve(repo, revision)
        tree = self.store.tree(commit)
        folders = {path[:i] for path in tree for i, char in enumerate(path) if char == "/"}
        asked = dict.fromkeys(path.strip("/") for path in form.get("paths", []))
        names = [path for path in asked if path in tree or path in folders]
        return JSONResponse(self._describe_paths(repo, commit, names, _yes(form, "expand")))

    def _resolve(self, request: Request, kind: str, name: str, revision: str, path: str) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise _not_implemented(request)
        repo = self._repo(kind, name, request)
        commit = self.store.resolve(repo, revision)
        entry = self.store.tree(commit).get(path)
        if entry is None:
            raise StoreError(404, "Entry not found", "EntryNotFound", commit=commit.sha)
        etag = f'"{entry.sha256 if entry.lfs else entry.oid}"'
        headers = {
            "X-Repo-Commit": commit.sha,
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": "no-cache",
            # Somebody else's HTML must not run in a browser on this address.
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        }
        if entry.lfs:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry.size)}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        ending = Path(path).suffix.lower()
        media = "text/plain; charset=utf-8" if ending in (".md", ".txt", ".json", ".yaml") else None
        return FileResponse(
            self.store.object_path(entry.sha256),
            headers=headers,
            media_type=media or "application/octet-stream",
            filename=Path(path).name,
            content_disposition_type="inline",
        )

    # Commits

    def _preupload(self, repo: Repo, revision: str, body: dict[str, Any]) -> Response:
        tree = self.store.tree(self.store.resolve(repo, revision))
        ignored = _ignore_rules(str(body.get("gitIgnore") or ""))
        answers = []
        for file in lfs.items(body, "files"):
            path = check_path(_text(file, "path"))
            there = tree.get(path)
            answers.append(
                {
                    "path": path,
                    "uploadMode": _upload_mode(file),
                    "shouldIgnore": ignored(path),
                    "oid": (there.sha256 if there.lfs else there.oid) if there else None,
                }
            )
        return JSONResponse({"files": answers})

    async def _commit(self, request: Request, repo: Repo, revision: str) -> Response:
        asked = {key for key, value in request.query_params.items() if value not in ("", "0", "false")}
        if asked:
            raise StoreError(501, f"commits with {', '.join(sorted(asked))} are not implemented")
        path = self.store.temporary()
        try:
            size = 0
            with path.open("xb") as file:
                async for data in request.stream():
                    size += len(data)
                    if size > _COMMIT_LIMIT:
                        raise StoreError(413, f"a commit may have at most {_COMMIT_LIMIT} bytes")
                    file.write(data)
            return await run_in_threadpool(self._apply, repo, revision, path)
        finally:
            path.unlink(missing_ok=True)

    def _apply(self, repo: Repo, branch: str, path: Path) -> Response:
        header: dict[str, Any] = {}
        changes: list[Change] = []
        with path.open("rb") as file:
            for key, value in _lines(file):
                match key:
                    case "header":
                        header = value
                    case "file":
                        data = _content(value)
                        changes.append(Change(check_path(_text(value, "path")), self.store.put_bytes(data)))
                    case "lfsFile":
                        entry = self.store.lfs_entry(_text(value, "oid"), value.get("size"))
                        changes.append(Change(check_path(_text(value, "path")), entry))
                    case "deletedFile":
                        changes.append(Change(_text(value, "path"), None))
                    case "deletedFolder":
                        changes.append(Change(_text(value, "path"), None, folder=True))
                    case _:
                        raise StoreError(501, f"commit operation {key!r} is not implemented")
        commit = self.store.commit(
            repo,
            branch.removeprefix("refs/heads/"),
            changes,
            _text(header, "summary"),
            str(header.get("description") or ""),
            self.namespace,
            header.get("parentCommit"),
        )
        url = f"{self._url(repo.kind, repo.name)}/commit/{commit.sha}"
        return JSONResponse({"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": ""})

    def _refs(self, repo: Repo) -> dict[str, Any]:
        answer: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
        for ref, sha in self.store.refs(repo):
            _, kind, name = ref.split("/", 2)
            item = {"name": name, "ref": ref, "targetCommit": sha}
            answer["branches" if kind == "heads" else "tags"].append(item)
        return answer

    def _commits(self, repo: Repo, revision: str, request: Request) -> Response:
        history: Iterable[Commit] = self.store.history(repo, self.store.resolve(repo, revision))
        items = [
            {
                "id": commit.sha,
                "title": commit.title,
                "message": commit.message,
                "date": commit.date,
                "authors": [{"user": commit.author}],
            }
            for commit in itertools.islice(history, 100_000)
        ]
        return self._page(request, items, _EXPANDED_PAGE)

    # Uploads

    async def _receive(self, request: Request, limit: int, done: Callable[[Upload], Awaitable[Any]]) -> Any:
        """Stream a body to disk, and hand it on."""
        with Upload(self.store, limit) as upload:
            async for data in request.stream():
                upload.write(data)
            return await done(upload)

    async def _lfs_upload(self, request: Request, rest: list[str]) -> Response:
        store = self.store
        match request.method, rest:
            case "PUT", ["object", oid, size, signature] if size.isdecimal():
                lfs.check_signature(store, f"put|{oid}|{size}", signature)

                async def keep_object(upload: Upload) -> None:
                    await run_in_threadpool(upload.keep_object, oid, int(size))

                await self._receive(request, int(size), keep_object)
                return Response(headers={"ETag": f'"{oid}"'})
            case "PUT", ["part", name, number, signature] if number.isdecimal():
                lfs.check_signature(store, f"part|{name}|{number}", signature)
                path = lfs.part_path(store, name, int(number))

                async def keep_part(upload: Upload) -> str:
                    await run_in_threadpool(upload.keep, path)
                    return upload.sha256

                digest = await self._receive(request, lfs.PART, keep_part)
                return Response(headers={"ETag": f'"{digest}"'})
            case "POST", ["complete", name, oid, size, signature] if size.isdecimal():
                lfs.check_signature(store, f"complete|{name}|{oid}|{size}", signature)
                body = await _json(request)
                await run_in_threadpool(lfs.complete, store, name, oid, int(size), body)
                return JSONResponse({"success": True})
        raise _not_implemented(request)

    def _xet_token(self) -> Response:
        token, until = lfs.sign(self.store, "xet", 3600)
        # Clients remember per address what they have sent, and another Hub may get this port.
        url = f"{self.endpoint}/xet/{self.store.id}"
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(until)}
        return JSONResponse({"casUrl": url, "accessToken": token, "exp": until}, headers=headers)

    async def _xet(self, request: Request, rest: list[str]) -> Response:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        lfs.check_signature(self.store, "xet", sent)
        match request.method, rest:
            case "POST", ["v1", "xorbs", _, name]:
                path = xet.xorb_path(self.store, name)

                async def keep_xorb(upload: Upload) -> bool:
                    if path.exists():
                        return False
                    await run_in_threadpool(upload.check_then_keep, path, xet.check_xorb)
                    return True

                inserted = await self._receive(request, xet.LARGEST_XORB, keep_xorb)
                return JSONResponse({"was_inserted": inserted})
            case "POST", ["v1", "shards"]:
                data = await _body(request, xet.LARGEST_SHARD)
                await run_in_threadpool(xet.add_shard, self.store, data)
                return JSONResponse({"result": 1})
            case "GET", ["v1", "chunks", *_]:
                return JSONResponse({"error": "not known"}, 404)
            case _, [("v1" | "v2"), *_]:
                # 404, not 501: it makes clients fall back to the calls above.
                return JSONResponse({"error": "not implemented by the local Hub"}, 404)
        raise _not_implemented(request)

    # Spaces

    def _space_values(self, repo: Repo, request: Request, what: str, body: dict[str, Any]) -> Response:
        values: dict[str, Any] = dict(repo.settings.get(what, {}))
        match request.method:
            case "GET":
                pass
            case "POST":
                values[_text(body, "key")] = _kept_value(what, body)
                self.store.update_repo(repo, None, {what: values})
            case "DELETE":
                values.pop(_text(body, "key"), None)
                self.store.update_repo(repo, None, {what: values})
            case _:
                raise _not_implemented(request)
        return JSONResponse(values)

    # Collections

    def _collections_api(self, request: Request, rest: list[str], body: dict[str, Any]) -> Response:
        method, store = request.method, self.store
        if method != "GET":
            self._must_be_owner(request)
        if rest and len(rest) > 1:
            slug = f"{rest[0]}/{rest[1]}"
            if method != "GET":
                self._check_namespace(slug)
        match method, rest:
            case "GET", []:
                return self._list_collections(request)
            case "POST", []:
                owner = str(body.get("namespace") or self.namespace)
                self._check_namespace(owner)
                fields: dict[str, Any] = {
                    "owner": {"name": owner, "type": "user"},
                    "description": str(body.get("description") or "")[:150],
                    "private": bool(body.get("private")),
                    "theme": "indigo",
                    "upvotes": 0,
                    "position": 0,
                }
                return self._collection(store.create_collection(owner, _text(body, "title"), fields), request)
            case "GET", [_, _]:
                return self._collection(store.collection(slug), request)
            case "PATCH", [_, _]:
                unknown = body.keys() - {"title", "description", "private", "theme", "position"}
                if unknown:
                    raise StoreError(501, f"not implemented: {', '.join(sorted(unknown))}")
                with store.change_collection(slug) as data:
                    data.update(body)
                return JSONResponse({"data": _shown(store.collection(slug))})
            case "DELETE", [_, _]:
                store.delete_collection(slug)
                return JSONResponse({})
            case "POST", [_, _, "items"]:
                self._add_item(slug, body)
                return self._collection(store.collection(slug), request)
            case (("PATCH" | "DELETE"), [_, _, "items", item_id]):
                with store.change_collection(slug) as data:
                    held: list[dict[str, Any]] = data["items"]
                    item = next((i for i in held if i["_id"] == item_id), None)
                    if item is None:
                        raise StoreError(404, "no such item in the collection", "EntryNotFound")
                    if method == "DELETE":
                        held.remove(item)
                    if "note" in body:
                        item["note"] = {"text": str(body["note"])}
                    if isinstance(body.get("position"), int):
                        held.remove(item)
                        held.insert(body["position"], item)
                        for position, moved in enumerate(held):
                            moved["position"] = position
                return JSONResponse({})
        raise _not_implemented(request)

    def _add_item(self, slug: str, body: dict[str, Any]) -> None:
        item = body.get("item")
        if not isinstance(item, dict):
            raise StoreError(400, "item is missing")
        kind, name = _text(item, "type"), _text(item, "id")
        if kind not in _KINDS.values():
            raise StoreError(501, f"collection items of type {kind!r} are not implemented")
        repo = self.store.repo(kind, name)
        with self.store.change_collection(slug) as data:
            if any((i["type"], i["id"]) == (kind, repo.name) for i in data["items"]):
                raise StoreError(409, f"{kind} {name} is in the collection already")
            number = int(data.get("counter", 0)) + 1
            data["counter"] = number
            added = {"_id": f"{number:024x}", "type": kind, "id": repo.name, "position": len(data["items"])}
            if body.get("note"):
                added["note"] = {"text": str(body["note"])[:500]}
            data["items"].append(added)

    def _visible(self, data: dict[str, Any], request: Request) -> dict[str, Any]:
        """A collection without the private repos that the caller may not know of."""
        shown = _shown(data)
        if not self._is_owner(request):
            shown["items"] = [
                item
                for item in shown["items"]
                if (repo := self.store.find_repo(item["type"], item["id"])) is not None and not repo.private
            ]
        return shown

    def _collection(self, data: dict[str, Any], request: Request) -> Response:
        if data["private"] and not self._is_owner(request):
            raise StoreError(404, f"no collection {data['slug']}", "CollectionNotFound")
        return JSONResponse(self._visible(data, request))

    def _list_collections(self, request: Request) -> Response:
        query = parse_qs(request.url.query)
        unknown = query.keys() - {"owner", "item", "limit", "cursor", "sort"}
        if unknown:
            raise StoreError(501, f"not implemented in lists of collections: {', '.join(sorted(unknown))}")
        owners, items = query.get("owner", []), query.get("item", [])
        found = []
        for data in self.store.collections():
            if data["private"] and not self._is_owner(request):
                continue
            shown = self._visible(data, request)
            held = {f"{item['type']}s/{item['id']}" for item in shown["items"]}
            if (not owners or data["owner"]["name"] in owners) and (not items or held & set(items)):
                # Clients number the collections of a list themselves.
                found.append({k: v for k, v in shown.items() if k != "position"})
        found.sort(key=lambda data: data["lastUpdated"], reverse=True)
        return self._page(request, found, 100)


# What needs no state


def _problem(error: StoreError) -> Response:
    headers = {"X-Error-Message": re.sub(r"[^ -~]", "?", error.message)[:300]}
    if error.code:
        headers["X-Error-Code"] = error.code
    extra = dict(error.extra)
    if "commit" in extra:
        headers["X-Repo-Commit"] = extra.pop("commit")
    return JSONResponse({"error": error.message} | extra, error.status, headers)


def _not_implemented(request: Request) -> StoreError:
    return StoreError(
        501, f"the local Hub does not implement {request.method} {request.url.path}", "NotImplemented"
    )


async def _body(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for data in request.stream():
        size += len(data)
        if size > limit:
            raise StoreError(413, f"the body may have at most {limit} bytes")
        parts.append(data)
    return b"".join(parts)


async def _json(request: Request) -> dict[str, Any]:
    return lfs.parse_json(await _body(request, _JSON_LIMIT))


def _text(body: Any, key: str) -> str:
    value = body.get(key) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise StoreError(400, f"{key} is missing")
    return value


def _yes(query: Query, key: str) -> bool:
    return query.get(key, [""])[0].lower() in ("true", "1")


def _private(body: dict[str, Any]) -> bool | None:
    visibility = body.get("visibility")
    if visibility is None:
        private = body.get("private")
        return bool(private) if private is not None else None
    if visibility not in ("public", "private"):
        raise StoreError(501, f"visibility {visibility!r} is not implemented")
    return bool(visibility == "private")


def _repo_kind(body: dict[str, Any]) -> str:
    kind = str(body.get("type") or "model")
    if kind not in _KINDS.values():
        raise StoreError(501, f"repos of type {kind!r} are not implemented")
    return kind


def _kind(prefix: list[str]) -> str:
    if not prefix:
        return "model"
    if len(prefix) == 1 and prefix[0] in ("datasets", "spaces"):
        return _KINDS[prefix[0]]
    raise StoreError(404, "no such repo", "RepoNotFound")


def _pointer_size(entry: Entry) -> int:
    return len(f"version https://git-lfs.github.com/spec/v1\noid sha256:{entry.sha256}\nsize {entry.size}\n")


def _sibling(path: str, entry: Entry, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": entry.size, "blobId": entry.oid}
        if entry.lfs:
            sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": _pointer_size(entry)}
    return sibling


def _runtime(repo: Repo) -> dict[str, Any]:
    """A local Hub runs no Spaces, and says so."""
    return {"stage": "STOPPED", "hardware": {"current": None, "requested": None}}


def _kept_value(what: str, body: dict[str, Any]) -> dict[str, str]:
    kept = {"key": _text(body, "key")}
    if body.get("description"):
        kept["description"] = str(body["description"])
    if what == "variables":  # secrets: nothing here would ever use the value
        kept["value"] = str(body.get("value") or "")
    return kept


def _shown(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "counter"}


def _validated(body: dict[str, Any]) -> Response:
    errors, warnings = cards.validate(str(body.get("content") or ""))
    answer = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return JSONResponse(answer, 400 if errors else 200)


def _lines(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """The operations of a commit: one JSON object per line, the first its header."""
    first = True
    while line := file.readline(_LINE_LIMIT + 1):
        if len(line) > _LINE_LIMIT:
            raise StoreError(413, "a file inside the commit is too large; upload it as a large file")
        if not line.strip():
            continue
        item = lfs.parse_json(line)
        key, value = item.get("key"), item.get("value")
        if not isinstance(key, str) or not isinstance(value, dict) or first != (key == "header"):
            raise StoreError(400, "malformed commit: a header, then operations")
        first = False
        yield key, value
    if first:
        raise StoreError(400, "malformed commit: no header")


def _content(value: dict[str, Any]) -> bytes:
    content = value.get("content")
    if not isinstance(content, str):
        raise StoreError(400, "content is missing")
    if value.get("encoding", "utf-8") == "utf-8":
        return content.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise StoreError(400, "content is not base64") from None


def _upload_mode(file: dict[str, Any]) -> str:
    """Short texts travel inside the commit."""
    try:
        sample = base64.b64decode(str(file.get("sample") or ""), validate=True)
    except (binascii.Error, ValueError):
        raise StoreError(400, "sample is not base64") from None
    size = file.get("size")
    if not isinstance(size, int) or size < 0:
        raise StoreError(400, "size is missing")
    if size > _LARGEST_REGULAR or b"\0" in sample:
        return "lfs"
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A sample may end inside a character.
        return "regular" if len(sample) < size and error.start >= len(sample) - 3 else "lfs"
    return "regular"


def _ignore_rules(text: str) -> Callable[[str], bool]:
    """The common rules of a .gitignore: *, ?, **, leading and trailing slashes, negation."""
    rules: list[tuple[re.Pattern[str], bool]] = []
    for line in text.splitlines()[:10_000]:
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        keep = rule.startswith("!")
        rule = rule.removeprefix("!")
        anchored = "/" in rule.rstrip("/")
        folder = rule.endswith("/")
        pattern = ""
        for token in re.findall(r"\*\*/|\*\*|\*|\?|.", rule.strip("/")):
            pattern += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))
        start = "" if anchored else "(?:.*/)?"
        rules.append((re.compile(start + pattern + ("/.*" if folder else "(?:/.*)?")), keep))

    def ignored(path: str) -> bool:
        result = False
        for rule, keep in rules:
            if rule.fullmatch(path):
                result = not keep
        return result

    return ignored
