"""Pages of one repo: card, files, history, community, and of a dataset its rows and leaderboard."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.responses import Response

from hubkit.localhub.api import discussions, repos, results
from hubkit.localhub.api.files import inside, is_text
from hubkit.localhub.api.markdown import render
from hubkit.localhub.api.request import ApiRequest
from hubkit.localhub.pages.html import format_size, html_page, repo_link
from hubkit.localhub.pages.rows import ENDINGS, PAGE, Rows, configs_of, read_rows
from hubkit.localhub.storage import cards
from hubkit.localhub.storage.diffs import diff
from hubkit.localhub.storage.errors import ApiError, is_repo_name
from hubkit.localhub.storage.store import Commit, Repo, Tree

__all__ = [
    "blob", "card", "commit", "commits", "discussion", "discussion_list", "files", "leaderboard", "viewer",
]  # fmt: skip

_PAGE: Final = 60
_LARGEST_TEXT: Final = 1 << 19
_MOST_SOURCES: Final = 200


class _RepoPage:
    """The repo of a page, at a revision, with what all its tabs show."""

    def __init__(self, request: ApiRequest, tab: str) -> None:
        self.request = request
        self.repo: Repo = request.repo()
        self.revision = request.path.get("revision", "main")
        self.commit: Commit = request.store.resolve(self.repo, self.revision)
        self.tree: Tree = request.store.tree(self.commit)
        self.link = repo_link(self.repo.kind, self.repo.name)
        self._tab = tab

    def check_gate(self) -> None:
        repos.check_gate(self.request, self.repo)

    def show(self, template: str, **values: Any) -> Response:
        at = quote(self.revision, safe="")
        tabs = [
            ("Card", self.link),
            ("Files", f"{self.link}/tree/{at}"),
            ("History", f"{self.link}/commits/{at}"),
        ]
        if self.repo.kind == "dataset":
            tabs.insert(1, ("Rows", f"{self.link}/viewer"))
            if results.is_benchmark(self.request.store, self.tree):
                tabs.append(("Leaderboard", f"{self.link}/leaderboard"))
        tabs.append(("Community", f"{self.link}/discussions"))
        shown = {
            "name": self.repo.name,
            "kind": self.repo.kind,
            "private": self.repo.private,
            "gated": self.repo.settings.get("gated", False),
            "link": self.link,
        }
        tags = [(tag, self._link_of(tag)) for tag in repos.card_of(self.request.store, self.tree)[1]]
        values |= {"repo": shown, "tags": tags, "tabs": tabs, "tab": self._tab, "revision": self.revision}
        return html_page(self.request, template, f"{self.repo.kind}s", **values)

    def find_repo(self, name: str, kinds: Sequence[str] = ("dataset", "model", "space")) -> str:
        """The page of a repo that is on this Hub and that the visitor may see; "" if there is none."""
        for kind in kinds:
            repo = self.request.store.find_repo(kind, name)
            if repo is not None and self.request.who.may_read(repo):
                return repo_link(kind, repo.name)
        return ""

    def _link_of(self, tag: str) -> str:
        """Where a tag of the card leads: a paper, a dataset, a base model."""
        what, _, value = tag.partition(":")
        if what == "arxiv":
            return f"https://arxiv.org/abs/{value}"
        kind = {"dataset": "dataset", "source_datasets": "dataset", "base_model": "model"}.get(what)
        name = value.rpartition(":")[2]
        if kind is None or not is_repo_name(name):
            return ""
        return self.find_repo(name, [kind]) or f"https://huggingface.co{repo_link(kind, name)}"

    def path(self, path: str) -> list[tuple[str, str]]:
        """The folders that lead to a path, each with its link."""
        at = f"{self.link}/tree/{quote(self.revision, safe='')}"
        parts = path.split("/") if path else []
        links = [(part, f"{at}/{quote('/'.join(parts[: i + 1]))}") for i, part in enumerate(parts)]
        return [(self.repo.name.split("/")[1], at), *links]


def card(request: ApiRequest) -> Response:
    page = _RepoPage(request, "Card")
    readme = page.tree.get("README.md")
    html = ""
    if readme is not None and readme.size <= _LARGEST_TEXT:
        text = request.store.objects.read(readme).decode("utf-8", "replace")
        body = render(cards.front_matter(text)[1], page.link, find=page.find_repo)
        html = Markup(body)  # noqa: S704 (see markdown.py)
    found = results.entries_of(request.store, page.tree) if page.repo.kind == "model" else []
    return page.show(
        "card.html",
        card=html,
        commit=page.commit,
        files=len(page.tree),
        size=format_size(repos.used_storage(page.tree)),
        opening=_how_to_open(page) if page.repo.kind == "space" else "",
        results=[{"error": "", **item} for item in found],
    )


def _how_to_open(page: _RepoPage) -> str:
    """Commands that run a Space, which this Hub does not."""
    name = page.repo.name
    if "release.json" in page.tree:  # a release's Space, which hubkit can start by itself
        # Other machines need not know where this Hub's folder is.
        local = page.request.http.app.state.loopback
        name = name.removesuffix("-compare")  # the release that it is of
        return f"hubkit space open {name} --hub {shlex.quote(str(page.request.store.folder)) if local else 'FOLDER'}"
    folder = name.split("/")[1]
    return "\n".join(
        [
            f"export HF_ENDPOINT={page.request.endpoint}",
            f"hf download {name} --repo-type space --local-dir {folder} && cd {folder}",
            "pip install -r requirements.txt && python app.py",
        ]
    )


def files(request: ApiRequest) -> Response:
    page = _RepoPage(request, "Files")
    folder = request.path.get("path", "").strip("/")
    if folder in page.tree:
        return blob(request)
    names = inside(page.tree, folder, recursive=False)
    if not names:
        raise ApiError(404, f"no folder {folder}", "EntryNotFound")
    names.sort(key=lambda name: (name in page.tree, name))
    first = request.number("cursor")
    shown = names[first : first + _PAGE]
    last = request.store.last_commits(page.repo, page.commit, set(shown))
    at = quote(page.revision, safe="")
    items = []
    for name in shown:
        entry = page.tree.get(name)
        items.append(
            {
                "name": PurePosixPath(name).name,
                "folder": entry is None,
                "link": f"{page.link}/{'blob' if entry else 'tree'}/{at}/{quote(name)}",
                "size": format_size(entry.size) if entry else "",
                "title": last[name].title if name in last else "",
                "date": last[name].date if name in last else "",
            }
        )
    more = f"?cursor={first + _PAGE}" if first + _PAGE < len(names) else ""
    return page.show("files.html", items=items, path=page.path(folder), next=more)


def blob(request: ApiRequest) -> Response:
    page = _RepoPage(request, "Files")
    page.check_gate()
    path = request.path["path"]
    entry = page.tree.get(path)
    if entry is None:
        raise ApiError(404, f"no file {path}", "EntryNotFound")
    text, why = None, "This file is not text."
    if entry.size > _LARGEST_TEXT:
        why = "This file is too large to show here."
    elif is_text(path, entry) or not entry.lfs:
        try:
            text = request.store.objects.read(entry).decode()
        except UnicodeDecodeError:
            text = None
    raw = f"{page.link}/resolve/{quote(page.revision, safe='')}/{quote(path)}"
    return page.show(
        "blob.html",
        text=text,
        why=why,
        path=page.path(path),
        size=format_size(entry.size),
        raw=raw,
        sha256=entry.sha256,
    )


def commits(request: ApiRequest) -> Response:
    page = _RepoPage(request, "History")
    found, headers = request.page(request.store.history(page.repo, page.commit), _PAGE)
    more = f"?cursor={request.number('cursor') + _PAGE}" if headers else ""
    return page.show("commits.html", commits=found, next=more)


def commit(request: ApiRequest) -> Response:
    page = _RepoPage(request, "History")
    page.check_gate()
    parent = page.commit.parent
    before = request.store.tree(request.store.resolve(page.repo, parent)) if parent else {}
    return page.show(
        "commit.html", commit=page.commit, diff=diff(request.store, before, page.tree).splitlines()
    )


def discussion_list(request: ApiRequest) -> Response:
    page = _RepoPage(request, "Community")
    return page.show("discussions.html", discussions=discussions.summaries(request, page.repo))


def discussion(request: ApiRequest) -> Response:
    page = _RepoPage(request, "Community")
    page.check_gate()
    talk = discussions.shown(request, page.repo, with_diff=True)
    for event in talk["events"]:
        if event["type"] == "comment":
            text = event["data"]["latest"]["raw"]
            event["html"] = Markup(render(text, page.link, find=page.find_repo))  # noqa: S704 (see markdown.py)
    return page.show("discussion.html", talk=talk, diff=talk.get("diff", "").splitlines())


def viewer(request: ApiRequest) -> Response:
    """Rows of a config's split, or of one data file. Opens on the default config."""
    page = _RepoPage(request, "Rows")
    page.check_gate()
    fields = repos.card_of(request.store, page.tree)[0]
    configs, default = configs_of(fields, list(page.tree))
    sources = [path for path in sorted(page.tree) if path.endswith(ENDINGS)]
    asked = {key: values[0] for key, values in request.query.items() if key in ("config", "split", "file")}
    if not sources:
        return page.show("rows.html", why_none="No Parquet, JSON Lines or CSV files to show.")
    config = split = ""
    if "file" in asked:
        files = [asked["file"]]
        if files[0] not in sources:
            raise ApiError(404, f"no data file {files[0]}", "EntryNotFound")
        name, at = files[0], {"file": files[0]}
    else:
        config = asked.get("config", default)
        if config not in configs:
            raise ApiError(404, f"no config {config}", "EntryNotFound")
        splits = configs[config]
        split = asked.get("split", "train" if "train" in splits else next(iter(splits), ""))
        if split not in splits and "split" in asked:
            raise ApiError(404, f"no split {split} in {config}", "EntryNotFound")
        files = splits.get(split, [])
        name, at = f"{config} · {split}" if split else config, {"config": config, "split": split}
    first = request.number("row")
    contents = [request.store.objects.path(page.tree[path].sha256) for path in files]
    found = read_rows(contents, [PurePosixPath(path).suffix for path in files], first)

    def link(**query: str | int) -> str:
        return f"{page.link}/viewer?{urlencode(query)}"

    return page.show(
        "rows.html",
        why_none="",
        configs=[(each, link(config=each)) for each in configs],
        splits=[(each, link(config=config, split=each)) for each in configs.get(config, {})],
        config=config,
        split=split,
        shown_name=name,
        found=found if files else Rows(why="The card names no files that are here for this config."),
        first=first,
        previous=link(**at, row=max(0, first - PAGE)) if first else "",
        next=link(**at, row=first + PAGE) if found.more else "",
        sources=[(path, link(file=path)) for path in sources[:_MOST_SOURCES]],
    )


def leaderboard(request: ApiRequest) -> Response:
    page = _RepoPage(request, "Leaderboard")
    empty = {"source": None, "notes": None, "pullRequest": None}
    lines = [empty | line for line in results.ranking(request, page.repo)]
    return page.show("leaderboard.html", lines=lines)
