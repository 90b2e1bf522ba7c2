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

from hubkit.localhub.accounts import is_org
from hubkit.localhub.problems import Problem
from hubkit.localhub.store import Store, now
from hubkit.localhub.web import KINDS, Call, text

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
    raise Problem(404, f"no collection {slug}", "CollectionNotFound")


@contextlib.contextmanager
def _changing(store: Store, slug: str) -> Iterator[dict[str, Any]]:
    """Yields the document to edit in place."""
    with store.change() as db:
        data = _load(store, slug)
        yield data
        data["lastUpdated"] = now()
        try:
            values = (data["title"], json.dumps(data), slug)
            db.execute("UPDATE collections SET title = ?, data = ? WHERE slug = ?", values)
        except sqlite3.IntegrityError:
            raise Problem(409, f"a collection {data['title']!r} exists already") from None


# What is shown


def _slug(call: Call) -> str:
    return f"{call.path['owner']}/{call.path['name']}"


def _shown(call: Call, data: dict[str, Any]) -> dict[str, Any]:
    """A collection without the repos that are gone, or that the caller may not know of."""
    found: list[dict[str, Any]] = []
    for item in data["items"]:
        repo = call.store.repo_by_id(item["repo"])
        if repo is not None and call.who.may_read(repo):
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
        "owner": {"name": owner, "fullname": owner, "avatarUrl": "", "type": _kind(call, owner)},
        "upvotes": 0,
        "items": found,
    }


def _kind(call: Call, owner: str) -> str:
    return "org" if is_org(call.store, owner) else "user"


def _may_read(call: Call, data: dict[str, Any]) -> bool:
    namespace = data["owner"].lower()
    inside = namespace == call.who.user.lower() or namespace in call.who.orgs
    return not data["private"] or (inside and call.who.role != "fineGrained") or call.who.may_write(namespace)


def _found(call: Call) -> dict[str, Any]:
    data = _load(call.store, _slug(call))
    if not _may_read(call, data):
        raise Problem(404, f"no collection {data['slug']}", "CollectionNotFound")
    return data


def one(call: Call) -> Response:
    return JSONResponse(shown(call))


def shown(call: Call) -> dict[str, Any]:
    return _shown(call, _found(call))


def visible(call: Call) -> list[dict[str, Any]]:
    """All that the caller may see, newest first."""
    found = [_shown(call, data) for data in _all(call.store) if _may_read(call, data)]
    return sorted(found, key=lambda data: str(data["lastUpdated"]), reverse=True)


def listed(call: Call) -> Response:
    call.check_query("owner", "item", "limit", "cursor", "sort", "q")
    owners, wanted = call.query.get("owner", []), set(call.query.get("item", []))
    search = call.query.get("q", [""])[0].lower()
    if call.query.get("sort", ["lastModified"])[0] not in ("lastModified", "trending", "upvotes"):
        raise Problem(400, "sort is one of lastModified, trending, upvotes")
    found = []
    for data in visible(call):
        held = {f"{item['type']}s/{item['id']}" for item in data["items"]}
        if (
            search in data["title"].lower()
            and (not owners or data["owner"]["name"] in owners)
            and (not wanted or held & wanted)
        ):
            # Clients number the collections of a list themselves.
            found.append({key: value for key, value in data.items() if key != "position"})
    return call.paged(found, _PAGE)


# Changes


def _own(call: Call) -> str:
    """The slug of the route, for a change."""
    data = _found(call)
    call.check_writes(data["owner"])
    return str(data["slug"])


def _texts(body: dict[str, Any]) -> dict[str, Any]:
    """The fields a caller may set, as far as they are there."""
    kept: dict[str, Any] = {}
    if "title" in body:
        kept["title"] = text(body, "title")
        if len(kept["title"]) > _LONGEST_TITLE:
            raise Problem(400, f"a title has at most {_LONGEST_TITLE} characters")
    if body.get("description") is not None:
        kept["description"] = str(body["description"])
        if len(kept["description"]) > _LONGEST_DESCRIPTION:
            raise Problem(400, f"a description has at most {_LONGEST_DESCRIPTION} characters")
    if "private" in body:
        kept["private"] = bool(body["private"])
    if "theme" in body:
        kept["theme"] = text(body, "theme")
    if isinstance(body.get("position"), int):
        kept["position"] = body["position"]
    return kept


def create(call: Call) -> Response:
    call.check_user()
    owner = str(call.body.get("namespace") or call.who.user)
    call.check_writes(owner)
    title = text(call.body, "title")
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
    data |= {**_texts(call.body), "items": [], "counter": 0, "lastUpdated": now()}
    with call.store.change() as db:
        query = "SELECT slug FROM collections WHERE owner = ? AND title = ?"
        for row in call.store.rows(query, owner, title):
            raise Problem(409, f"a collection {title!r} exists already", slug=row["slug"])
        db.execute("INSERT INTO collections VALUES (?, ?, ?, ?)", (slug, owner, title, json.dumps(data)))
    return JSONResponse(_shown(call, data))


def update(call: Call) -> Response:
    slug = _own(call)
    if unknown := call.body.keys() - {"title", "description", "private", "theme", "position"}:
        raise Problem(501, f"not implemented: {', '.join(sorted(unknown))}")
    with _changing(call.store, slug) as data:
        data |= _texts(call.body)
    return JSONResponse({"data": _shown(call, _load(call.store, slug))})


def delete(call: Call) -> Response:
    slug = _own(call)
    with call.store.change() as db:
        db.execute("DELETE FROM collections WHERE slug = ?", (slug,))
    return JSONResponse({})


def add_item(call: Call) -> Response:
    slug = _own(call)
    kind, name = text(call.body.get("item"), "type"), text(call.body.get("item"), "id")
    if kind not in KINDS.values():
        raise Problem(501, f"collection items of type {kind!r} are not implemented")
    repo = call.visible(kind, name)
    with _changing(call.store, slug) as data:
        if any(item["repo"] == repo.id for item in data["items"]):
            raise Problem(409, f"{kind} {name} is in the collection already")
        data["counter"] += 1
        added = {"_id": f"{data['counter']:024x}", "repo": repo.id}
        if call.body.get("note"):
            added["note"] = str(call.body["note"])[:_LONGEST_NOTE]
        data["items"].append(added)
    return JSONResponse(_shown(call, _load(call.store, slug)))


def change_item(call: Call) -> Response:
    """PATCH its note or position, or DELETE it."""
    slug = _own(call)
    with _changing(call.store, slug) as data:
        held: list[dict[str, Any]] = data["items"]
        item = next((item for item in held if item["_id"] == call.path["item"]), None)
        if item is None:
            raise Problem(404, "no such item in the collection", "EntryNotFound")
        if call.method == "DELETE":
            held.remove(item)
        if call.body.get("note") is not None:
            item["note"] = str(call.body["note"])[:_LONGEST_NOTE]
        if isinstance(call.body.get("position"), int):
            held.remove(item)
            held.insert(call.body["position"], item)
    return JSONResponse({})
