"""What a Space has besides files: variables, secrets, and a runtime, which here never runs."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from hubkit.localhub.store import Repo
from hubkit.localhub.web import Call, text

__all__ = ["hardware", "kept_value", "runtime", "runtime_of", "secrets", "variables"]


def runtime_of(repo: Repo) -> dict[str, Any]:
    """A local Hub runs no Spaces, and says so."""
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


def _values(call: Call, what: str) -> Response:
    """GET all, POST one, DELETE one."""
    repo = call.own_repo()
    with call.store.change():
        held: dict[str, Any] = dict(call.store.repo("space", repo.name).settings.get(what, {}))
        if call.method == "POST":
            held[text(call.body, "key")] = kept_value(what, call.body)
        elif call.method == "DELETE":
            held.pop(text(call.body, "key"), None)
        if call.method != "GET":
            call.store.update_repo(repo, None, {what: held})
    return JSONResponse(held)


def variables(call: Call) -> Response:
    return _values(call, "variables")


def secrets(call: Call) -> Response:
    """By name and description only: the values are not kept."""
    return _values(call, "secrets")


def runtime(call: Call) -> Response:
    return JSONResponse(runtime_of(call.repo()))


def hardware(call: Call) -> Response:
    """Remember what was asked for."""
    repo = call.own_repo()
    wanted = {"hardware": text(call.body, "flavor")}
    if "sleepTimeSeconds" in call.body:
        wanted["sleepTime"] = call.body["sleepTimeSeconds"]
    call.store.update_repo(repo, None, wanted)
    return JSONResponse(runtime_of(call.store.repo("space", repo.name)))
