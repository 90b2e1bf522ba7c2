"""ApiRequest, the argument of all handlers: it has the sender, the repo and the body, and pages lists.

A handler is a plain function from an ApiRequest to a Response and runs in a thread; one that streams a body is a
coroutine. Starlette routes on the *raw* path, so that a revision or folder with a slash, which arrives as one
quoted segment, stays one segment.
"""

from __future__ import annotations

import base64
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubkit.localhub.storage.accounts import Who, who_sent
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.store import Repo, Store

__all__ = [
    "KINDS",
    "ApiRequest",
    "Query",
    "error_response",
    "items",
    "parse_json",
    "read_body",
    "route",
    "text",
    "yes",
]

KINDS: Final = {"models": "model", "datasets": "dataset", "spaces": "space"}
_JSON_LIMIT: Final = 8 << 20
_PAGE: Final = 1000

Query = dict[str, list[str]]


@dataclass(frozen=True)
class ApiRequest:
    """One request."""

    http: Request
    store: Store
    who: Who
    path: dict[str, str]
    """Returns the named parts of the route, unquoted."""
    query: Query
    body: dict[str, Any]
    """The JSON body; empty for GET, and for handlers that read the body themselves."""

    @property
    def method(self) -> str:
        return self.http.method

    @property
    def endpoint(self) -> str:
        """The address under which the client reached this server, which may be behind a tunnel."""
        return f"{self.http.url.scheme}://{self.http.url.netloc}"

    # Repos that a route names

    @property
    def kind(self) -> str:
        """By the route's {kinds}, or by how its path begins: /datasets/…, /api/spaces/…, or a model's."""
        first = self.http.scope["path"].removeprefix("/api/").lstrip("/").split("/")[0]
        kinds = self.path.get("kinds", first if first in KINDS else "models")
        if kinds not in KINDS:
            raise self.not_implemented()
        return KINDS[kinds]

    def repo(self) -> Repo:
        """The repo that the route names. Raises ApiError, as for a missing one, if the caller may not read it."""
        return self.visible(self.kind, f"{self.path['owner']}/{self.path['name']}")

    def visible(self, kind: str, name: str) -> Repo:
        repo = self.store.repo(kind, name)
        if not self.who.may_read(repo):
            raise ApiError(404, f"no {kind} {name}", "RepoNotFound")
        return repo

    def own_repo(self) -> Repo:
        """The repo that the route names. Raises ApiError if the caller may not change it."""
        repo = self.repo()
        self.check_writes(repo.name)
        return repo

    def contributed_repo(self) -> Repo:
        """The repo that the route names. Raises ApiError if the caller may not open pull requests on it."""
        repo = self.repo()
        self.check_user()
        if not self.who.may_contribute(repo):
            raise ApiError(403, f"this token may only read {repo.name}")
        return repo

    def check_user(self) -> None:
        if not self.who.user:
            message = "Invalid credentials in Authorization header"
            if "authorization" not in self.http.headers:
                message = "Invalid username or password."
            raise ApiError(401, message)

    def check_writes(self, name: str) -> None:
        """Raise ApiError if the caller may not change `name`, a namespace or namespace/repo."""
        self.check_user()
        if not self.who.may_write(name):
            raise ApiError(403, f"this token of {self.who.user} may not write to {name}")

    def url(self, repo: Repo) -> str:
        prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
        return f"{self.endpoint}/{prefix}{repo.name}"

    # Answers

    def flag(self, key: str) -> bool:
        return yes(self.query, key)

    def check_query(self, *known: str) -> None:
        """Raise ApiError for a filter that is not implemented: ignoring it would give a wrong list."""
        if unknown := self.query.keys() - set(known):
            raise ApiError(501, f"not implemented on {self.http.scope['path']}: {', '.join(sorted(unknown))}")

    def page(self, found: Iterable[Any], largest: int = _PAGE) -> tuple[list[Any], dict[str, str]]:
        """One page of a list, and the Link header that says where the next is."""
        first, limit = (self.number(key) for key in ("cursor", "limit"))
        size = min(limit or largest, largest)
        page = list(islice(found, first, first + size + 1))
        if len(page) <= size:
            return page, {}
        query = urlencode(self.query | {"cursor": [str(first + size)]}, doseq=True)
        path = self.http.scope["raw_path"].decode("ascii")
        return page[:size], {"Link": f'<{self.endpoint}{path}?{query}>; rel="next"'}

    def paged(self, found: Iterable[Any], largest: int = _PAGE) -> Response:
        page, headers = self.page(found, largest)
        return JSONResponse(page, headers=headers)

    def number(self, key: str) -> int:
        value = self.query.get(key, ["0"])[0]
        if not value.isdecimal() or len(value) > 12:
            raise ApiError(400, f"{key} must be a number")
        return int(value)

    def not_implemented(self) -> ApiError:
        message = f"the local Hub does not implement {self.method} {self.http.scope['path']}"
        return ApiError(501, message, "NotImplemented")


Handler = Callable[[ApiRequest], Response] | Callable[[ApiRequest], Awaitable[Response]]


def route(method: str, path: str, handler: Handler) -> Route:
    streams = inspect.iscoroutinefunction(handler)

    async def endpoint(request: Request) -> Response:
        body: dict[str, Any] = {}
        if method != "GET" and not streams:
            body = parse_json(await read_body(request, _JSON_LIMIT))
        asked = await run_in_threadpool(_api_request, request, body)
        if streams:
            return await cast(Awaitable[Response], handler(asked))
        return await run_in_threadpool(cast(Callable[[ApiRequest], Response], handler), asked)

    return Route(path, endpoint, methods=[method])


def _api_request(request: Request, body: dict[str, Any]) -> ApiRequest:
    try:
        path = {key: unquote(value, errors="strict") for key, value in request.path_params.items()}
    except ValueError:
        raise ApiError(400, "the path is not UTF-8") from None
    if any("\0" in part for part in path.values()):
        raise ApiError(400, "the path has a NUL")
    store: Store = request.app.state.store
    authorization = request.headers.get("authorization", "")
    if authorization.startswith("Basic ") and request.method in ("GET", "HEAD"):
        # A browser that is logged in. It would send this along with the forms of other sites too: it only reads.
        authorization = _password(authorization)
    who = who_sent(store, authorization)
    signed = request.scope["path"].startswith(("/lfs/", "/xet/"))  # addresses that carry a signature
    if request.app.state.require_token and not who.user and not signed:
        raise ApiError(401, "this Hub answers only to its tokens")
    return ApiRequest(request, store, who, path, parse_qs(request.url.query), body)


def _password(authorization: str) -> str:
    try:
        return base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")[2]
    except ValueError:
        raise ApiError(400, "malformed Authorization header") from None


def error_response(error: ApiError) -> Response:
    """Answer with an error in the clients' form: they recognise a missing repo by X-Error-Code."""
    headers = {"X-Error-Message": re.sub(r"[^ -~]", "?", error.message)[:300]}
    if error.code:
        headers["X-Error-Code"] = error.code
    extra = dict(error.extra)
    if "commit" in extra:
        headers["X-Repo-Commit"] = extra.pop("commit")
    return JSONResponse({"error": error.message} | extra, error.status, headers)


async def read_body(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for data in request.stream():
        size += len(data)
        if size > limit:
            raise ApiError(413, f"the body may have at most {limit} bytes")
        parts.append(data)
    return b"".join(parts)


def parse_json(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object")
    return body


def text(body: Any, key: str) -> str:
    value = body.get(key) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise ApiError(400, f"{key} is missing")
    return value


def items(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Returns the list of JSON objects under a key of the body; [] if the key is missing."""
    found = body.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ApiError(400, f"{key} must be a list of objects")
    return found


def yes(query: Query, key: str) -> bool:
    return query.get(key, [""])[0].lower() in ("true", "1")
