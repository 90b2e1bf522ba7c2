"""Discussions and pull requests. A pull request's files are the ref refs/pr/N.

One JSON document each: title, status (draft, open, closed, merged), author, events; of a pull request also the
commit it started from, against which its changes and its conflicts are found.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from hubkit.localhub.api.markdown import render
from hubkit.localhub.api.request import ApiRequest, text
from hubkit.localhub.storage.diffs import diff
from hubkit.localhub.storage.errors import ApiError
from hubkit.localhub.storage.store import Change, Commit, Repo, Tree, differing, now

__all__ = [
    "check_may_change", "comment", "create", "detail", "edit", "hide", "listed", "merge", "note_commit",
    "number_of", "open_pull_request", "rename", "set_status", "shown", "summaries",
]  # fmt: skip

_PAGE: Final = 50
_LONGEST: Final = 65_536
_BASE: Final = "refs/heads/main"


def number_of(ref: str) -> int:
    number = ref.removeprefix("refs/pr/")
    if not number.isdecimal() or len(number) > 9:
        raise ApiError(404, f"no {ref}", "RevisionNotFound")
    return int(number)


# Storage


def _load(request: ApiRequest, repo: Repo, number: int) -> dict[str, Any]:
    for row in request.store.rows("SELECT data FROM discussions WHERE repo = ? AND num = ?", repo.id, number):
        data: dict[str, Any] = json.loads(row["data"])
        return data
    raise ApiError(404, f"no discussion {number} in {repo.name}", "DiscussionNotFound")


def _number(request: ApiRequest) -> int:
    return number_of("refs/pr/" + request.path["num"])


@contextlib.contextmanager
def _changing(request: ApiRequest, repo: Repo, number: int) -> Iterator[dict[str, Any]]:
    """Yields the stored discussion; changes to it are saved when the block ends."""
    with request.store.change() as db:
        data = _load(request, repo, number)
        yield data
        values = (json.dumps(data), repo.id, number)
        db.execute("UPDATE discussions SET data = ? WHERE repo = ? AND num = ?", values)


def _event(request: ApiRequest, what: str, data: dict[str, Any]) -> dict[str, Any]:
    who = {"name": request.who.user, "type": "user"}
    return {"id": secrets.token_hex(12), "type": what, "createdAt": now(), "author": who, "data": data}


def _comment(request: ApiRequest, content: str) -> dict[str, Any]:
    if len(content) > _LONGEST:
        raise ApiError(413, f"a comment may have at most {_LONGEST} characters")
    latest = {
        "raw": content,
        "html": render(content),
        "updatedAt": now(),
        "author": {"name": request.who.user},
    }
    data = {"edited": False, "hidden": False, "latest": latest, "history": [], "numEdits": 0}
    return _event(request, "comment", data)


def _open(
    request: ApiRequest, repo: Repo, title: str, description: str, status: str, start: str | None
) -> int:
    title = title.strip()
    if not 3 <= len(title) <= 200:
        raise ApiError(400, "a title has 3 to 200 characters")
    with request.store.change() as db:
        (row,) = request.store.rows("SELECT max(num) AS last FROM discussions WHERE repo = ?", repo.id)
        number = (row["last"] or 0) + 1
        data = {
            "title": title,
            "status": status,
            "author": request.who.user,
            "createdAt": now(),
            "start": start,
            "events": [_comment(request, description)] if description else [],
        }
        db.execute("INSERT INTO discussions VALUES (?, ?, ?)", (repo.id, number, json.dumps(data)))
        if start is not None:
            request.store.create_ref(repo, f"refs/pr/{number}", start)
    return number


def open_pull_request(
    request: ApiRequest, repo: Repo, title: str, description: str, start: str, status: str
) -> int:
    """Open a pull request with the files of the commit `start`. Returns its number."""
    return _open(request, repo, title[:200].ljust(3, "."), description, status, start)


def note_commit(request: ApiRequest, repo: Repo, number: int, commit: Commit) -> None:
    with _changing(request, repo, number) as data:
        noted = {event["data"].get("oid") for event in data["events"]}
        if commit.sha not in noted and commit.sha != data["start"]:
            data["events"].append(_event(request, "commit", {"subject": commit.title, "oid": commit.sha}))


# Who may do what


def check_may_change(request: ApiRequest, repo: Repo, number: int) -> None:
    """Raise ApiError unless the caller is the pull request's author or owns the repo, and it is not merged."""
    data = _load(request, repo, number)
    request.check_user()
    if request.who.user.lower() != data["author"].lower() and not request.who.may_write(repo.name):
        raise ApiError(403, f"only its author and the owners of {repo.name} may change #{number}")
    if data["status"] == "merged":
        raise ApiError(409, f"#{number} is merged")


# What is shown


def _summary(repo: Repo, number: int, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "num": number,
        "title": data["title"],
        "status": data["status"],
        "author": {"name": data["author"], "type": "user"},
        "createdAt": data["createdAt"],
        "isPullRequest": data["start"] is not None,
        "repo": {"name": repo.name, "type": repo.kind},
        "numComments": sum(event["type"] == "comment" for event in data["events"]),
    }


def summaries(request: ApiRequest, repo: Repo) -> list[dict[str, Any]]:
    """Newest first."""
    rows = request.store.rows("SELECT num, data FROM discussions WHERE repo = ? ORDER BY num DESC", repo.id)
    return [_summary(repo, row["num"], json.loads(row["data"])) for row in rows]


def listed(request: ApiRequest) -> Response:
    request.check_query("p", "type", "status", "author")
    kind, status = request.query.get("type", ["all"])[0], request.query.get("status", ["all"])[0]
    author = request.query.get("author", [""])[0].lower()
    found = [
        item
        for item in summaries(request, request.repo())
        if (kind == "all" or item["isPullRequest"] == (kind == "pull_request"))
        and (status == "all" or (item["status"] in ("open", "draft")) == (status == "open"))
        and (not author or item["author"]["name"].lower() == author)
    ]
    start = request.number("p") * _PAGE
    return JSONResponse({"discussions": found[start : start + _PAGE], "count": len(found), "start": start})


def detail(request: ApiRequest) -> Response:
    repo = request.repo()
    # A diff has the contents of files, which a gate keeps from those outside.
    inside = not repo.settings.get("gated", False) or request.who.is_insider(repo)
    return JSONResponse(shown(request, repo, with_diff=request.flag("diff") and inside))


def shown(request: ApiRequest, repo: Repo, with_diff: bool) -> dict[str, Any]:
    """Returns the discussion that the route names, with all its events."""
    number = _number(request)
    data = _load(request, repo, number)
    answer = _summary(repo, number, data) | {"events": data["events"], "filesWithConflicts": []}
    if data["start"] is not None:
        before, after, main = _trees(request, repo, number, data)
        answer["changes"] = {"base": _BASE}
        if "mergeCommit" in data:
            answer["changes"]["mergeCommitId"] = data["mergeCommit"]
        else:
            answer["filesWithConflicts"] = _conflicts(before, after, main)
        if with_diff:
            answer["diff"] = diff(request.store, before, after)
    return answer


def _trees(request: ApiRequest, repo: Repo, number: int, data: dict[str, Any]) -> tuple[Tree, Tree, Tree]:
    """Returns three trees: where the pull request started, what it has now, and what main has now."""
    store = request.store
    commits = (
        store.resolve(repo, data["start"]),
        store.head(repo, f"refs/pr/{number}"),
        store.head(repo, _BASE),
    )
    before, after, main = (store.tree(commit) for commit in commits)
    return before, after, main


def _conflicts(before: Tree, after: Tree, main: Tree) -> list[str]:
    """Returns the paths that both sides changed, each in its own way."""
    return [
        path
        for path in differing(before, after)
        if main.get(path) != before.get(path) and main.get(path) != after.get(path)
    ]


# Changes


def create(request: ApiRequest) -> Response:
    repo = request.contributed_repo()
    title, description = text(request.body, "title"), str(request.body.get("description") or "")
    if request.body.get("pullRequest"):
        start = request.store.head(repo, _BASE).sha
        number = _open(request, repo, title, description, "draft", start)
    else:
        number = _open(request, repo, title, description, "open", None)
    return JSONResponse({"num": number, "url": f"{request.url(repo)}/discussions/{number}"})


def comment(request: ApiRequest) -> Response:
    event = _comment(request, text(request.body, "comment"))
    with _changing(request, request.contributed_repo(), _number(request)) as data:
        data["events"].append(event)
    return JSONResponse({"newMessage": event})


def _edit(request: ApiRequest, change: dict[str, Any], hidden: bool) -> Response:
    repo = request.contributed_repo()
    with _changing(request, repo, _number(request)) as data:
        for event in data["events"]:
            if (event["type"], event["id"]) == ("comment", request.path["comment"]):
                if event["author"]["name"] != request.who.user and not (
                    hidden and request.who.may_write(repo.name)
                ):
                    raise ApiError(403, "only its author may edit a comment")
                held = event["data"]
                if not hidden:
                    held["history"].append(held["latest"])
                held |= {"latest": change, "edited": True, "hidden": hidden, "numEdits": len(held["history"])}
                if hidden:
                    held["history"] = []
                return JSONResponse({"updatedComment": event})
    raise ApiError(404, "no such comment")


def edit(request: ApiRequest) -> Response:
    return _edit(request, _comment(request, text(request.body, "content"))["data"]["latest"], hidden=False)


def hide(request: ApiRequest) -> Response:
    hidden = "This comment has been hidden"
    return _edit(request, _comment(request, hidden)["data"]["latest"], hidden=True)


def rename(request: ApiRequest) -> Response:
    repo, number = request.contributed_repo(), _number(request)
    check_may_change(request, repo, number)
    with _changing(request, repo, number) as data:
        event = _event(
            request, "title-change", {"from": data["title"], "to": text(request.body, "title")[:200]}
        )
        data["title"] = event["data"]["to"]
        data["events"].append(event)
    return JSONResponse({"newTitle": event})


def set_status(request: ApiRequest) -> Response:
    repo, number, status = request.contributed_repo(), _number(request), text(request.body, "status")
    if status not in ("open", "closed"):
        raise ApiError(400, "status is open or closed")
    check_may_change(request, repo, number)
    with _changing(request, repo, number) as data:
        if request.body.get("comment"):
            data["events"].append(_comment(request, text(request.body, "comment")))
        event = _event(request, "status-change", {"status": status})
        data["status"] = status
        data["events"].append(event)
    return JSONResponse({"newStatus": event})


def merge(request: ApiRequest) -> Response:
    """Apply a pull request's changes to main, in one commit."""
    repo, number = request.own_repo(), _number(request)
    check_may_change(request, repo, number)
    with _changing(request, repo, number) as data:
        if data["start"] is None or data["status"] == "closed":
            raise ApiError(409, f"#{number} is not an open pull request")
        before, after, main = _trees(request, repo, number, data)
        if conflicts := _conflicts(before, after, main):
            raise ApiError(409, f"#{number} has conflicts in {', '.join(conflicts[:10])}")
        changes = [
            Change(path, after.get(path))
            for path in differing(before, after)
            if main.get(path) != after.get(path)
        ]
        title = f"{data['title']} (#{number})"
        made = request.store.commit(repo, _BASE, changes, title, "", request.who.user)
        if request.body.get("comment"):
            data["events"].append(_comment(request, text(request.body, "comment")))
        data["events"].append(_event(request, "status-change", {"status": "merged"}))
        data |= {"status": "merged", "mergeCommit": made.sha}
    return JSONResponse({"mergeCommitId": made.sha})
