"""The files of each repo of a release, in an order in which each repo can name the commits of those before it.

    facts of a finished run -> RepoFiles("local/nano-problems", "dataset", {"eval.yaml": b"…", …}), bases and teachers,
    traces, students, evaluations, the Space

Publishing pushes them; a check compares them with what was pushed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import yaml

from hubkit.errors import InputError
from hubkit.hub import MODEL_FILES, RepoType
from hubkit.recipe.repos import traces_repo
from hubkit.records import arrow_size, read_rows, split_files, write_rows
from hubkit.release.boards import Boards, result_files
from hubkit.release.cards import (
    CardContext,
    dataset_card,
    evals_card,
    model_card,
    problems_card,
    space_card,
    student_card,
)
from hubkit.release.columns import outputs_schema
from hubkit.release.details import details_folder, run_files
from hubkit.release.manifest import PROVENANCE
from hubkit.release.plot import FIGURES
from hubkit.release.results import Facts, results_schema, student_rows
from hubkit.store import FileEntry, environment

__all__ = ["ANSWERS_BYTES", "Files", "Material", "RepoFiles", "layout", "model_files", "space", "space_files"]

ANSWERS_BYTES: Final = 1 << 20
"""Bytes of Arrow data of a row group of answers: comparing students on a problem reads one group for each student."""
_SPACE_FILES: Final = ("app.py", "README.md", "requirements.txt")
"""Those that a folder of the Space has at least; its other modules, style and script stand beside them."""

Files = dict[str, Path | bytes]


@dataclass(frozen=True)
class RepoFiles:
    """A repo as it is to be."""

    id: str
    type: RepoType
    files: Files
    note: str
    """Of its line in the collection."""


@dataclass(frozen=True)
class Material:
    """Inputs of a release besides facts: the files of models, and the context of their cards."""

    files_of: Callable[[str], Files]
    """Files of a student, or of a model that the recipe brought along as a folder."""
    manifests: Mapping[str, list[FileEntry]]
    """Model that the recipe brought along -> all files of its folder, by which records name it."""
    boards: Boards
    work: Path


def layout(cards: CardContext, material: Material) -> Iterator[list[RepoFiles]]:
    """Yield all repos except the Space, in stages: a card names commits of earlier stages only.

    The caller puts the commit of each repo of a stage into `cards.commits` before taking the next stage.
    """
    if cards.facts.kind("problems"):
        yield [_problems(cards)]
    for model in _models(cards, material):  # each names those before it
        yield [model]
    yield [_traces(cards, teacher) for teacher in cards.facts.teachers()]
    yield list(_students(cards, material))
    yield [_evals(cards, material)]


def space_files() -> dict[str, Path]:
    """Returns the Space's own files, from the installed package or the checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "spaces" / "compare", package.parent / "spaces" / "compare"):
        if all((folder / name).is_file() for name in _SPACE_FILES):
            found = (
                path for path in folder.iterdir() if path.suffix in (".py", ".css", ".js", ".md", ".txt")
            )
            return {path.name: path for path in sorted(found)}
    raise InputError("the files of the Space are missing", "install hubkit again")


def model_files(folder: Path) -> Files:
    """Returns the files that a model is loaded from; no pickles, no code, and no card of others."""
    found = sorted({path for pattern in MODEL_FILES for path in folder.rglob(pattern) if path.is_file()})
    files: Files = {path.relative_to(folder).as_posix(): path for path in found}
    if not any(name.endswith(".safetensors") for name in files):
        raise InputError(f"{folder.name} holds no safetensors weights", "train or convert it again")
    return files


def _problems(cards: CardContext) -> RepoFiles:
    """The sets of problems, as a benchmark where students are evaluated on one of them."""
    recipe, facts = cards.recipe, cards.facts
    tasks = [{"id": b.name, "config": b.problems, "split": "test"} for b in recipe.benchmarks if b.problems]
    held_out = {task["config"] for task in tasks}
    files: Files = {}
    splits = {}
    sizes = {}
    for step in facts.kind("problems"):
        name = step.partition("/")[2]
        splits[name] = "test" if name in held_out else "train"
        path = facts.folders[step] / "problems.parquet"
        files |= split_files(f"data/{name}/{splits[name]}", path)
        sizes[name] = arrow_size(path)
    if tasks:
        about = {
            "name": f"{recipe.name}: held-out problems",
            "description": " ".join(recipe.description.split()),
            "tasks": tasks,
        }
        files["eval.yaml"] = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000).encode()
    files["README.md"] = problems_card(cards, splits, sizes).encode()
    return RepoFiles(cards.problems, "dataset", files, f"Problems: {', '.join(sizes)}")


def _models(cards: CardContext, material: Material) -> Iterator[RepoFiles]:
    """Bases first: students name the commit of theirs."""
    recipe = cards.recipe
    roles = {c.name: "A compressor" for c in recipe.compressors}
    roles |= {recipe.judge.name: "A judge"} if recipe.judge else {}
    roles |= {t.name: "A teacher" for t in recipe.origins()}
    roles |= {b.name: "A base model" for b in recipe.students.bases}
    bases = [b.name for b in recipe.students.bases]
    for name in [*bases, *(n for n in roles if n not in bases)]:
        if name in cards.models:
            files = material.files_of(name)
            files["README.md"] = model_card(cards, name, roles[name]).encode()
            files |= result_files(cards, name, material.boards)
            yield RepoFiles(cards.models[name], "model", files, roles[name])


def _traces(cards: CardContext, teacher: str) -> RepoFiles:
    repo_id, facts = traces_repo(cards.recipe, teacher), cards.facts
    files: Files = {}
    sizes = {}
    for variant, step in facts.variants(teacher).items():
        path = facts.folders[step] / variant.row.file
        files |= split_files(f"data/{variant.name}/train", path)
        sizes[variant.name] = arrow_size(path)
    files["README.md"] = dataset_card(cards, teacher, repo_id, sizes).encode()
    return RepoFiles(repo_id, "dataset", files, f"Reasoning traces of {teacher}: {', '.join(sizes)}")


def _students(cards: CardContext, material: Material) -> Iterator[RepoFiles]:
    for record in cards.facts.kind("student").values():
        config, name = record.config, record.config["student"]
        base = config["base"]
        base_id = cards.models.get(base) or cards.pinned[base]["model"]
        files = material.files_of(name)
        if "adapter_config.json" in files:
            adapter = json.loads(_text(files["adapter_config.json"]))
            # As trained it names a folder of this machine; PEFT must find the base on the Hub, as it was then.
            adapter |= {"base_model_name_or_path": base_id, "revision": cards.commit_of(base, base_id)}
            files["adapter_config.json"] = (json.dumps(adapter, indent=2) + "\n").encode()
        tokenizer = cards.models[name] if "tokenizer.json" in files else base_id
        traces = traces_repo(cards.recipe, config["teacher"])
        files["README.md"] = student_card(cards, name, base_id, traces, tokenizer).encode()
        files |= result_files(cards, name, material.boards)
        note = f"{base} trained on {config['variant']} traces, {config['method']}"
        yield RepoFiles(cards.models[name], "model", files, note)


def _text(content: Path | bytes) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")


def _outputs(facts: Facts) -> Iterator[dict[str, Any]]:
    for step, record in facts.kind("evaluation").items():
        config = record.config
        about = {
            name: config.get(name) for name in ("student", "teacher", "base", "variant", "method", "seed")
        }
        about |= {
            "origin": "student" if "student" in record.inputs else "base",
            "benchmark": config["benchmark"]["name"],
            "level": config.get("level", {}).get("value"),
        }
        for row in read_rows(facts.folders[step] / "samples.parquet"):
            yield about | {"sample": 0, "extracted": None} | row


def _evals(cards: CardContext, material: Material) -> RepoFiles:
    facts, work = cards.facts, material.work / "evals"
    shutil.rmtree(work, ignore_errors=True)
    files: Files = {}
    sizes = {}
    tables: dict[str, tuple[Iterable[dict[str, Any]], pa.Schema]] = {
        "outputs": (_outputs(facts), outputs_schema(facts)),
        "results": (student_rows(facts), results_schema(facts)),
    }
    for config, (rows, schema) in tables.items():
        path = work / f"{config}.parquet"
        write_rows(path, rows, schema, group_bytes=ANSWERS_BYTES)
        files |= split_files(f"data/{config}/test", path)
        sizes[config] = arrow_size(path)
    details: dict[str, Files] = {}
    for step, record in facts.kind("evaluation").items():
        folder, student = facts.folders[step], record.config["student"]
        found = sorted((folder / "details").rglob("details_*.parquet"))
        if found:
            model = cards.models.get(student) or cards.pinned[student]["model"]
            name = details_folder(model, record.config.get("level", {}).get("value"))
            details.setdefault(name, {}).update(run_files(folder / "results.json", found, f"{name}/"))
    for run in details.values():
        files |= run
    if "report" in facts.folders:
        for name in ("report.html", "results.json", *FIGURES):
            files[name] = facts.folders["report"] / name
    files |= _provenance(cards, material)
    files["README.md"] = evals_card(cards, sizes, details, plot="tradeoff.png" in files).encode()
    return RepoFiles(cards.evals, "dataset", files, "What every student answered, and the results")


def _provenance(cards: CardContext, material: Material) -> Files:
    """The recipe, the record of every step and the files of local models: what a check starts from."""

    def text(value: Any) -> bytes:
        return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()

    files: Files = {f"{PROVENANCE}/recipe.json": text(cards.recipe.model_dump(mode="json", exclude={"run"}))}
    files[f"{PROVENANCE}/order.json"] = text(list(cards.facts.records))
    for step, record in cards.facts.records.items():
        # How a step ran, with addresses of servers, is private, and no part of its key.
        files[f"{PROVENANCE}/steps/{step}.json"] = text(
            record.model_copy(update={"runtime": {}}).model_dump()
        )
    for name, entries in material.manifests.items():
        files[f"{PROVENANCE}/models/{name}.json"] = text([entry.model_dump() for entry in entries])
    return files


def space(cards: CardContext, repos: list[dict[str, Any]]) -> RepoFiles:
    """The Space, with the release.json by which the rest of the release is found."""
    recipe, facts = cards.recipe, cards.facts
    files: Files = dict(space_files())
    requirements = _text(files["requirements.txt"])
    template = _text(files["README.md"])
    gradio = next(
        line.partition("==")[2].strip() for line in requirements.splitlines() if line.startswith("gradio==")
    )
    traces = {teacher: traces_repo(cards.recipe, teacher) for teacher in facts.teachers()}
    files["README.md"] = space_card(cards, template, [cards.evals, *traces.values()], gradio).encode()
    about = {
        "schema_version": 1,
        "recipe": recipe.name,
        "version": recipe.version,
        "description": recipe.description,
        "variants": _variants(facts),
        "traces": traces,
        "trace_revisions": {repo: cards.commits[repo] for repo in traces.values()},
        "collection": cards.collection,
        "problems": cards.problems if facts.kind("problems") else None,
        "evals": cards.evals,
        "revision": cards.commits[cards.evals],
        "models": dict(cards.models) | {n: m["model"] for n, m in cards.pinned.items() if "/" not in n},
        "revisions": {
            name: cards.commits[repo] for name, repo in cards.models.items() if repo in cards.commits
        },
        "pinned": {n: dict(m) for n, m in cards.pinned.items()},
        "repos": repos,
        "made": environment(),
        "system": recipe.students.system,
        "max_new_tokens": max(b.sampling.max_tokens for b in recipe.benchmarks),
    }
    files["release.json"] = (json.dumps(about, indent=2) + "\n").encode()
    return RepoFiles(cards.space, "space", files, "The students side by side")


def _variants(facts: Facts) -> list[dict[str, Any]]:
    """Returns the Space's data of each variant of all teachers, in the table's order."""
    mixed = [variant for variant in facts.recipe.variants() if variant.row.mixture]
    found = {
        v.name: v.published(teacher)
        for teacher in facts.teachers()
        for v in (*facts.variants(teacher), *mixed)
    }
    return sorted(found.values(), key=lambda variant: (variant["order"], variant["name"]))
