"""Pages with lists of repos and collections."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from hubkit.localhub.api import collections, repos
from hubkit.localhub.api.request import KINDS, ApiRequest
from hubkit.localhub.pages.html import html_page, repo_link
from hubkit.localhub.storage.errors import ApiError

__all__ = ["collection", "collection_list", "index", "kind_list", "namespace"]

_FIRST: Final = 12
"""Repos of each kind on the first page."""
_PAGE: Final = 60


def _group(request: ApiRequest, kinds: str, first: int, count: int, author: str = "") -> dict[str, Any]:
    kind, search = KINDS[kinds], request.query.get("search", [""])[0]
    found = [
        repo
        for repo in request.store.repos(kind)
        if request.who.may_read(repo)
        and search.lower() in repo.name.lower()
        and (not author or repo.name.lower().startswith(author.lower() + "/"))
    ]
    heads = [(repo, request.store.head(repo, "refs/heads/main")) for repo in found]
    heads.sort(key=lambda pair: pair[1].date, reverse=True)
    described = [
        repos.describe(request, repo, head) | {"link": repo_link(kind, repo.name)}
        for repo, head in heads[first : first + count]
    ]
    more = first + count < len(found)
    query = urlencode({"search": search, "cursor": first + count} if search else {"cursor": first + count})
    return {
        "title": kinds.capitalize(),
        "count": len(found),
        "repos": described,
        "next": f"/{kinds}?{query}" if more and not author else "",
    }


def index(request: ApiRequest) -> Response:
    groups = [_group(request, kinds, 0, _FIRST) for kinds in KINDS]
    return html_page(request, "index.html", "", groups=groups)


def kind_list(request: ApiRequest) -> Response:
    kinds = request.path["kinds"]
    if kinds not in KINDS:
        return namespace(request)
    groups = [_group(request, kinds, request.number("cursor"), _PAGE)]
    return html_page(request, "index.html", kinds, groups=groups, search=request.query.get("search", [""])[0])


def namespace(request: ApiRequest) -> Response:
    """All repos of a user or an organisation."""
    name = request.path["kinds"]
    groups = [_group(request, kinds, 0, 1000, name) for kinds in KINDS]
    if not any(group["repos"] for group in groups):
        raise ApiError(404, f"nothing of {name} to see here")
    return html_page(request, "index.html", "", groups=groups)


def collection_list(request: ApiRequest) -> Response:
    return html_page(request, "collections.html", "collections", collections=collections.visible(request))


def collection(request: ApiRequest) -> Response:
    return html_page(request, "collections.html", "collections", collections=[collections.shown(request)])
