"""Publishing: the outputs of a recipe become repos on a Hub, in one collection.

    problems/test, raw/nano-teacher, compressed/…, student/s-raw-full, evaluation/s-raw-full/test, report
        -> datasets nano-problems and nano-traces, model nano-s-raw-full, dataset nano-evals, Space nano-compare, …
           release.json {"recipe": "nano", "version": 1, "repos": [{"id": "local/nano-traces", "type":
           "dataset", "sha": "9c1f…", "url": "/datasets/local/nano-traces"}, …], "collection": …}

Every repo lands in one commit, in an order in which each can name the commits of those it was made from.
A repo that the Hub holds already is not committed again, so a release that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hubkit.errors import HubError, InputError
from hubkit.hub import Access, check_namespace, default_access, repo_path
from hubkit.push import (
    PUSHES,
    SIGNED,
    CollectionItem,
    Pushed,
    add_files,
    commit_title,
    push,
    put_collection,
    put_tag,
)
from hubkit.recipe.config import Hub, Recipe
from hubkit.recipe.repos import (
    check_repos,
    evals_repo,
    model_repo,
    problems_repo,
    space_repo,
    traces_repo,
)
from hubkit.release.boards import Boards, compare_results
from hubkit.release.cards import CardContext
from hubkit.release.check.published import look
from hubkit.release.check.report import unchecked_files
from hubkit.release.layout import (
    Material,
    RepoFiles,
    layout,
    model_files,
    space,
)
from hubkit.release.results import Facts
from hubkit.section import AtKey
from hubkit.store import CheckContext, StepContext, manifest, write_json

__all__ = ["VERSION", "check", "run", "usage"]

VERSION: Final = 12


@dataclass
class _Release:
    """A release under way: the data to publish, and the repos that are on the Hub already."""

    access: Access
    context: StepContext
    cards: CardContext
    boards: Boards
    total: int
    pushed: dict[str, Pushed] = field(default_factory=dict)
    """Repo id -> its commit."""
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        recipe = self.cards.recipe
        return f"{recipe.name} version {recipe.version}{SIGNED}"

    def push(self, repos: Sequence[RepoFiles]) -> None:
        """Push repos, several at the same time. If one fails, pushed repos stay, and are not pushed again."""
        with ThreadPoolExecutor(PUSHES) as pool:
            try:
                for repo, pushed in zip(repos, pool.map(self._send, repos), strict=True):
                    self.pushed[repo.id], self.notes[repo.id] = pushed, repo.note
                    self.cards.commits[repo.id] = pushed.sha
                    self.context.count("pushed" if pushed.changed else "unchanged")
                    self.context.progress(len(self.pushed), self.total, repo=repo.id)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _send(self, repo: RepoFiles) -> Pushed:
        recipe, files = self.cards.recipe, repo.files
        stale: list[str] = []
        if repo.type == "model":
            stale, theirs = compare_results(self.access, repo.id, files, self.cards.problems, self.boards)
            files = {name: content for name, content in files.items() if name not in theirs}
            for name in theirs:
                logging.getLogger("hubkit").warning(
                    "%s of %s was changed by others and stays; the release's own is put there once it is deleted",
                    name,
                    repo.id,
                )
        pushed = push(self.access, repo.id, repo.type, files, self.message, recipe.hub.private, stale)
        put_tag(self.access, pushed, f"v{recipe.version}")
        return pushed

    def take_away_check(self) -> None:
        """Put a note in the place of an older check's report, unless the release is what was checked.

        Before the Space is pushed: it names the commits of all repos, so that any change is one of the Space, too. It
        is what the cards link until somebody pushes the report of a check.
        """
        recipe, evals = self.cards.recipe, self.pushed[self.cards.evals]
        # Where nothing has been committed to the evaluations since a release, it was killed before it came to this.
        if (
            evals.changed
            or commit_title(self.access, evals.repo_id, evals.repo_type, evals.sha) == self.message
            or not self._is_on_hub()
        ):
            files = unchecked_files(f"{recipe.hub.namespace}/{recipe.name}")
            # On this release's files: another publisher's may have come since.
            sha = add_files(self.access, evals.repo_id, files, "Not checked yet", evals.sha)
            self.pushed[evals.repo_id] = replace(evals, sha=sha)
            self.cards.commits[evals.repo_id] = sha
            put_tag(self.access, self.pushed[evals.repo_id], f"v{recipe.version}")

    def _is_on_hub(self) -> bool:
        """Whether the Space on the Hub is this release's, but for the commit of a report of a check."""
        from huggingface_hub.utils.sha import git_hash

        evals = self.cards.evals
        try:
            there = look(self.access, self.cards.space, "space")
            commit = json.loads(there.path("release.json").read_text(encoding="utf-8"))["revision"]
        except (HubError, ValueError, KeyError, TypeError):
            return False
        repos = [repo | {"sha": commit} if repo["id"] == evals else repo for repo in self.repos()]
        then = space(replace(self.cards, commits=self.cards.commits | {evals: commit}), repos)
        contents = ((n, c if isinstance(c, bytes) else c.read_bytes()) for n, c in then.files.items())
        ids = {name: git_hash(content) for name, content in contents}
        return ids == {
            n: blob for n, blob in there.files.items() if n in ids or not n.startswith((".", "LICENSE"))
        }

    def repos(self) -> list[dict[str, str]]:
        """For release.json, here and in the Space."""
        tag = f"v{self.cards.recipe.version}"
        return [
            {"id": p.repo_id, "type": p.repo_type, "sha": p.sha, "tag": tag} for p in self.pushed.values()
        ]


def check(context: CheckContext) -> None:
    """Ask the Hub whether the token may write there."""
    hub = Recipe.model_validate(context.config["recipe"]).hub
    if hub.endpoint != "local":
        _own_access(hub)


def run(context: StepContext) -> None:
    """Push every repo and the collection; write release.json."""
    recipe = Recipe.model_validate(context.config["recipe"])
    facts = Facts.read(recipe, context.inputs)
    with _open_hub(recipe, context) as access:
        local = recipe.hub.endpoint == "local"
        # Made first, though empty, for the cards link it.
        namespace, title = recipe.hub.namespace, f"{recipe.name}: traces and students"
        slug = put_collection(access, namespace, title, recipe.description, [], recipe.hub.private)
        cards = replace(_cards(recipe, facts, context, "" if local else access.endpoint), collection=slug)
        material = _material(cards, context, access)
        # And evaluations, Space, problems.
        total = len(cards.models) + len(facts.teachers()) + 2 + bool(facts.kind("problems"))
        release = _Release(access, context, cards, material.boards, total)
        for stage in layout(cards, material):
            release.push(stage)
        release.take_away_check()
        release.push([space(cards, release.repos())])
        items = [
            CollectionItem(p.repo_id, p.repo_type, release.notes[p.repo_id]) for p in release.pushed.values()
        ]
        slug = put_collection(access, namespace, title, recipe.description, items, recipe.hub.private)
    write_json(
        context.out / "release.json",
        {
            "schema_version": 1,
            "recipe": recipe.name,
            "version": recipe.version,
            "endpoint": recipe.hub.endpoint,
            "namespace": recipe.hub.namespace,
            "repos": [
                repo | {"url": f"{cards.endpoint}/{repo_path(p.repo_id, p.repo_type)}"}
                for repo, p in zip(release.repos(), release.pushed.values(), strict=True)
            ],
            "problems": cards.problems if facts.kind("problems") else None,
            "traces": {teacher: traces_repo(recipe, teacher) for teacher in facts.teachers()},
            "students": {n: cards.models[n] for n in _students(facts)},
            "leaderboards": material.boards.as_dict(),
            "evals": cards.evals,
            "space": cards.space,
            "collection": slug,
        },
    )
    context.metrics["repos"] = len(release.pushed)


def usage(release: Mapping[str, Any], hub: Path | None) -> list[str]:
    """Returns three commands that use a release: read the traces, load a student, open the Space."""
    traces = next(iter(release["traces"].values()))
    student = next(iter(release["students"].values()))
    load = f'from datasets import load_dataset; print(load_dataset("{traces}", "raw", split="train")[0])'
    use = f'from transformers import AutoModelForCausalLM as M; print(M.from_pretrained("{student}"))'
    python, hubkit = _command("python"), _command("hubkit")
    commands = [f"{python} -c '{load}'", f"{python} -c '{use}'"]
    if hub is None:
        page = f"{release['endpoint'].rstrip('/')}/spaces/{release['space']}"
        return [*commands, f"{python} -m webbrowser {page}"]
    folder = shlex.quote(_shown(hub))
    return [
        *(f"{hubkit} hub exec {folder} -- {command}" for command in commands),
        f"{hubkit} space open {release['namespace']}/{release['recipe']} --hub {folder}",
    ]


def _command(name: str) -> str:
    """Returns how to call a program of this environment from a shell: its path, unless the shell finds it by name."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not own.exists() or (found and Path(found).absolute() == own.absolute()):
        return name
    return shlex.quote(_shown(own))


def _shown(path: Path) -> str:
    """A path as one types it, relative to here where it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def _open_hub(recipe: Recipe, context: StepContext) -> Iterator[Access]:
    """The Hub that the recipe names, with the token for it."""
    if recipe.hub.endpoint == "local":
        from hubkit.localhub import LocalHub

        with LocalHub(context.paths["hub"]) as hub:
            yield Access(hub.endpoint, hub.token)
        return
    yield _own_access(recipe.hub)


def _own_access(hub: Hub) -> Access:
    """The user's own Hub, where the recipe names the same one and its token may write to the recipe's namespace."""
    mine = default_access()
    if hub.endpoint.rstrip("/") != mine.endpoint.rstrip("/"):
        # A recipe may come from anybody: it alone must not decide where the user's token is sent.
        raise HubError(
            f"the recipe publishes to {hub.endpoint}, and your token is for {mine.endpoint}",
            f"set HF_ENDPOINT={hub.endpoint} if that is what you want",
        )
    check_namespace(mine, hub.namespace)
    return mine


def _students(facts: Facts) -> list[str]:
    return [name.partition("/")[2] for name in facts.kind("student")]


def _cards(recipe: Recipe, facts: Facts, context: StepContext, endpoint: str) -> CardContext:
    """Names of all repos, checked before the first byte is sent (and before, where a recipe was read from a file)."""
    try:
        check_repos(recipe)
    except AtKey as error:
        raise InputError(str(error), "choose another name in the recipe") from None
    # Datasets are problems/<set> and traces/<name>; models have names without a slash.
    pinned = {n: m for n, m in context.models.items() if "/" not in n and m["revision"]}
    # Others are names of models behind endpoints, of which there is nothing to publish.
    local = {n for n, reference in recipe.references() if reference.model.startswith(".")}
    folders = [n for n, m in context.models.items() if n in local and not m["revision"]]
    pinned_sources = {n: m for n, m in context.models.items() if "/" in n}
    students = _students(facts)
    clash = set(folders) & set(students)
    if clash:
        raise InputError(
            f"a student and a model are both called {min(clash)!r}", "rename the model in the recipe"
        )
    return CardContext(
        recipe=recipe,
        facts=facts,
        endpoint=endpoint,
        problems=problems_repo(recipe),
        evals=evals_repo(recipe),
        space=space_repo(recipe),
        models={name: model_repo(recipe, name) for name in [*folders, *students]},
        pinned=pinned | pinned_sources,
        commits={m["model"]: m["revision"] for m in pinned.values()},
    )


def _material(cards: CardContext, context: StepContext, access: Access) -> Material:
    brought = [n for n in cards.models if n in context.models]
    folders = {name: context.model(name) for name in brought}
    folders |= {name: cards.facts.folders[f"student/{name}"] / "model" for name in _students(cards.facts)}
    return Material(
        files_of=lambda name: model_files(folders[name]),
        manifests={name: manifest(folders[name]) for name in brought},
        boards=Boards.find(cards, access),
        work=context.work,
    )
