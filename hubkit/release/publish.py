"""Publishing: everything a recipe made becomes repos on a Hub, tied by one collection.

    raw/nano-teacher, compressed/…, student/s-raw-full, evaluation/s-raw-full/test, report
        -> dataset nano-traces, model nano-s-raw-full, dataset nano-evals, Space nano-compare, …
           release.json {"recipe": "nano", "version": 1, "repos": [{"id": "local/nano-traces", "type":
           "dataset", "sha": "9c1f…", "url": "/datasets/local/nano-traces"}, …], "collection": …}

Every repo lands in one commit, in an order in which each can name the commits of those it was made from.
A repo that the Hub holds already is not committed again, so a release that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.errors import HubError, InputError
from hubkit.hub import (
    MODEL_FILES,
    Access,
    CollectionItem,
    Pushed,
    RepoType,
    check_namespace,
    default_access,
    push,
    put_collection,
    put_tag,
    repo_path,
)
from hubkit.recipe.config import Recipe
from hubkit.recipe.repos import check_repos, evals_repo, model_repo, space_repo, traces_repo
from hubkit.records import read_rows, write_rows
from hubkit.release.cards import (
    CardContext,
    dataset_card,
    evals_card,
    model_card,
    space_card,
    student_card,
)
from hubkit.release.columns import OUTPUTS_SCHEMA
from hubkit.release.plot import FIGURES
from hubkit.release.results import RESULTS_SCHEMA, Facts, student_rows
from hubkit.section import AtKey
from hubkit.store import CheckContext, StepContext, write_json

__all__ = ["VERSION", "check", "run", "space_files", "usage"]

VERSION: Final = 3
_SPACE_FILES: Final = ("app.py", "README.md", "requirements.txt")


@dataclass
class _Release:
    """What is being published, and what of it is on the Hub by now."""

    recipe: Recipe
    facts: Facts
    access: Access
    context: StepContext
    cards: CardContext
    total: int
    pushed: dict[str, Pushed] = field(default_factory=dict)
    """Repo id -> its commit."""
    notes: dict[str, str] = field(default_factory=dict)

    def push(self, name: str, repo_type: RepoType, files: Mapping[str, Path | bytes], note: str) -> Pushed:
        recipe = self.recipe
        message = f"{recipe.name} version {recipe.version}, by hubkit"
        pushed = push(self.access, name, repo_type, files, message, recipe.hub.private)
        put_tag(self.access, pushed, f"v{recipe.version}")
        self.pushed[name], self.notes[name] = pushed, note
        self.cards.commits[name] = pushed.sha
        self.context.count("pushed" if pushed.changed else "unchanged")
        self.context.progress(len(self.pushed), self.total, repo=name)
        return pushed


def check(context: CheckContext) -> None:
    """Ask the Hub whether the token may write there."""
    hub = Recipe.model_validate(context.config["recipe"]).hub
    if hub.endpoint != "local":
        check_namespace(replace(default_access(), endpoint=hub.endpoint), hub.namespace)


def run(context: StepContext) -> None:
    """Push every repo and the collection; write release.json."""
    recipe = Recipe.model_validate(context.config["recipe"])
    facts = Facts.read(recipe, context.inputs)
    with _open_hub(recipe, context) as access:
        local = recipe.hub.endpoint == "local"
        release = _plan(recipe, facts, access, context, "" if local else access.endpoint)
        _push_models(release)
        datasets = {teacher: _push_traces(release, teacher) for teacher in facts.teachers()}
        _push_students(release, datasets)
        _push_evals(release)
        _push_space(release, datasets)
        items = [
            CollectionItem(p.repo_id, p.repo_type, release.notes[p.repo_id]) for p in release.pushed.values()
        ]
        namespace, title = recipe.hub.namespace, f"{recipe.name}: traces and students"
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
                {
                    "id": p.repo_id,
                    "type": p.repo_type,
                    "sha": p.sha,
                    "tag": f"v{recipe.version}",
                    "url": f"{release.cards.endpoint}/{repo_path(p.repo_id, p.repo_type)}",
                }
                for p in release.pushed.values()
            ],
            "traces": datasets,
            "students": {n: release.cards.models[n] for n in _students(facts)},
            "evals": release.cards.evals,
            "space": release.cards.space,
            "collection": slug,
        },
    )
    context.metrics["repos"] = len(release.pushed)


def usage(release: Mapping[str, Any], hub: Path | None) -> list[str]:
    """Three commands that use a release: read the traces, run a student, open the Space."""
    traces = next(iter(release["traces"].values()))
    student = next(iter(release["students"].values()))
    load = f'from datasets import load_dataset; print(load_dataset("{traces}", "raw", split="train")[0])'
    use = f'from transformers import AutoModelForCausalLM as M; print(M.from_pretrained("{student}"))'
    commands = [f"python -c '{load}'", f"python -c '{use}'"]
    if hub is None:
        page = f"{release['endpoint'].rstrip('/')}/spaces/{release['space']}"
        return [*commands, f"python -m webbrowser {page}"]
    folder = shlex.quote(_shown(hub))
    return [
        *(f"hubkit hub exec {folder} -- {command}" for command in commands),
        f"hubkit space open {release['namespace']}/{release['recipe']} --hub {folder}",
    ]


def space_files() -> dict[str, Path]:
    """The Space's own files: from the installed package, or from the checkout it is run in."""
    package = Path(__file__).parents[1]
    for folder in (package / "spaces" / "compare", package.parent / "spaces" / "compare"):
        if all((folder / name).is_file() for name in _SPACE_FILES):
            return {name: folder / name for name in _SPACE_FILES}
    raise InputError("the files of the Space are missing", "install hubkit again")


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
    mine = default_access()
    if recipe.hub.endpoint.rstrip("/") != mine.endpoint.rstrip("/"):
        # A recipe may come from anybody: it alone must not decide where the user's token is sent.
        raise HubError(
            f"the recipe publishes to {recipe.hub.endpoint}, and your token is for {mine.endpoint}",
            f"set HF_ENDPOINT={recipe.hub.endpoint} if that is what you want",
        )
    check_namespace(mine, recipe.hub.namespace)
    yield mine


def _students(facts: Facts) -> list[str]:
    return [name.partition("/")[2] for name in facts.kind("student")]


def _plan(recipe: Recipe, facts: Facts, access: Access, context: StepContext, endpoint: str) -> _Release:
    """Names of all repos, checked before the first byte is sent (and before, where a recipe was read from a file)."""
    try:
        check_repos(recipe)
    except AtKey as error:
        raise InputError(str(error), "choose another name in the recipe") from None
    pinned = {n: m for n, m in context.models.items() if not n.startswith("problems/") and not _is_folder(m)}
    folders = [n for n, m in context.models.items() if not n.startswith("problems/") and _is_folder(m)]
    pinned_sources = {n: m for n, m in context.models.items() if n.startswith("problems/")}
    students = _students(facts)
    clash = set(folders) & set(students)
    if clash:
        raise InputError(
            f"a student and a model are both called {min(clash)!r}", "rename the model in the recipe"
        )
    models = {name: model_repo(recipe, name) for name in [*folders, *students]}
    cards = CardContext(
        recipe=recipe,
        facts=facts,
        endpoint=endpoint,
        evals=evals_repo(recipe),
        space=space_repo(recipe),
        models=models,
        pinned=pinned | pinned_sources,
        commits={m["model"]: m["revision"] for m in pinned.values()},
    )
    total = len(models) + len(facts.teachers()) + 2  # the evaluations and the Space
    return _Release(recipe, facts, access, context, cards, total=total)


def _is_folder(model: Mapping[str, str]) -> bool:
    return not model["revision"]


def _model_files(folder: Path) -> dict[str, Path | bytes]:
    """What a model is loaded from; no pickles, no code, and no card but ours."""
    found = sorted({path for pattern in MODEL_FILES for path in folder.rglob(pattern) if path.is_file()})
    files: dict[str, Path | bytes] = {path.relative_to(folder).as_posix(): path for path in found}
    if not any(name.endswith(".safetensors") for name in files):
        raise InputError(f"{folder.name} holds no safetensors weights", "train or convert it again")
    return files


def _push_models(release: _Release) -> None:
    """Bases first: students name the commit of theirs."""
    recipe = release.recipe
    roles = {c.name: "A compressor" for c in recipe.compressors}
    roles |= {recipe.judge.name: "A judge"} if recipe.judge else {}
    roles |= {t.name: "A teacher" for t in recipe.teachers}
    roles |= {b.name: "A base model" for b in recipe.students.bases}
    bases = [b.name for b in recipe.students.bases]
    for name in [*bases, *(n for n in roles if n not in bases)]:
        if name in release.cards.models:
            files = _model_files(release.context.model(name))
            files["README.md"] = model_card(release.cards, name, roles[name]).encode()
            release.push(release.cards.models[name], "model", files, roles[name])


def _push_traces(release: _Release, teacher: str) -> str:
    repo_id, facts = traces_repo(release.recipe, teacher), release.facts
    files: dict[str, Path | bytes] = {}
    sizes = {}
    for variant, step in facts.variants(teacher).items():
        path = facts.folders[step] / variant.row.file
        files[f"data/{variant.name}/train-00000-of-00001.parquet"] = path
        sizes[variant.name] = _size(path)
    files["README.md"] = dataset_card(release.cards, teacher, repo_id, sizes).encode()
    release.push(repo_id, "dataset", files, f"Reasoning traces of {teacher}: {', '.join(sizes)}")
    return repo_id


def _size(path: Path) -> tuple[int, int]:
    """Rows and bytes of a Parquet file's uncompressed data, from its footer."""
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        return file.metadata.num_rows, sum(group.total_byte_size for group in groups)


def _push_students(release: _Release, datasets: Mapping[str, str]) -> None:
    facts, cards = release.facts, release.cards
    for step, record in facts.kind("student").items():
        config, name = record.config, record.config["student"]
        base = config["base"]
        base_id = cards.models.get(base) or release.context.models[base]["model"]
        files = _model_files(facts.folders[step] / "model")
        if "adapter_config.json" in files:
            path = facts.folders[step] / "model" / "adapter_config.json"
            adapter = json.loads(path.read_text(encoding="utf-8"))
            # As trained it names a folder of this machine; PEFT must find the base on the Hub, as it was then.
            adapter |= {"base_model_name_or_path": base_id, "revision": cards.commits[base_id]}
            files["adapter_config.json"] = (json.dumps(adapter, indent=2) + "\n").encode()
        tokenizer = cards.models[name] if "tokenizer.json" in files else base_id
        card = student_card(cards, name, base_id, datasets[config["teacher"]], tokenizer)
        files["README.md"] = card.encode()
        note = f"{base} trained on {config['variant']} traces, {config['method']}"
        release.push(cards.models[name], "model", files, note)


def _outputs(facts: Facts) -> Iterator[dict[str, Any]]:
    for step, record in facts.kind("evaluation").items():
        config = record.config
        about = {
            name: config.get(name) for name in ("student", "teacher", "base", "variant", "method", "seed")
        }
        about |= {
            "origin": "student" if "student" in record.inputs else "base",
            "benchmark": config["benchmark"]["name"],
        }
        for row in read_rows(facts.folders[step] / "samples.parquet"):
            yield about | row


def _push_evals(release: _Release) -> None:
    facts, work = release.facts, release.context.work / "evals"
    shutil.rmtree(work, ignore_errors=True)
    files: dict[str, Path | bytes] = {}
    sizes = {}
    tables: dict[str, tuple[Iterable[dict[str, Any]], pa.Schema]] = {
        "outputs": (_outputs(facts), OUTPUTS_SCHEMA),
        "results": (student_rows(facts), RESULTS_SCHEMA),
    }
    for config, (rows, schema) in tables.items():
        path = work / f"{config}.parquet"
        write_rows(path, rows, schema)
        files[f"data/{config}/test-00000-of-00001.parquet"] = path
        sizes[config] = _size(path)
    for step in facts.kind("evaluation"):
        details = facts.folders[step] / "details"
        for path in sorted(p for p in details.rglob("*") if p.is_file()):
            _, student, benchmark = step.split("/")
            files[f"details/{student}/{benchmark}/{path.relative_to(details).as_posix()}"] = path
    if "report" in facts.folders:
        for name in ("report.html", "results.json", *FIGURES):
            files[name] = facts.folders["report"] / name
    files["README.md"] = evals_card(release.cards, sizes, plot="tradeoff.png" in files).encode()
    release.push(release.cards.evals, "dataset", files, "What every student answered, and the results")


def _variants(release: _Release) -> list[dict[str, Any]]:
    """What the Space shows of each variant, of all teachers, in the table's order."""
    facts = release.facts
    found = {v.name: v.published(teacher) for teacher in facts.teachers() for v in facts.variants(teacher)}
    return sorted(found.values(), key=lambda variant: (variant["order"], variant["name"]))


def _push_space(release: _Release, datasets: Mapping[str, str]) -> None:
    """`datasets`: teacher -> its trace dataset."""
    cards = release.cards
    files: dict[str, Path | bytes] = dict(space_files())
    requirements = Path(str(files["requirements.txt"])).read_text(encoding="utf-8")
    template = Path(str(files["README.md"])).read_text(encoding="utf-8")
    gradio = next(
        line.partition("==")[2].strip() for line in requirements.splitlines() if line.startswith("gradio==")
    )
    files["README.md"] = space_card(cards, template, [cards.evals, *datasets.values()], gradio).encode()
    about = {
        "recipe": release.recipe.name,
        "description": release.recipe.description,
        "variants": _variants(release),
        "evals": cards.evals,
        "revision": release.pushed[cards.evals].sha,
        "models": dict(cards.models) | {n: m["model"] for n, m in cards.pinned.items() if "/" not in n},
        "revisions": {
            name: release.pushed[repo].sha for name, repo in cards.models.items() if repo in release.pushed
        },
        "traces": dict(datasets),
        "trace_revisions": {repo: release.pushed[repo].sha for repo in datasets.values()},
        "system": release.recipe.students.system,
        "max_new_tokens": max(b.sampling.max_tokens for b in release.recipe.benchmarks),
    }
    files["release.json"] = (json.dumps(about, indent=2) + "\n").encode()
    release.push(cards.space, "space", files, "The students side by side")
