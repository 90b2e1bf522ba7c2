"""Who there is: whoami, overviews of users and organisations, what they store."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from hubkit.localhub import accounts
from hubkit.localhub.problems import Problem
from hubkit.localhub.repos import used_storage
from hubkit.localhub.web import KINDS, Call

__all__ = ["members", "org_overview", "storage", "user_overview", "whoami"]


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


def storage(call: Call) -> Response:
    """The repos of the caller, or of an organisation that is theirs, and how much is in each."""
    call.check_user()
    account = call.path.get("account", call.who.user)
    if account.lower() not in (call.who.user.lower(), *call.who.orgs):
        raise Problem(403, f"{call.who.user} is no member of {account}")
    found: list[dict[str, Any]] = []
    for kind in KINDS.values():
        for repo in call.store.repos(kind):
            if repo.name.lower().startswith(account.lower() + "/") and call.who.may_read(repo):
                head = call.store.head(repo, "refs/heads/main")
                line = {"id": repo.name, "type": kind, "visibility": "private" if repo.private else "public"}
                used = used_storage(call.store.tree(head))
                found.append({**line, "updatedAt": head.date, "storage": used})
    whole = sum(line["storage"] for line in found) or 1
    found.sort(key=lambda line: line["storage"], reverse=True)
    return call.paged([{**line, "storagePercent": 100 * line["storage"] / whole} for line in found])


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
