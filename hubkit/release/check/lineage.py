"""Checks commits, files and records: published files are the steps' outputs, and the steps fit together.

provenance/steps/raw/nano-teacher.json {"key": "5f1c…", "inputs": {"problems": "9a…"}, "output": "77…",
"files": [{"path": "data.parquet", "sha256": "e1…"}]}
    the key is that of its configuration and inputs; each input is another step's output or a pinned model;
    the output is the digest of its files; and data/raw/… of the traces dataset is that file
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hubkit.errors import HubError
from hubkit.release.check.claims import Claims
from hubkit.release.check.published import LATER, Published, Repo, released_files
from hubkit.release.results import at_level
from hubkit.store import FileEntry, digest

__all__ = ["check_commits", "check_files", "check_records"]

_WRITTEN: Final = ("README.md", "adapter_config.json")
"""Files of a model that publishing writes: a card, and where the base is on the Hub."""


def check_commits(release: Published, claims: Claims) -> None:
    """Check that every repo is at the commit that the release left."""
    api = release.access.api()
    for repo in release.repos.values():
        released = repo.released
        assert released is not None, "all of these were listed"
        try:
            then = released_files(repo)
        except HubError as error:
            claims.wrong(repo.id, "commit", released.sha, error.message)
            continue
        refs = api.list_repo_refs(repo.id, repo_type=repo.type)
        tags = {ref.name: ref.target_commit for ref in refs.tags}
        claims.compare(repo.id, f"tag {released.tag}", released.sha, tags.get(released.tag, "no such tag"))
        changed = sorted(
            name
            for name in then.keys() | repo.files.keys()
            if then.get(name) != repo.files.get(name)
            and not (name.startswith(LATER) and name not in then)
            and not name.startswith(".check/")
        )
        if changed:
            claims.wrong(
                repo.id, "main", released.sha, f"changed since, at {repo.head[:12]}: {', '.join(changed)}"
            )
        else:
            claims.compare(repo.id, "main", len(then), len([n for n in then if n in repo.files]))


def check_records(release: Published, claims: Claims) -> None:
    """Check keys, outputs and inputs of all records."""
    outputs = {record.output for record in release.records.values()}
    models = {pin["revision"] for pin in release.manifest.pinned.values()}
    models |= {digest([e.model_dump() for e in entries]) for entries in release.manifests.values()}
    # Of models behind endpoints that are on no Hub (recipe/pins.py) only the name is known.
    models |= {digest({"served": reference.model}) for _, reference in release.recipe.references()}
    where = release.manifest.evals
    # A file of whoever made the release has no place on the Hub where it could be looked up.
    files = {n for n, pin in release.manifest.pinned.items() if "/" in n and not pin["revision"]}
    keys, sums, sources, brought = [], [], [], 0
    for name, record in release.records.items():
        parts = {"step": name, "version": record.version, "config": record.config, "inputs": record.inputs}
        if record.key != digest(parts):
            keys.append(name)
        if record.output != digest([entry.model_dump() for entry in record.files]):
            sums.append(name)
        for of, source in record.inputs.items():
            if of == "model:source" and "/".join(name.split("/")[:2]) in files:
                brought += 1
                continue
            known = models if of.startswith("model:") else outputs
            if source not in known:
                sources.append(f"{name}: {of}")
    n = len(release.records)
    claims.compare_rows(where, "keys of steps: their configuration and inputs", keys, n)
    claims.compare_rows(where, "outputs of steps: the digest of their files", sums, n)
    total = sum(len(record.inputs) for record in release.records.values()) - brought
    claims.compare_rows(where, "inputs of steps: outputs of others, pinned models", sources, total)
    if brought:
        claims.skip(
            where,
            "inputs of steps: files",
            f"{', '.join(sorted(files))} came from files that are not published",
        )


def check_files(release: Published, claims: Claims) -> None:
    """Check that every published file is as its step made it."""
    for repo_id, what, pairs in _made(release):
        repo = release.repos[repo_id]
        wrong, n = [], 0
        for name, expected in pairs:
            n += 1
            if name not in repo.files:
                wrong.append(f"{name} is missing")
            elif repo.digest(name) != expected:
                wrong.append(f"{name} is {repo.digest(name)[:12]}, not {expected[:12]}")
        wrong += [f"{name} was made by no step" for name in _strangers(repo, {name for name, _ in pairs})]
        claims.compare_rows(repo_id, f"{what}: sha256 of each file", wrong, n)


Pairs = list[tuple[str, str]]


def _made(release: Published) -> Iterator[tuple[str, str, Pairs]]:
    """(repo, what, [(published path, sha256 by the record)])."""
    manifest, records = release.manifest, release.records
    for repo in release.repos.values():
        if repo.type != "model":
            continue
        name = next(name for name, model in manifest.models.items() if model == repo.id)
        step = records.get(f"student/{name}")
        if step is not None:
            entries = [
                FileEntry(path=e.path.removeprefix("model/"), size=e.size, sha256=e.sha256)
                for e in step.files
                if e.path.startswith("model/")
            ]
            yield repo.id, "student", _model_pairs(repo, entries)
        elif name in release.manifests:
            yield repo.id, "model", _model_pairs(repo, release.manifests[name])
    for teacher, repo_id in manifest.traces.items():
        for variant, step_name in release.facts.variants(teacher).items():
            folder, files = f"data/{variant.name}/", records[step_name].files
            yield (
                repo_id,
                f"config {variant.name}",
                _data_pairs(release.repos[repo_id], folder, files, "data"),
            )
    for name, record in release.facts.kind("problems").items():
        folder = f"data/{name.partition('/')[2]}/"
        yield (
            release.problems.id,
            f"config {folder[5:-1]}",
            _data_pairs(release.problems, folder, record.files, "problems"),
        )
    for record in release.facts.kind("evaluation").values():
        sums = {e.path: e.sha256 for e in record.files}
        level = record.config.get("level", {}).get("value")
        about = f"{at_level(record.config['student'], level)} on {record.config['benchmark']['name']}"
        yield (
            manifest.evals,
            f"{about}: lighteval's files",
            [(n, sums[p]) for p, n in release.details(record)],
        )
    for record in release.facts.kind("report").values():
        yield manifest.evals, "report", [(e.path, e.sha256) for e in record.files]


def _model_pairs(repo: Repo, entries: list[FileEntry]) -> Pairs:
    made = {e.path: e.sha256 for e in entries}
    pairs = [(name, made[name]) for name in sorted(repo.files) if name in made and name not in _WRITTEN]
    # Weights must be there; training's own files and licences need not.
    return pairs + [(n, s) for n, s in made.items() if n.endswith(".safetensors") and n not in repo.files]


def _data_pairs(repo: Repo, folder: str, entries: list[FileEntry], stem: str) -> Pairs:
    """Published shards beside the step's, both in order; a shard too few on either side stands beside nothing."""
    made = [e.sha256 for e in entries if e.path.startswith(stem) and e.path.endswith(".parquet")]
    names = repo.below(folder)
    pairs = list(zip(names, made, strict=False))
    pairs += [(f"{folder}{n}", sha) for n, sha in enumerate(made[len(names) :])]
    return pairs + [(name, "no shard") for name in names[len(made) :]]


def _strangers(repo: Repo, known: set[str]) -> list[str]:
    """Files of a model's repo that no record has."""
    if repo.type != "model":
        return []
    return [n for n in repo.files if n not in known and n not in _WRITTEN and not n.startswith(LATER)]
