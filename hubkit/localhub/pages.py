"""The pages to look at: plain HTML, rendered here, without scripts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from hubkit.localhub import cards, collections, discussions, repos, results
from hubkit.localhub.diffs import diff
from hubkit.localhub.files import inside, is_text
from hubkit.localhub.markdown import render
from hubkit.localhub.problems import Problem
from hubkit.localhub.rows import ENDINGS, first_rows
from hubkit.localhub.store import Commit, Repo, Tree
from hubkit.localhub.web import KINDS, Call

__all__ = [
    "blob", "card", "collection", "collection_list", "commit", "commits", "discussion", "discussion_list", "files",
    "index", "kind_list", "leaderboard", "login", "namespace", "problem_page", "style", "viewer",
]  # fmt: skip

_TEMPLATES: Final = Path(__file__).with_name("templates")
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_FIRST: Final = 12
_PAGE: Final = 60
_LARGEST_TEXT: Final = 1 << 19
_MOST_SOURCES: Final = 30


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def _page(call: Call, template: str, shown: str, **values: Any) -> Response:
    values |= {"user": call.who.user, "shown": shown}
    text = _environment().get_template(template).render({"search": ""} | values)
    return HTMLResponse(text, headers=_HEADERS)


def style(_: Call) -> Response:
    text = (_TEMPLATES / "style.css").read_text("utf-8")
    return PlainTextResponse(text, headers=_HEADERS, media_type="text/css")


def login(call: Call) -> Response:
    """Ask the browser for a token (as the password); it then sends it with every page."""
    if not call.who.user:
        headers = {"WWW-Authenticate": 'Basic realm="the password is a token of this Hub", charset="UTF-8"'}
        return PlainTextResponse("a token is needed\n", 401, headers)
    return RedirectResponse("/", 303)


def problem_page(error: Problem) -> Response:
    template = _environment().get_template("problem.html")
    values = {"status": error.status, "message": error.message, "user": "", "shown": "", "search": ""}
    return HTMLResponse(template.render(values), error.status, _HEADERS)


def _size(number: int) -> str:
    if number < 1000:
        return f"{number} B"
    value = float(number)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 1000 or unit == "TB":
            break
    return f"{value:.1f} {unit}"


# Lists


def _link(kind: str, name: str) -> str:
    return f"/{name}" if kind == "model" else f"/{kind}s/{name}"


def _group(call: Call, kinds: str, first: int, count: int, author: str = "") -> dict[str, Any]:
    kind, search = KINDS[kinds], call.query.get("search", [""])[0]
    found = [
        repo
        for repo in call.store.repos(kind)
        if call.who.may_read(repo)
        and search.lower() in repo.name.lower()
        and (not author or repo.name.lower().startswith(author.lower() + "/"))
    ]
    heads = [(repo, call.store.head(repo, "refs/heads/main")) for repo in found]
    heads.sort(key=lambda pair: pair[1].date, reverse=True)
    described = [
        repos.describe(call, repo, head) | {"link": _link(kind, repo.name)}
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


def index(call: Call) -> Response:
    groups = [_group(call, kinds, 0, _FIRST) for kinds in KINDS]
    return _page(call, "index.html", "", groups=groups)


def kind_list(call: Call) -> Response:
    kinds = call.path["kinds"]
    if kinds not in KINDS:
        return namespace(call)
    groups = [_group(call, kinds, call.number("cursor"), _PAGE)]
    return _page(call, "index.html", kinds, groups=groups, search=call.query.get("search", [""])[0])


def namespace(call: Call) -> Response:
    """All repos of a user or an organisation."""
    name = call.path["kinds"]
    groups = [_group(call, kinds, 0, 1000, name) for kinds in KINDS]
    if not any(group["repos"] for group in groups):
        raise Problem(404, f"nothing of {name} to see here")
    return _page(call, "index.html", "", groups=groups)


def collection_list(call: Call) -> Response:
    return _page(call, "collections.html", "collections", collections=collections.visible(call))


def collection(call: Call) -> Response:
    return _page(call, "collections.html", "collections", collections=[collections.shown(call)])


# One repo


class _RepoPage:
    """The repo of a page, at a revision, with what all its tabs show."""

    def __init__(self, call: Call, tab: str) -> None:
        self.call = call
        self.repo: Repo = call.repo()
        self.revision = call.path.get("revision", "main")
        self.commit: Commit = call.store.resolve(self.repo, self.revision)
        self.tree: Tree = call.store.tree(self.commit)
        self.link = _link(self.repo.kind, self.repo.name)
        self._tab = tab

    def check_gate(self) -> None:
        repos.check_gate(self.call, self.repo)

    def show(self, template: str, **values: Any) -> Response:
        at = quote(self.revision, safe="")
        tabs = [
            ("Card", self.link),
            ("Files", f"{self.link}/tree/{at}"),
            ("History", f"{self.link}/commits/{at}"),
        ]
        if self.repo.kind == "dataset":
            tabs.insert(1, ("Rows", f"{self.link}/viewer"))
            if results.is_benchmark(self.call.store, self.tree):
                tabs.append(("Leaderboard", f"{self.link}/leaderboard"))
        tabs.append(("Community", f"{self.link}/discussions"))
        shown = {
            "name": self.repo.name,
            "kind": self.repo.kind,
            "private": self.repo.private,
            "gated": self.repo.settings.get("gated", False),
            "link": self.link,
        }
        tags = repos.card_of(self.call.store, self.tree)[1]
        values |= {"repo": shown, "tags": tags, "tabs": tabs, "tab": self._tab, "revision": self.revision}
        return _page(self.call, template, f"{self.repo.kind}s", **values)

    def path(self, path: str) -> list[tuple[str, str]]:
        """The folders that lead to a path, each with its link."""
        at = f"{self.link}/tree/{quote(self.revision, safe='')}"
        parts = path.split("/") if path else []
        links = [(part, f"{at}/{quote('/'.join(parts[: i + 1]))}") for i, part in enumerate(parts)]
        return [(self.repo.name.split("/")[1], at), *links]


def card(call: Call) -> Response:
    page = _RepoPage(call, "Card")
    readme = page.tree.get("README.md")
    html = ""
    if readme is not None and readme.size <= _LARGEST_TEXT:
        text = call.store.objects.read(readme).decode("utf-8", "replace")
        html = Markup(render(cards.front_matter(text)[1], page.link))  # noqa: S704 (see markdown.py)
    found = results.entries_of(call.store, page.tree) if page.repo.kind == "model" else []
    return page.show(
        "card.html",
        card=html,
        commit=page.commit,
        files=len(page.tree),
        size=_size(repos.used_storage(page.tree)),
        results=[{"error": "", **item} for item in found],
    )


def files(call: Call) -> Response:
    page = _RepoPage(call, "Files")
    folder = call.path.get("path", "").strip("/")
    if folder in page.tree:
        return blob(call)
    names = inside(page.tree, folder, recursive=False)
    if not names:
        raise Problem(404, f"no folder {folder}", "EntryNotFound")
    names.sort(key=lambda name: (name in page.tree, name))
    first = call.number("cursor")
    shown = names[first : first + _PAGE]
    last = call.store.last_commits(page.repo, page.commit, set(shown))
    at = quote(page.revision, safe="")
    items = []
    for name in shown:
        entry = page.tree.get(name)
        items.append(
            {
                "name": PurePosixPath(name).name,
                "folder": entry is None,
                "link": f"{page.link}/{'blob' if entry else 'tree'}/{at}/{quote(name)}",
                "size": _size(entry.size) if entry else "",
                "title": last[name].title if name in last else "",
                "date": last[name].date if name in last else "",
            }
        )
    more = f"?cursor={first + _PAGE}" if first + _PAGE < len(names) else ""
    return page.show("files.html", items=items, path=page.path(folder), next=more)


def blob(call: Call) -> Response:
    page = _RepoPage(call, "Files")
    page.check_gate()
    path = call.path["path"]
    entry = page.tree.get(path)
    if entry is None:
        raise Problem(404, f"no file {path}", "EntryNotFound")
    text, why = None, "This file is not text."
    if entry.size > _LARGEST_TEXT:
        why = "This file is too large to show here."
    elif is_text(path, entry) or not entry.lfs:
        try:
            text = call.store.objects.read(entry).decode()
        except UnicodeDecodeError:
            text = None
    raw = f"{page.link}/resolve/{quote(page.revision, safe='')}/{quote(path)}"
    return page.show(
        "blob.html",
        text=text,
        why=why,
        path=page.path(path),
        size=_size(entry.size),
        raw=raw,
        sha256=entry.sha256,
    )


def commits(call: Call) -> Response:
    page = _RepoPage(call, "History")
    found, headers = call.page(call.store.history(page.repo, page.commit), _PAGE)
    more = f"?cursor={call.number('cursor') + _PAGE}" if headers else ""
    return page.show("commits.html", commits=found, next=more)


def commit(call: Call) -> Response:
    page = _RepoPage(call, "History")
    page.check_gate()
    parent = page.commit.parent
    before = call.store.tree(call.store.resolve(page.repo, parent)) if parent else {}
    return page.show("commit.html", commit=page.commit, diff=diff(call.store, before, page.tree).splitlines())


def discussion_list(call: Call) -> Response:
    page = _RepoPage(call, "Community")
    return page.show("discussions.html", discussions=discussions.summaries(call, page.repo))


def discussion(call: Call) -> Response:
    page = _RepoPage(call, "Community")
    page.check_gate()
    talk = discussions.shown(call, page.repo, with_diff=True)
    for event in talk["events"]:
        if event["type"] == "comment":
            text = event["data"]["latest"]["raw"]
            event["html"] = Markup(render(text, page.link))  # noqa: S704 (see markdown.py)
    return page.show("discussion.html", talk=talk, diff=talk.get("diff", "").splitlines())


def viewer(call: Call) -> Response:
    page = _RepoPage(call, "Rows")
    page.check_gate()
    sources = [path for path in sorted(page.tree) if path.endswith(ENDINGS)][:_MOST_SOURCES]
    source = call.query.get("file", sources[:1] or [""])[0]
    if not sources:
        return page.show("rows.html", sources=[])
    if source not in page.tree or not source.endswith(ENDINGS):
        raise Problem(404, f"no data file {source}", "EntryNotFound")
    path = call.store.objects.path(page.tree[source].sha256)
    found = first_rows(path, PurePosixPath(source).suffix)
    return page.show("rows.html", sources=sources, source=source, **vars(found))


def leaderboard(call: Call) -> Response:
    page = _RepoPage(call, "Leaderboard")
    empty = {"source": None, "notes": None, "pullRequest": None}
    lines = [empty | line for line in results.ranking(call, page.repo)]
    return page.show("leaderboard.html", lines=lines)
