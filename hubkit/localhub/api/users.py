"""Users: whoami, overviews of users and organisations, what they store."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from hubkit.localhub.api.repos import used_storage
from hubkit.localhub.api.request import KINDS, ApiRequest
from hubkit.localhub.storage import accounts
from hubkit.localhub.storage.errors import ApiError

__all__ = ["members", "org_overview", "storage", "user_overview", "whoami"]


def whoami(request: ApiRequest) -> Response:
    request.check_user()
    return JSONResponse(accounts.described(request.store, request.who))


def _counted(request: ApiRequest, name: str) -> dict[str, Any]:
    """How many repos of each type the caller can see."""
    counts = {}
    for kinds, kind in KINDS.items():
        own = [repo for repo in request.store.repos(kind) if repo.name.lower().startswith(name.lower() + "/")]
        counts[f"num{kinds.capitalize()}"] = sum(request.who.may_read(repo) for repo in own)
    return {"fullname": name, "avatarUrl": "", **counts}


def storage(request: ApiRequest) -> Response:
    """Answer with the repos of the caller, or of one of their organisations, and the bytes in each."""
    request.check_user()
    account = request.path.get("account", request.who.user)
    if account.lower() not in (request.who.user.lower(), *request.who.orgs):
        raise ApiError(403, f"{request.who.user} is no member of {account}")
    found: list[dict[str, Any]] = []
    for kind in KINDS.values():
        for repo in request.store.repos(kind):
            if repo.name.lower().startswith(account.lower() + "/") and request.who.may_read(repo):
                head = request.store.head(repo, "refs/heads/main")
                line = {"id": repo.name, "type": kind, "visibility": "private" if repo.private else "public"}
                used = used_storage(request.store.tree(head))
                found.append({**line, "updatedAt": head.date, "storage": used})
    whole = sum(line["storage"] for line in found) or 1
    found.sort(key=lambda line: line["storage"], reverse=True)
    return request.paged([{**line, "storagePercent": 100 * line["storage"] / whole} for line in found])


def _check_is(request: ApiRequest, org: bool) -> str:
    name = request.path["account"]
    if accounts.is_org(request.store, name) is not org:
        raise ApiError(404, f"no {'organisation' if org else 'user'} {name}")
    return name


def user_overview(request: ApiRequest) -> Response:
    name = _check_is(request, org=False)
    return JSONResponse({"user": name, "type": "user", "isPro": False, "orgs": [], **_counted(request, name)})


def org_overview(request: ApiRequest) -> Response:
    name = _check_is(request, org=True)
    numbers = {"numUsers": len(accounts.members(request.store, name))}
    return JSONResponse({"name": name, "type": "org", **numbers, **_counted(request, name)})


def members(request: ApiRequest) -> Response:
    names = accounts.members(request.store, _check_is(request, org=True))
    return request.paged(
        [{"user": name, "fullname": name, "avatarUrl": "", "type": "user"} for name in names]
    )
