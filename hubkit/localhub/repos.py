"""Repos: what they are, lists of them, and creating, changing and deleting them."""

from __future__ import annotations

import functools
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from hubkit.localhub import cards, results
from hubkit.localhub.objects import Entry, pointer
from hubkit.localhub.problems import Problem
from hubkit.localhub.spaces import kept_value, runtime_of
from hubkit.localhub.store import Commit, Repo, Store, Tree
from hubkit.localhub.web import KINDS, Call, Query, items, text

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


# What a repo is


@functools.lru_cache(maxsize=1000)
def _parsed(store: Store, sha256: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    readme = store.objects.path(sha256).read_text("utf-8", "replace")
    card = cards.parse_card(readme)
    return card, tuple(cards.tags_of(card, readme))


def card_of(store: Store, tree: Tree) -> tuple[dict[str, Any], list[str]]:
    """The card's fields, and the tags they make."""
    readme = tree.get("README.md")
    if readme is None or readme.size > _LARGEST_CARD:
        return {}, []
    card, tags = _parsed(store, readme.sha256)
    return card, list(tags)


def describe(call: Call, repo: Repo, commit: Commit) -> dict[str, Any]:
    """All fields of a repo but its files."""
    store = call.store
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


def info(call: Call) -> Response:
    call.check_query("blobs", "expand", "expand[]", "securityStatus")
    if call.flag("securityStatus"):
        raise Problem(501, "security scans are not implemented")
    repo = call.repo()
    commit = call.store.resolve(repo, call.path.get("revision", "main"))
    tree = call.store.tree(commit)
    expand = _expanded(call.query)
    described = describe(call, repo, commit)
    if not expand or "siblings" in expand:
        blobs = call.flag("blobs")
        described["siblings"] = [_sibling(path, entry, blobs) for path, entry in sorted(tree.items())]
    described["usedStorage"] = used_storage(tree)
    if repo.kind == "model":
        described["evalResults"] = results.entries_of(call.store, tree)
    return JSONResponse(_kept(described, expand))


def _expanded(query: Query) -> list[str]:
    return [
        part for key in ("expand", "expand[]") for value in query.get(key, []) for part in value.split(",")
    ]


def _kept(described: dict[str, Any], expand: list[str]) -> dict[str, Any]:
    """The fields asked for; all when none are named."""
    if unknown := set(expand) - described.keys() - set(_UNKNOWN_HERE) - {
        "evalResults", "library_name", "model-index", "pipeline_tag", "siblings", "usedStorage",
    }:  # fmt: skip
        raise Problem(400, f"no fields to expand: {', '.join(sorted(unknown))}")
    return {key: value for key, value in described.items() if not expand or key in ("_id", "id", *expand)}


# Lists


def listed(call: Call) -> Response:
    call.check_query(
        "author", "search", "filter", "limit", "sort", "direction", "full", "cardData", "config", "expand",
        "expand[]", "pipeline_tag", "gated", "cursor",
    )  # fmt: skip
    sort = _SORTS.get(call.query.get("sort", ["lastModified"])[0])
    if sort is None:
        raise Problem(501, f"sorting by {call.query['sort'][0]} is not implemented")
    found = [item for repo in call.store.repos(call.kind) if (item := _wanted(call, repo)) is not None]
    found.sort(key=lambda item: item[sort], reverse=call.query.get("direction", ["-1"])[0] == "-1")
    expand = _expanded(call.query)
    page, headers = call.page(found)
    for item in page:
        if call.flag("full") or "siblings" in expand:
            tree = call.store.tree(call.store.head(call.store.repo(call.kind, item["id"]), "refs/heads/main"))
            item["siblings"] = [_sibling(path, entry, False) for path, entry in sorted(tree.items())]
        if not (call.flag("full") or call.flag("cardData") or "cardData" in expand):
            del item["cardData"]
    if call.kind == "model" and not call.flag("full") and not expand:
        page = [{key: value for key, value in item.items() if key not in _IN_FULL} for item in page]
    return JSONResponse([_kept(item, expand) for item in page], headers=headers)


def _wanted(call: Call, repo: Repo) -> dict[str, Any] | None:
    """A repo's description, if the filters of a list let it in."""
    query = call.query
    name = repo.name.lower()
    author = query.get("author", [""])[0].lower()
    if not call.who.may_read(repo) or (author and author != name.split("/")[0]):
        return None
    if not all(word in name for value in query.get("search", []) for word in value.lower().split()):
        return None
    gated = call.flag("gated")
    if "gated" in query and gated != bool(repo.settings.get("gated", False)):
        return None
    described = describe(call, repo, call.store.head(repo, "refs/heads/main"))
    tags = [part for value in query.get("filter", []) for part in value.split(",")]
    tags += query.get("pipeline_tag", [])
    return described if set(tags) <= set(described["tags"]) else None


# Changes


def _named(call: Call) -> tuple[str, str]:
    owner = call.body.get("organization") or call.who.user
    return _kind(call.body), f"{owner}/{text(call.body, 'name')}"


def _kind(body: dict[str, Any]) -> str:
    kind = str(body.get("type") or "model")
    if kind not in KINDS.values():
        raise Problem(501, f"repos of type {kind!r} are not implemented")
    return kind


def _private(body: dict[str, Any]) -> bool | None:
    visibility = body.get("visibility")
    if visibility is None:
        private = body.get("private")
        return bool(private) if private is not None else None
    if visibility not in ("public", "private"):
        raise Problem(501, f"visibility {visibility!r} is not implemented")
    return bool(visibility == "private")


def _space_settings(body: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"hardware": body.get("hardware"), "sleepTime": body.get("sleepTimeSeconds")}
    for what in ("variables", "secrets"):
        kept[what] = {text(item, "key"): kept_value(what, item) for item in items(body, what)}
    return kept


def create(call: Call) -> Response:
    call.check_user()
    kind, name = _named(call)
    call.check_writes(name)
    kept: dict[str, Any] = {}
    if kind == "space":
        if call.body.get("sdk") not in ("gradio", "docker", "static", "streamlit"):
            raise Problem(400, "a Space needs an sdk: gradio, docker or static")
        kept = {"sdk": call.body["sdk"], **_space_settings(call.body)}
    return _created(call, kind, name, bool(_private(call.body)), kept, {})


def _created(call: Call, kind: str, name: str, private: bool, kept: dict[str, Any], files: Tree) -> Response:
    try:
        repo = call.store.create_repo(kind, name, private, call.who.user, kept, files)
    except Problem as error:
        if error.status == 409:  # clients that said exist_ok read the address from this answer
            error.extra["url"] = call.url(call.store.repo(kind, name))
        raise
    return JSONResponse({"url": call.url(repo), "name": repo.name, "id": f"{repo.id:024x}"})


def delete(call: Call) -> Response:
    call.check_user()
    repo = call.visible(*_named(call))
    call.check_writes(repo.name)
    call.store.delete_repo(repo)
    return JSONResponse({})


def move(call: Call) -> Response:
    kind = _kind(call.body)
    call.check_user()
    repo = call.visible(kind, text(call.body, "fromRepo"))
    target = text(call.body, "toRepo")
    for name in (repo.name, target):
        call.check_writes(name)
    call.store.move_repo(repo, target)
    return JSONResponse({"url": call.url(call.store.repo(kind, target))})


def duplicate(call: Call) -> Response:
    """A new repo with the files of this one. Contents are shared, so nothing is copied."""
    source = call.repo()
    call.check_user()
    check_gate(call, source)
    name = text(call.body, "repository")
    call.check_writes(name)
    private = _private(call.body)
    kept = {"sdk": source.settings.get("sdk"), **_space_settings(call.body)} if source.kind == "space" else {}
    files = call.store.tree(call.store.head(source, "refs/heads/main"))
    return _created(call, source.kind, name, source.private if private is None else private, kept, files)


def settings(call: Call) -> Response:
    repo = call.own_repo()
    if unknown := call.body.keys() - {"private", "visibility", "gated"}:
        raise Problem(501, f"settings not implemented: {', '.join(sorted(unknown))}")
    gated = call.body.get("gated", repo.settings.get("gated", False))
    if gated not in ("auto", "manual", False):
        raise Problem(400, "gated is one of auto, manual, false")
    call.store.update_repo(repo, _private(call.body), {"gated": gated})
    changed = call.store.repo(repo.kind, repo.name)
    return JSONResponse({"private": changed.private, "gated": changed.settings["gated"]})


def check_gate(call: Call, repo: Repo) -> None:
    """A gated repo shows that it is there; its contents are for its owners."""
    if repo.settings.get("gated", False) and not call.who.is_insider(repo):
        status = 403 if call.who.user else 401
        raise Problem(status, f"access to {repo.kind} {repo.name} is restricted to its owners", "GatedRepo")


def auth_check(call: Call) -> Response:
    check_gate(call, call.repo())
    return JSONResponse({})


def auth_check_write(call: Call) -> Response:
    call.own_repo()
    return JSONResponse({})


def validate_yaml(call: Call) -> Response:
    errors, warnings = cards.validate(str(call.body.get("content") or ""))
    answer = {
        "errors": [{"message": message} for message in errors],
        "warnings": [{"message": message} for message in warnings],
    }
    return JSONResponse(answer, 400 if errors else 200)
