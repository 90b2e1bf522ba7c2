"""Repos: descriptions, lists, and creating, changing and deleting them."""

from __future__ import annotations

import functools
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from hubkit.localhub.api import results
from hubkit.localhub.api.request import KINDS, ApiRequest, Query, items, text
from hubkit.localhub.api.spaces import kept_value, runtime_of
from hubkit.localhub.storage import cards
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.objects import Entry, pointer
from hubkit.localhub.storage.store import Commit, Repo, Store, Tree

__all__ = ["card_of", "create", "delete", "duplicate", "info", "listed", "move", "settings", "validate_yaml"]

_LARGEST_CARD: Final = 1 << 20
_SORTS: Final = {
    "lastModified": "lastModified", "modified": "lastModified", "createdAt": "createdAt", "created": "createdAt",
    "downloads": "downloads", "likes": "likes", "trendingScore": "trendingScore",
}  # fmt: skip
_IN_FULL: Final = ("author", "disabled", "downloadsAllTime", "gated", "lastModified", "sha", "model-index")
"""Fields that lists of models, unlike those of datasets and Spaces, have only when asked for all."""
_UNKNOWN_HERE: Final = (
    "baseModels", "childrenModelCount", "citation", "config", "datasets", "description", "gguf", "inference",
    "inferenceProviderMapping", "mainSize", "mask_token", "models", "paperswithcode_id", "region",
    "resourceGroup", "safetensors", "spaces", "transformersInfo", "widgetData",
)  # fmt: skip
"""Fields of the real Hub that clients may ask for with expand, and that are left out of the answer."""


# Descriptions of repos


@functools.lru_cache(maxsize=1000)
def _parsed(store: Store, sha256: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    readme = store.objects.path(sha256).read_text("utf-8", "replace")
    card = cards.parse_card(readme)
    return card, tuple(cards.tags_of(card, readme))


def card_of(store: Store, tree: Tree) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields of the repo's card, and the tags that follow from them."""
    readme = tree.get("README.md")
    if readme is None or readme.size > _LARGEST_CARD:
        return {}, []
    card, tags = _parsed(store, readme.sha256)
    return card, list(tags)


def describe(request: ApiRequest, repo: Repo, commit: Commit) -> dict[str, Any]:
    """All fields of a repo but its files."""
    store = request.store
    tree = store.tree(commit)
    card, tags = card_of(store, tree)
    described: dict[str, Any] = {
        "_id": f"{repo.id:024x}",
        "id": repo.name,
        "author": repo.name.split("/")[0],
        "sha": commit.sha,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.settings.get("gated", False),
        "disabled": False,
        "downloads": 0,
        "downloadsAllTime": 0,
        "likes": 0,
        "trendingScore": 0,
        "tags": tags,
        "cardData": card or None,
    }
    if repo.kind == "model":
        described["modelId"] = repo.name
        for field in ("pipeline_tag", "library_name"):
            if isinstance(card.get(field), str):
                described[field] = card[field]
        if "model-index" in card:
            described["model-index"] = card["model-index"]
    if repo.kind == "dataset" and results.is_benchmark(store, tree):
        # The real Hub gives this tag to the benchmarks it knows; here every one counts.
        described["tags"] = [*tags, "benchmark:official"]
    if repo.kind == "space":
        described["sdk"] = card.get("sdk") or repo.settings.get("sdk")
        described["runtime"] = runtime_of(repo)
        described["host"] = described["subdomain"] = None
    return described


def lfs_fields(entry: Entry) -> dict[str, Any]:
    return {"size": entry.size, "pointerSize": len(pointer(entry.sha256, entry.size))}


def _sibling(path: str, entry: Entry, blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if blobs:
        sibling |= {"size": entry.size, "blobId": entry.oid}
        if entry.lfs:
            sibling["lfs"] = {"sha256": entry.sha256, **lfs_fields(entry)}
    return sibling


def used_storage(tree: Tree) -> int:
    """Bytes of the files, each content counted once."""
    return sum({entry.sha256: entry.size for entry in tree.values()}.values())


def info(request: ApiRequest) -> Response:
    request.check_query("blobs", "expand", "expand[]", "securityStatus")
    if request.flag("securityStatus"):
        raise ApiError(501, "security scans are not implemented")
    repo = request.repo()
    commit = request.store.resolve(repo, request.path.get("revision", "main"))
    tree = request.store.tree(commit)
    expand = _expanded(request.query)
    described = describe(request, repo, commit)
    if not expand or "siblings" in expand:
        blobs = request.flag("blobs")
        described["siblings"] = [_sibling(path, entry, blobs) for path, entry in sorted(tree.items())]
    described["usedStorage"] = used_storage(tree)
    if repo.kind == "model":
        described["evalResults"] = results.entries_of(request.store, tree)
    return JSONResponse(_kept(described, expand))


def _expanded(query: Query) -> list[str]:
    return [
        part for key in ("expand", "expand[]") for value in query.get(key, []) for part in value.split(",")
    ]


def _kept(described: dict[str, Any], expand: list[str]) -> dict[str, Any]:
    """Returns the fields that `expand` names; all if it names none."""
    if unknown := set(expand) - described.keys() - set(_UNKNOWN_HERE) - {
        "evalResults", "library_name", "model-index", "pipeline_tag", "siblings", "usedStorage",
    }:  # fmt: skip
        raise ApiError(400, f"no fields to expand: {', '.join(sorted(unknown))}")
    return {key: value for key, value in described.items() if not expand or key in ("_id", "id", *expand)}


# Lists


def listed(request: ApiRequest) -> Response:
    request.check_query(
        "author", "search", "filter", "limit", "sort", "direction", "full", "cardData", "config", "expand",
        "expand[]", "pipeline_tag", "gated", "cursor",
    )  # fmt: skip
    sort = _SORTS.get(request.query.get("sort", ["lastModified"])[0])
    if sort is None:
        raise ApiError(501, f"sorting by {request.query['sort'][0]} is not implemented")
    found = [
        item for repo in request.store.repos(request.kind) if (item := _wanted(request, repo)) is not None
    ]
    found.sort(key=lambda item: item[sort], reverse=request.query.get("direction", ["-1"])[0] == "-1")
    expand = _expanded(request.query)
    page, headers = request.page(found)
    for item in page:
        if request.flag("full") or "siblings" in expand:
            tree = request.store.tree(
                request.store.head(request.store.repo(request.kind, item["id"]), "refs/heads/main")
            )
            item["siblings"] = [_sibling(path, entry, False) for path, entry in sorted(tree.items())]
        if not (request.flag("full") or request.flag("cardData") or "cardData" in expand):
            del item["cardData"]
    if request.kind == "model" and not request.flag("full") and not expand:
        page = [{key: value for key, value in item.items() if key not in _IN_FULL} for item in page]
    return JSONResponse([_kept(item, expand) for item in page], headers=headers)


def _wanted(request: ApiRequest, repo: Repo) -> dict[str, Any] | None:
    """Returns a repo's description, or None if the filters of the list exclude it."""
    query = request.query
    name = repo.name.lower()
    author = query.get("author", [""])[0].lower()
    if not request.who.may_read(repo) or (author and author != name.split("/")[0]):
        return None
    if not all(word in name for value in query.get("search", []) for word in value.lower().split()):
        return None
    gated = request.flag("gated")
    if "gated" in query and gated != bool(repo.settings.get("gated", False)):
        return None
    described = describe(request, repo, request.store.head(repo, "refs/heads/main"))
    tags = [part for value in query.get("filter", []) for part in value.split(",")]
    tags += query.get("pipeline_tag", [])
    return described if set(tags) <= set(described["tags"]) else None


# Changes


def _named(request: ApiRequest) -> tuple[str, str]:
    owner = request.body.get("organization") or request.who.user
    return _kind(request.body), f"{owner}/{text(request.body, 'name')}"


def _kind(body: dict[str, Any]) -> str:
    kind = str(body.get("type") or "model")
    if kind not in KINDS.values():
        raise ApiError(501, f"repos of type {kind!r} are not implemented")
    return kind


def _private(body: dict[str, Any]) -> bool | None:
    visibility = body.get("visibility")
    if visibility is None:
        private = body.get("private")
        return bool(private) if private is not None else None
    if visibility not in ("public", "private"):
        raise ApiError(501, f"visibility {visibility!r} is not implemented")
    return bool(visibility == "private")


def _space_settings(body: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"hardware": body.get("hardware"), "sleepTime": body.get("sleepTimeSeconds")}
    for what in ("variables", "secrets"):
        kept[what] = {text(item, "key"): kept_value(what, item) for item in items(body, what)}
    return kept


def create(request: ApiRequest) -> Response:
    request.check_user()
    kind, name = _named(request)
    request.check_writes(name)
    kept: dict[str, Any] = {}
    if kind == "space":
        if request.body.get("sdk") not in ("gradio", "docker", "static", "streamlit"):
            raise ApiError(400, "a Space needs an sdk: gradio, docker or static")
        kept = {"sdk": request.body["sdk"], **_space_settings(request.body)}
    return _created(request, kind, name, bool(_private(request.body)), kept, {})


def _created(
    request: ApiRequest, kind: str, name: str, private: bool, kept: dict[str, Any], files: Tree
) -> Response:
    try:
        repo = request.store.create_repo(kind, name, private, request.who.user, kept, files)
    except ApiError as error:
        if error.status == 409:  # clients that said exist_ok read the address from this answer
            error.extra["url"] = request.url(request.store.repo(kind, name))
        raise
    return JSONResponse({"url": request.url(repo), "name": repo.name, "id": f"{repo.id:024x}"})


def delete(request: ApiRequest) -> Response:
    request.check_user()
    repo = request.visible(*_named(request))
    request.check_writes(repo.name)
    request.store.delete_repo(repo)
    return JSONResponse({})


def move(request: ApiRequest) -> Response:
    kind = _kind(request.body)
    request.check_user()
    repo = request.visible(kind, text(request.body, "fromRepo"))
    target = text(request.body, "toRepo")
    for name in (repo.name, target):
        request.check_writes(name)
    request.store.move_repo(repo, target)
    return JSONResponse({"url": request.url(request.store.repo(kind, target))})


def duplicate(request: ApiRequest) -> Response:
    """Make a new repo with the files of this one. Contents are shared, so nothing is copied."""
    source = request.repo()
    request.check_user()
    check_gate(request, source)
    name = text(request.body, "repository")
    request.check_writes(name)
    private = _private(request.body)
    kept = (
        {"sdk": source.settings.get("sdk"), **_space_settings(request.body)} if source.kind == "space" else {}
    )
    files = request.store.tree(request.store.head(source, "refs/heads/main"))
    return _created(request, source.kind, name, source.private if private is None else private, kept, files)


def settings(request: ApiRequest) -> Response:
    repo = request.own_repo()
    if unknown := request.body.keys() - {"private", "visibility", "gated"}:
        raise ApiError(501, f"settings not implemented: {', '.join(sorted(unknown))}")
    gated = request.body.get("gated", repo.settings.get("gated", False))
    if gated not in ("auto", "manual", False):
        raise ApiError(400, "gated is one of auto, manual, false")
    request.store.update_repo(repo, _private(request.body), {"gated": gated})
    changed = request.store.repo(repo.kind, repo.name)
    return JSONResponse({"private": changed.private, "gated": changed.settings["gated"]})


def check_gate(request: ApiRequest, repo: Repo) -> None:
    """Raise ApiError if the repo is gated and the caller is not of its namespace. Its description stays readable."""
    if repo.settings.get("gated", False) and not request.who.is_insider(repo):
        status = 403 if request.who.user else 401
        raise ApiError(status, f"access to {repo.kind} {repo.name} is restricted to its owners", "GatedRepo")


def auth_check(request: ApiRequest) -> Response:
    check_gate(request, request.repo())
    return JSONResponse({})


def auth_check_write(request: ApiRequest) -> Response:
    request.own_repo()
    return JSONResponse({})


def validate_yaml(request: ApiRequest) -> Response:
    errors, warnings = cards.validate(str(request.body.get("content") or ""))
    answer = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return JSONResponse(answer, 400 if errors else 200)
