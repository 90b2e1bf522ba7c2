"""The Hub's HTTP API, and pages to look at, over a Store: the table of routes.

What is not in the table answers 501 with its name.
"""

from __future__ import annotations

from email.utils import formatdate
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hubkit.localhub.api import (
    bodies,
    collections,
    commits,
    discussions,
    files,
    jobs,
    repos,
    results,
    spaces,
    uploads,
    users,
)
from hubkit.localhub.api.request import ApiRequest, error_response, route
from hubkit.localhub.pages import lists
from hubkit.localhub.pages import repo as repo_pages
from hubkit.localhub.pages.html import error_page, login, style
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.store import Store

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["make_app"]

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_REPO: Final = "/api/{kinds}/{owner}/{name}"
_SPACE: Final = "/api/spaces/{owner}/{name}"
_DISCUSSION: Final = f"{_REPO}/discussions/{{num}}"
_PAGES: Final = ("/datasets/{owner}/{name}", "/spaces/{owner}/{name}", "/{owner}/{name}")
_JOBS: Final = "/api/jobs/{namespace}"
_JOB: Final = f"{_JOBS}/{{job}}"
_COLLECTION: Final = "/api/collections/{owner}/{name}"


def _missing(request: ApiRequest) -> Response:
    raise ApiError(
        404, f"no {request.kind} {request.path['name']}: a repo here has a namespace", "RepoNotFound"
    )


async def _health(request: Request) -> Response:
    return JSONResponse({"hub": request.app.state.store.id})


async def _not_implemented(request: ApiRequest) -> Response:
    raise request.not_implemented()


def _refused(request: Request, error: Exception) -> Response:
    """A page for a browser, JSON for all other clients."""
    assert isinstance(error, ApiError)
    browser = request.method == "GET" and "text/html" in request.headers.get("accept", "")
    return error_page(error) if browser else error_response(error)


def _repo_routes() -> list[Route]:
    return [
        # Repos
        route("POST", "/api/repos/create", repos.create),
        route("DELETE", "/api/repos/delete", repos.delete),
        route("POST", "/api/repos/move", repos.move),
        route("GET", "/api/{kinds}", repos.listed),
        route("GET", _REPO, repos.info),
        route("GET", f"{_REPO}/revision/{{revision}}", repos.info),
        route("PUT", f"{_REPO}/settings", repos.settings),
        route("POST", f"{_REPO}/duplicate", repos.duplicate),
        route("GET", f"{_REPO}/auth-check", repos.auth_check),
        route("GET", f"{_REPO}/auth-check/write", repos.auth_check_write),
        # Files
        route("GET", f"{_REPO}/tree/{{revision}}", files.tree),
        route("GET", f"{_REPO}/tree/{{revision}}/{{path:path}}", files.tree),
        route("POST", f"{_REPO}/paths-info/{{revision}}", files.paths_info),
        route("GET", f"{_REPO}/refs", files.refs),
        route("GET", f"{_REPO}/commits/{{revision}}", files.history),
        # Commits
        route("POST", f"{_REPO}/preupload/{{revision}}", commits.preupload),
        route("POST", f"{_REPO}/commit/{{revision}}", commits.commit),
        route("POST", f"{_REPO}/branch/{{branch}}", commits.create_branch),
        route("DELETE", f"{_REPO}/branch/{{branch}}", commits.delete_branch),
        route("POST", f"{_REPO}/tag/{{revision}}", commits.create_tag),
        route("DELETE", f"{_REPO}/tag/{{revision}}", commits.delete_tag),
        route("POST", f"{_REPO}/super-squash/{{branch}}", commits.squash),
        # Discussions
        route("GET", f"{_REPO}/discussions", discussions.listed),
        route("POST", f"{_REPO}/discussions", discussions.create),
        route("GET", _DISCUSSION, discussions.detail),
        route("POST", f"{_DISCUSSION}/comment", discussions.comment),
        route("POST", f"{_DISCUSSION}/comment/{{comment}}/edit", discussions.edit),
        route("POST", f"{_DISCUSSION}/comment/{{comment}}/hide", discussions.hide),
        route("POST", f"{_DISCUSSION}/title", discussions.rename),
        route("POST", f"{_DISCUSSION}/status", discussions.set_status),
        route("POST", f"{_DISCUSSION}/merge", discussions.merge),
        # Evaluation results
        route("GET", f"{_REPO}/leaderboard", results.leaderboard),
        # Spaces
        route("GET", f"{_SPACE}/runtime", spaces.runtime),
        route("POST", f"{_SPACE}/hardware", spaces.hardware),
        *(
            route(method, f"{_SPACE}/{what}", handler)
            for what, handler in (("variables", spaces.variables), ("secrets", spaces.secrets))
            for method in ("GET", "POST", "DELETE")
        ),
    ]


def _pages() -> list[Route]:
    routes = [
        route("GET", "/", lists.index),
        route("GET", "/-/style.css", style),
        route("GET", "/login", login),
        route("GET", "/collections", lists.collection_list),
        route("GET", "/collections/{owner}/{name}", lists.collection),
        route("GET", "/{kinds}", lists.kind_list),
    ]
    for repo in _PAGES:
        routes += [
            route("GET", repo, repo_pages.card),
            route("GET", f"{repo}/tree/{{revision}}", repo_pages.files),
            route("GET", f"{repo}/tree/{{revision}}/{{path:path}}", repo_pages.files),
            route("GET", f"{repo}/blob/{{revision}}/{{path:path}}", repo_pages.blob),
            route("GET", f"{repo}/commits/{{revision}}", repo_pages.commits),
            route("GET", f"{repo}/commit/{{revision}}", repo_pages.commit),
            route("GET", f"{repo}/discussions", repo_pages.discussion_list),
            route("GET", f"{repo}/discussions/{{num}}", repo_pages.discussion),
        ]
        if repo.startswith("/datasets"):
            routes += [
                route("GET", f"{repo}/viewer", repo_pages.viewer),
                route("GET", f"{repo}/leaderboard", repo_pages.leaderboard),
            ]
    return routes


def _other_routes() -> list[Route]:
    return [
        route("GET", "/api/whoami-v2", users.whoami),
        route("GET", "/api/users/{account}/overview", users.user_overview),
        route("GET", "/api/organizations/{account}/overview", users.org_overview),
        route("GET", "/api/organizations/{account}/members", users.members),
        route("GET", "/api/settings/repositories", users.storage),
        route("GET", "/api/organizations/{account}/settings/repositories", users.storage),
        route("POST", "/api/validate-yaml", repos.validate_yaml),
        # Collections
        route("GET", "/api/collections", collections.listed),
        route("POST", "/api/collections", collections.create),
        route("GET", _COLLECTION, collections.one),
        route("PATCH", _COLLECTION, collections.update),
        route("DELETE", _COLLECTION, collections.delete),
        route("POST", f"{_COLLECTION}/items", collections.add_item),
        route("PATCH", f"{_COLLECTION}/items/{{item}}", collections.change_item),
        route("DELETE", f"{_COLLECTION}/items/{{item}}", collections.change_item),
    ]


def _job_routes() -> list[Route]:
    return [
        *(route(method, "/api/jobs/hardware", _not_implemented) for method in _METHODS),
        route("GET", _JOBS, jobs.listed),
        route("POST", _JOBS, jobs.run),
        route("GET", _JOB, jobs.inspect),
        route("GET", f"{_JOB}/logs", jobs.logs),
        route("POST", f"{_JOB}/cancel", jobs.cancel),
        route("PUT", f"{_JOB}/labels", jobs.relabel),
    ]


def _content_routes() -> list[Route]:
    routes = [
        route("PUT", "/lfs/object/{oid}/{size}/{signature}", uploads.lfs_object),
        route("PUT", "/lfs/part/{upload}/{number}/{size}/{signature}", uploads.lfs_part),
        route("POST", "/lfs/complete/{upload}/{oid}/{size}/{signature}", uploads.lfs_complete),
        route("GET", f"{_REPO}/xet-write-token/{{revision}}", uploads.xet_token),
        route("POST", "/xet/{hub}/v1/xorbs/{prefix}/{hash}", uploads.xet_xorb),
        route("POST", "/xet/{hub}/v1/shards", uploads.xet_shard),
        *(route(method, "/xet/{hub}/{rest:path}", uploads.xet_unknown) for method in ("GET", "POST")),
    ]
    for repo in _PAGES:
        routes += [
            route("POST", f"{repo}.git/info/lfs/objects/batch", uploads.lfs_batch),
            route("POST", f"{repo}.git/info/lfs/objects/verify", uploads.lfs_verify),
            route("GET", f"{repo}/resolve/{{revision}}/{{path:path}}", files.resolve),
            route("GET", f"{repo}/raw/{{revision}}/{{path:path}}", files.raw),
        ]
    return routes


class _Guard:
    """Checks each request before it is routed."""

    def __init__(self, app: ASGIApp, loopback: bool) -> None:
        self._app = app
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if self._loopback and not _is_loopback(Request(scope)):
            # DNS rebinding: a page of a website whose name was made to point here.
            refusal = PlainTextResponse("this Hub answers to the names of this machine only\n", 421)
            return await refusal(scope, receive, send)

        async def send_dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"date", formatdate(usegmt=True).encode())]
            await send(message)

        raw = scope["raw_path"].decode("latin-1")
        try:
            await self._app({**scope, "path": raw}, receive, send_dated)
        except ClientDisconnect:
            return None


def _is_loopback(request: Request) -> bool:
    try:
        host = request.url.hostname or ""
    except ValueError:  # a malformed Host header
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def make_app(
    store: Store, loopback: bool = True, require_token: bool = False, running: jobs.Jobs | None = None
) -> ASGIApp:
    """An ASGI application. `loopback`: it is reached by the names of this machine only.

    `running`: the server's jobs; None: it runs none.
    """
    routes = [
        Route("/health", _health),
        *_job_routes(),
        *_other_routes(),
        *_repo_routes(),
        *_content_routes(),
        route("GET", "/api/{kinds}/{name}", _missing),
        *(route(method, "/api/{rest:path}", _not_implemented) for method in _METHODS),
        *_pages(),
        *(route(method, "/{rest:path}", _not_implemented) for method in _METHODS),
    ]
    app = Starlette(routes=routes, exception_handlers={ApiError: _refused})
    app.router.redirect_slashes = False
    app.state.store = store
    app.state.loopback = loopback
    app.state.require_token = require_token
    app.state.jobs = running
    app.state.bodies = CapacityLimiter(bodies.AT_ONCE)
    return _Guard(app, loopback)
