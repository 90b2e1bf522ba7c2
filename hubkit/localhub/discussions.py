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

from hubkit.localhub.diffs import diff
from hubkit.localhub.markdown import render
from hubkit.localhub.problems import Problem
from hubkit.localhub.store import Change, Commit, Repo, Tree, differing, now
from hubkit.localhub.web import Call, text

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
        raise Problem(404, f"no {ref}", "RevisionNotFound")
    return int(number)


# Storage


def _load(call: Call, repo: Repo, number: int) -> dict[str, Any]:
    for row in call.store.rows("SELECT data FROM discussions WHERE repo = ? AND num = ?", repo.id, number):
        data: dict[str, Any] = json.loads(row["data"])
        return data
    raise Problem(404, f"no discussion {number} in {repo.name}", "DiscussionNotFound")


def _number(call: Call) -> int:
    return number_of("refs/pr/" + call.path["num"])


@contextlib.contextmanager
def _changing(call: Call, repo: Repo, number: int) -> Iterator[dict[str, Any]]:
    """Yields the document to edit in place."""
    with call.store.change() as db:
        data = _load(call, repo, number)
        yield data
        values = (json.dumps(data), repo.id, number)
        db.execute("UPDATE discussions SET data = ? WHERE repo = ? AND num = ?", values)


def _event(call: Call, what: str, data: dict[str, Any]) -> dict[str, Any]:
    who = {"name": call.who.user, "type": "user"}
    return {"id": secrets.token_hex(12), "type": what, "createdAt": now(), "author": who, "data": data}


def _comment(call: Call, content: str) -> dict[str, Any]:
    if len(content) > _LONGEST:
        raise Problem(413, f"a comment may have at most {_LONGEST} characters")
    latest = {"raw": content, "html": render(content), "updatedAt": now(), "author": {"name": call.who.user}}
    data = {"edited": False, "hidden": False, "latest": latest, "history": [], "numEdits": 0}
    return _event(call, "comment", data)


def _open(call: Call, repo: Repo, title: str, description: str, status: str, start: str | None) -> int:
    title = title.strip()
    if not 3 <= len(title) <= 200:
        raise Problem(400, "a title has 3 to 200 characters")
    with call.store.change() as db:
        (row,) = call.store.rows("SELECT max(num) AS last FROM discussions WHERE repo = ?", repo.id)
        number = (row["last"] or 0) + 1
        data = {
            "title": title,
            "status": status,
            "author": call.who.user,
            "createdAt": now(),
            "start": start,
            "events": [_comment(call, description)] if description else [],
        }
        db.execute("INSERT INTO discussions VALUES (?, ?, ?)", (repo.id, number, json.dumps(data)))
        if start is not None:
            call.store.create_ref(repo, f"refs/pr/{number}", start)
    return number


def open_pull_request(call: Call, repo: Repo, title: str, description: str, start: str, status: str) -> int:
    """Returns its number; its files are those of the commit `start`."""
    return _open(call, repo, title[:200].ljust(3, "."), description, status, start)


def note_commit(call: Call, repo: Repo, number: int, commit: Commit) -> None:
    with _changing(call, repo, number) as data:
        noted = {event["data"].get("oid") for event in data["events"]}
        if commit.sha not in noted and commit.sha != data["start"]:
            data["events"].append(_event(call, "commit", {"subject": commit.title, "oid": commit.sha}))


# Who may do what


def check_may_change(call: Call, repo: Repo, number: int) -> None:
    """The author and the repo's owners may push to a pull request, close it, rename it."""
    data = _load(call, repo, number)
    call.check_user()
    if call.who.user.lower() != data["author"].lower() and not call.who.may_write(repo.name):
        raise Problem(403, f"only its author and the owners of {repo.name} may change #{number}")
    if data["status"] == "merged":
        raise Problem(409, f"#{number} is merged")


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


def summaries(call: Call, repo: Repo) -> list[dict[str, Any]]:
    """Newest first."""
    rows = call.store.rows("SELECT num, data FROM discussions WHERE repo = ? ORDER BY num DESC", repo.id)
    return [_summary(repo, row["num"], json.loads(row["data"])) for row in rows]


def listed(call: Call) -> Response:
    call.check_query("p", "type", "status", "author")
    kind, status = call.query.get("type", ["all"])[0], call.query.get("status", ["all"])[0]
    author = call.query.get("author", [""])[0].lower()
    found = [
        item
        for item in summaries(call, call.repo())
        if (kind == "all" or item["isPullRequest"] == (kind == "pull_request"))
        and (status == "all" or (item["status"] in ("open", "draft")) == (status == "open"))
        and (not author or item["author"]["name"].lower() == author)
    ]
    start = call.number("p") * _PAGE
    return JSONResponse({"discussions": found[start : start + _PAGE], "count": len(found), "start": start})


def detail(call: Call) -> Response:
    return JSONResponse(shown(call, call.repo(), with_diff=call.flag("diff")))


def shown(call: Call, repo: Repo, with_diff: bool) -> dict[str, Any]:
    """The discussion of the route, whole."""
    number = _number(call)
    data = _load(call, repo, number)
    answer = _summary(repo, number, data) | {"events": data["events"], "filesWithConflicts": []}
    if data["start"] is not None:
        before, after, main = _trees(call, repo, number, data)
        answer["changes"] = {"base": _BASE}
        if "mergeCommit" in data:
            answer["changes"]["mergeCommitId"] = data["mergeCommit"]
        else:
            answer["filesWithConflicts"] = _conflicts(before, after, main)
        if with_diff:
            answer["diff"] = diff(call.store, before, after)
    return answer


def _trees(call: Call, repo: Repo, number: int, data: dict[str, Any]) -> tuple[Tree, Tree, Tree]:
    """Where a pull request started, what it made of it, and what is on main now."""
    store = call.store
    commits = (
        store.resolve(repo, data["start"]),
        store.head(repo, f"refs/pr/{number}"),
        store.head(repo, _BASE),
    )
    before, after, main = (store.tree(commit) for commit in commits)
    return before, after, main


def _conflicts(before: Tree, after: Tree, main: Tree) -> list[str]:
    """Files that changed on both sides, and not alike."""
    return [
        path
        for path in differing(before, after)
        if main.get(path) != before.get(path) and main.get(path) != after.get(path)
    ]


# Changes


def create(call: Call) -> Response:
    repo = call.contributed_repo()
    title, description = text(call.body, "title"), str(call.body.get("description") or "")
    if call.body.get("pullRequest"):
        start = call.store.head(repo, _BASE).sha
        number = _open(call, repo, title, description, "draft", start)
    else:
        number = _open(call, repo, title, description, "open", None)
    return JSONResponse({"num": number, "url": f"{call.url(repo)}/discussions/{number}"})


def comment(call: Call) -> Response:
    event = _comment(call, text(call.body, "comment"))
    with _changing(call, call.contributed_repo(), _number(call)) as data:
        data["events"].append(event)
    return JSONResponse({"newMessage": event})


def _edit(call: Call, change: dict[str, Any], hidden: bool) -> Response:
    repo = call.contributed_repo()
    with _changing(call, repo, _number(call)) as data:
        for event in data["events"]:
            if (event["type"], event["id"]) == ("comment", call.path["comment"]):
                if event["author"]["name"] != call.who.user and not (
                    hidden and call.who.may_write(repo.name)
                ):
                    raise Problem(403, "only its author may edit a comment")
                held = event["data"]
                if not hidden:
                    held["history"].append(held["latest"])
                held |= {"latest": change, "edited": True, "hidden": hidden, "numEdits": len(held["history"])}
                if hidden:
                    held["history"] = []
                return JSONResponse({"updatedComment": event})
    raise Problem(404, "no such comment")


def edit(call: Call) -> Response:
    return _edit(call, _comment(call, text(call.body, "content"))["data"]["latest"], hidden=False)


def hide(call: Call) -> Response:
    hidden = "This comment has been hidden"
    return _edit(call, _comment(call, hidden)["data"]["latest"], hidden=True)


def rename(call: Call) -> Response:
    repo, number = call.contributed_repo(), _number(call)
    check_may_change(call, repo, number)
    with _changing(call, repo, number) as data:
        event = _event(call, "title-change", {"from": data["title"], "to": text(call.body, "title")[:200]})
        data["title"] = event["data"]["to"]
        data["events"].append(event)
    return JSONResponse({"newTitle": event})


def set_status(call: Call) -> Response:
    repo, number, status = call.contributed_repo(), _number(call), text(call.body, "status")
    if status not in ("open", "closed"):
        raise Problem(400, "status is open or closed")
    check_may_change(call, repo, number)
    with _changing(call, repo, number) as data:
        if call.body.get("comment"):
            data["events"].append(_comment(call, text(call.body, "comment")))
        event = _event(call, "status-change", {"status": status})
        data["status"] = status
        data["events"].append(event)
    return JSONResponse({"newStatus": event})


def merge(call: Call) -> Response:
    """Bring a pull request's changes to main, in one commit."""
    repo, number = call.own_repo(), _number(call)
    check_may_change(call, repo, number)
    with _changing(call, repo, number) as data:
        if data["start"] is None or data["status"] == "closed":
            raise Problem(409, f"#{number} is not an open pull request")
        before, after, main = _trees(call, repo, number, data)
        if conflicts := _conflicts(before, after, main):
            raise Problem(409, f"#{number} has conflicts in {', '.join(conflicts[:10])}")
        changes = [
            Change(path, after.get(path))
            for path in differing(before, after)
            if main.get(path) != after.get(path)
        ]
        title = f"{data['title']} (#{number})"
        made = call.store.commit(repo, _BASE, changes, title, "", call.who.user)
        if call.body.get("comment"):
            data["events"].append(_comment(call, text(call.body, "comment")))
        data["events"].append(_event(call, "status-change", {"status": "merged"}))
        data |= {"status": "merged", "mergeCommit": made.sha}
    return JSONResponse({"mergeCommitId": made.sha})
