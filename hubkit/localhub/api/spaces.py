"""What a Space has besides files: variables, secrets, and a runtime, which here never runs."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from hubkit.localhub.api.request import ApiRequest, text
from hubkit.localhub.storage.store import Repo

__all__ = ["hardware", "kept_value", "runtime", "runtime_of", "secrets", "variables"]


def runtime_of(repo: Repo) -> dict[str, Any]:
    """A Space's runtime as the API answers it: a local Hub never runs a Space."""
    return {
        "stage": "STOPPED",
        "hardware": {"current": None, "requested": repo.settings.get("hardware")},
        "gcTimeout": repo.settings.get("sleepTime"),
        "storage": None,
    }


def kept_value(what: str, body: dict[str, Any]) -> dict[str, str]:
    kept = {"key": text(body, "key")}
    if body.get("description"):
        kept["description"] = str(body["description"])
    if what == "variables":  # secrets: nothing here would ever use the value
        kept["value"] = str(body.get("value") or "")
    return kept


def _values(request: ApiRequest, what: str) -> Response:
    """Answer with all values (GET), set one (POST) or delete one (DELETE)."""
    repo = request.own_repo()
    with request.store.change():
        held: dict[str, Any] = dict(request.store.repo("space", repo.name).settings.get(what, {}))
        if request.method == "POST":
            held[text(request.body, "key")] = kept_value(what, request.body)
        elif request.method == "DELETE":
            held.pop(text(request.body, "key"), None)
        if request.method != "GET":
            request.store.update_repo(repo, None, {what: held})
    return JSONResponse(held)


def variables(request: ApiRequest) -> Response:
    return _values(request, "variables")


def secrets(request: ApiRequest) -> Response:
    """Secrets of a Space: names and descriptions only, since the values are not stored."""
    return _values(request, "secrets")


def runtime(request: ApiRequest) -> Response:
    return JSONResponse(runtime_of(request.repo()))


def hardware(request: ApiRequest) -> Response:
    """Store the hardware that was requested."""
    repo = request.own_repo()
    wanted = {"hardware": text(request.body, "flavor")}
    if "sleepTimeSeconds" in request.body:
        wanted["sleepTime"] = request.body["sleepTimeSeconds"]
    request.store.update_repo(repo, None, wanted)
    return JSONResponse(runtime_of(request.store.repo("space", repo.name)))
