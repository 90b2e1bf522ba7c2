"""Who there is: whoami, and the overviews of users and organisations."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from hubkit.hub.server import accounts
from hubkit.hub.server.problems import Problem
from hubkit.hub.server.web import KINDS, Call

__all__ = ["members", "org_overview", "user_overview", "whoami"]


def whoami(call: Call) -> Response:
    call.check_user()
    return JSONResponse(accounts.described(call.store, call.who))


def _counted(call: Call, name: str) -> dict[str, Any]:
    """How many repos of each type the caller can see."""
    counts = {}
    for kinds, kind in KINDS.items():
        own = [repo for repo in call.store.repos(kind) if repo.name.lower().startswith(name.lower() + "/")]
        counts[f"num{kinds.capitalize()}"] = sum(call.who.may_read(repo) for repo in own)
    return {"fullname": name, "avatarUrl": "", **counts}


def _check_is(call: Call, org: bool) -> str:
    name = call.path["account"]
    if accounts.is_org(call.store, name) is not org:
        raise Problem(404, f"no {'organisation' if org else 'user'} {name}")
    return name


def user_overview(call: Call) -> Response:
    name = _check_is(call, org=False)
    return JSONResponse({"user": name, "type": "user", "isPro": False, "orgs": [], **_counted(call, name)})


def org_overview(call: Call) -> Response:
    name = _check_is(call, org=True)
    numbers = {"numUsers": len(accounts.members(call.store, name))}
    return JSONResponse({"name": name, "type": "org", **numbers, **_counted(call, name)})


def members(call: Call) -> Response:
    names = accounts.members(call.store, _check_is(call, org=True))
    return call.paged([{"user": name, "fullname": name, "avatarUrl": "", "type": "user"} for name in names])
