"""Collections: titled lists of repos. One JSON document each, in which a repo is its number in the database."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from hubkit.localhub.api.request import KINDS, ApiRequest, text
from hubkit.localhub.storage.accounts import is_org
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.store import Store, now

__all__ = ["add_item", "change_item", "create", "delete", "listed", "one", "shown", "update", "visible"]

_PAGE: Final = 100
_LONGEST_TITLE: Final = 60
_LONGEST_DESCRIPTION: Final = 150
_LONGEST_NOTE: Final = 500


# Storage


def _all(store: Store) -> list[dict[str, Any]]:
    return [json.loads(row["data"]) for row in store.rows("SELECT data FROM collections ORDER BY slug")]


def _load(store: Store, slug: str) -> dict[str, Any]:
    for row in store.rows("SELECT data FROM collections WHERE slug = ?", slug):
        data: dict[str, Any] = json.loads(row["data"])
        return data
    raise ApiError(404, f"no collection {slug}", "CollectionNotFound")


@contextlib.contextmanager
def _changing(store: Store, slug: str) -> Iterator[dict[str, Any]]:
    """Yields the stored collection; changes to it are saved when the block ends."""
    with store.change() as db:
        data = _load(store, slug)
        yield data
        data["lastUpdated"] = now()
        try:
            values = (data["title"], json.dumps(data), slug)
            db.execute("UPDATE collections SET title = ?, data = ? WHERE slug = ?", values)
        except sqlite3.IntegrityError:
            raise ApiError(409, f"a collection {data['title']!r} exists already") from None


# What is shown


def _slug(request: ApiRequest) -> str:
    return f"{request.path['owner']}/{request.path['name']}"


def _shown(request: ApiRequest, data: dict[str, Any]) -> dict[str, Any]:
    """A collection as the API answers it, without repos that are gone or that the caller may not read."""
    found: list[dict[str, Any]] = []
    for item in data["items"]:
        repo = request.store.repo_by_id(item["repo"])
        if repo is not None and request.who.may_read(repo):
            line = {"_id": item["_id"], "type": repo.kind, "id": repo.name, "position": len(found)}
            if "note" in item:
                line["note"] = {"text": item["note"]}
            found.append(line)
    owner = data["owner"]
    return {
        "slug": data["slug"],
        "title": data["title"],
        "description": data["description"],
        "private": data["private"],
        "theme": data["theme"],
        "position": data["position"],
        "lastUpdated": data["lastUpdated"],
        "owner": {"name": owner, "fullname": owner, "avatarUrl": "", "type": _kind(request, owner)},
        "upvotes": 0,
        "items": found,
    }


def _kind(request: ApiRequest, owner: str) -> str:
    return "org" if is_org(request.store, owner) else "user"


def _may_read(request: ApiRequest, data: dict[str, Any]) -> bool:
    namespace = data["owner"].lower()
    inside = namespace == request.who.user.lower() or namespace in request.who.orgs
    return (
        not data["private"]
        or (inside and request.who.role != "fineGrained")
        or request.who.may_write(namespace)
    )


def _found(request: ApiRequest) -> dict[str, Any]:
    data = _load(request.store, _slug(request))
    if not _may_read(request, data):
        raise ApiError(404, f"no collection {data['slug']}", "CollectionNotFound")
    return data


def one(request: ApiRequest) -> Response:
    return JSONResponse(shown(request))


def shown(request: ApiRequest) -> dict[str, Any]:
    return _shown(request, _found(request))


def visible(request: ApiRequest) -> list[dict[str, Any]]:
    """All collections that the caller may read, newest first."""
    found = [_shown(request, data) for data in _all(request.store) if _may_read(request, data)]
    return sorted(found, key=lambda data: str(data["lastUpdated"]), reverse=True)


def listed(request: ApiRequest) -> Response:
    request.check_query("owner", "item", "limit", "cursor", "sort", "q")
    owners, wanted = request.query.get("owner", []), set(request.query.get("item", []))
    search = request.query.get("q", [""])[0].lower()
    if request.query.get("sort", ["lastModified"])[0] not in ("lastModified", "trending", "upvotes"):
        raise ApiError(400, "sort is one of lastModified, trending, upvotes")
    found = []
    for data in visible(request):
        held = {f"{item['type']}s/{item['id']}" for item in data["items"]}
        if (
            search in data["title"].lower()
            and (not owners or data["owner"]["name"] in owners)
            and (not wanted or held & wanted)
        ):
            # Clients number the collections of a list themselves.
            found.append({key: value for key, value in data.items() if key != "position"})
    return request.paged(found, _PAGE)


# Changes


def _own(request: ApiRequest) -> str:
    """Returns the slug in the route. Raises ApiError if the caller may not change the collection."""
    data = _found(request)
    request.check_writes(data["owner"])
    return str(data["slug"])


def _texts(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of the body that a caller may set; those that are missing stay out."""
    kept: dict[str, Any] = {}
    if "title" in body:
        kept["title"] = text(body, "title")
        if len(kept["title"]) > _LONGEST_TITLE:
            raise ApiError(400, f"a title has at most {_LONGEST_TITLE} characters")
    if body.get("description") is not None:
        kept["description"] = str(body["description"])
        if len(kept["description"]) > _LONGEST_DESCRIPTION:
            raise ApiError(400, f"a description has at most {_LONGEST_DESCRIPTION} characters")
    if "private" in body:
        kept["private"] = bool(body["private"])
    if "theme" in body:
        kept["theme"] = text(body, "theme")
    if isinstance(body.get("position"), int):
        kept["position"] = body["position"]
    return kept


def create(request: ApiRequest) -> Response:
    request.check_user()
    owner = str(request.body.get("namespace") or request.who.user)
    request.check_writes(owner)
    title = text(request.body, "title")
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
    slug = f"{owner}/{words}-{int(time.time()):08x}{secrets.token_hex(8)}"
    data = {
        "slug": slug,
        "owner": owner,
        "description": "",
        "private": False,
        "theme": "indigo",
        "position": 0,
    }
    data |= {**_texts(request.body), "items": [], "counter": 0, "lastUpdated": now()}
    with request.store.change() as db:
        query = "SELECT slug FROM collections WHERE owner = ? AND title = ?"
        for row in request.store.rows(query, owner, title):
            raise ApiError(409, f"a collection {title!r} exists already", slug=row["slug"])
        db.execute("INSERT INTO collections VALUES (?, ?, ?, ?)", (slug, owner, title, json.dumps(data)))
    return JSONResponse(_shown(request, data))


def update(request: ApiRequest) -> Response:
    slug = _own(request)
    if unknown := request.body.keys() - {"title", "description", "private", "theme", "position"}:
        raise ApiError(501, f"not implemented: {', '.join(sorted(unknown))}")
    with _changing(request.store, slug) as data:
        data |= _texts(request.body)
    return JSONResponse({"data": _shown(request, _load(request.store, slug))})


def delete(request: ApiRequest) -> Response:
    slug = _own(request)
    with request.store.change() as db:
        db.execute("DELETE FROM collections WHERE slug = ?", (slug,))
    return JSONResponse({})


def add_item(request: ApiRequest) -> Response:
    slug = _own(request)
    kind, name = text(request.body.get("item"), "type"), text(request.body.get("item"), "id")
    if kind not in KINDS.values():
        raise ApiError(501, f"collection items of type {kind!r} are not implemented")
    repo = request.visible(kind, name)
    with _changing(request.store, slug) as data:
        if any(item["repo"] == repo.id for item in data["items"]):
            raise ApiError(409, f"{kind} {name} is in the collection already")
        data["counter"] += 1
        added = {"_id": f"{data['counter']:024x}", "repo": repo.id}
        if request.body.get("note"):
            added["note"] = str(request.body["note"])[:_LONGEST_NOTE]
        data["items"].append(added)
    return JSONResponse(_shown(request, _load(request.store, slug)))


def change_item(request: ApiRequest) -> Response:
    """Change the note or position of an item (PATCH), or remove it (DELETE)."""
    slug = _own(request)
    with _changing(request.store, slug) as data:
        held: list[dict[str, Any]] = data["items"]
        item = next((item for item in held if item["_id"] == request.path["item"]), None)
        if item is None:
            raise ApiError(404, "no such item in the collection", "EntryNotFound")
        if request.method == "DELETE":
            held.remove(item)
        if request.body.get("note") is not None:
            item["note"] = str(request.body["note"])[:_LONGEST_NOTE]
        if isinstance(request.body.get("position"), int):
            held.remove(item)
            held.insert(request.body["position"], item)
    return JSONResponse({})
