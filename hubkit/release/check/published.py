"""Fetches a published release: the current state of its repos, and the records of their steps.

"local/nano" -> the Space local/nano-compare, its release.json -> every repo's files with their sha256
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from hubkit.errors import HubError, InputError
from hubkit.hub import Access, RepoType, attempt, download_file, download_model, download_tokenizer
from hubkit.recipe.config import Recipe
from hubkit.records import EVALUATION_SCHEMA, SAMPLED_SCHEMA, part_of, read_rows, write_rows
from hubkit.release.details import details_folder
from hubkit.release.manifest import PROVENANCE, Manifest, PublishedRepo
from hubkit.release.results import Facts
from hubkit.section import is_repo_id
from hubkit.store import FileEntry, Record, digest
from hubkit.traces.variants import VARIANTS

__all__ = ["Published", "Repo", "asked_of", "fetch", "look"]

SPACE: Final = "-compare"
_IGNORED: Final = (".gitattributes",)
LATER: Final = (".check/", ".eval_results/")
"""Files that may be added to a repo after its release: reports of checks, and results that others submitted."""
_STEP: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


@dataclass
class Repo:
    """A repo at its main branch, and the commit that the release left."""

    access: Access
    id: str
    type: RepoType
    released: PublishedRepo | None
    head: str
    files: dict[str, str]
    """Path -> git id of its content."""
    sha256: dict[str, str]
    """Path -> sha256, for large files: the Hub names their content by it."""

    def path(self, name: str) -> Path:
        """A file of main, downloaded."""
        return download_file(self.id, name, self.type, self.head, self.access)

    def digest(self, name: str) -> str:
        """sha256 of a file of main; small files are downloaded for it."""
        if name not in self.sha256:
            self.sha256[name] = hashlib.sha256(self.path(name).read_bytes()).hexdigest()
        return self.sha256[name]

    def below(self, folder: str) -> list[str]:
        return sorted(name for name in self.files if name.startswith(folder))


Asked = tuple[str, str, str | None]
"""Student or base, benchmark, and the level of effort that a mixture was asked at."""


def asked_of(config: Mapping[str, Any]) -> Asked:
    """Returns the student, benchmark and level that an evaluation's configuration names."""
    return config["student"], config["benchmark"]["name"], config.get("level", {}).get("value")


@dataclass
class Published:
    """A whole release."""

    access: Access
    name: str
    manifest: Manifest
    repos: dict[str, Repo]
    recipe: Recipe
    records: dict[str, Record]
    """Step name -> its record."""
    manifests: dict[str, list[FileEntry]]
    """Model that the recipe brings as a folder -> the folder's files."""
    work: Path
    _outputs: dict[Asked, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def evals(self) -> Repo:
        return self.repos[self.manifest.evals]

    @property
    def problems(self) -> Repo:
        return self.repos[self.manifest.problems or ""]

    @cached_property
    def space(self) -> Repo:
        return look(self.access, f"{self.name}{SPACE}", "space")

    @cached_property
    def facts(self) -> Facts:
        """The run as far as it is published: what the cards were rendered from. Folders of steps whose outputs
        are published hold them again."""
        return Facts(self.recipe, _Folders(self), self.records)

    def tokenizer(self) -> Path:
        """Folder of the tokenizer that lengths are counted by: the first base's."""
        return self.model(self.recipe.students.bases[0].name, weights=False)

    def model(self, name: str, weights: bool = True) -> Path:
        """Folder of a student, base or teacher as published."""
        own = self.repos.get(self.manifest.models.get(name, ""))
        if own is not None:  # a base of the Hub has a name there, and is none of the release's repos
            repo_id, revision = own.id, own.head
        elif name in self.manifest.pinned:
            pin = self.manifest.pinned[name]
            repo_id, revision = pin["model"], pin["revision"]
        else:
            raise InputError(f"release.json names no model {name!r}", "publish the release again")
        download = download_model if weights else download_tokenizer
        return download(repo_id, revision, self.access)

    def outputs(self) -> dict[Asked, list[dict[str, Any]]]:
        """(student, benchmark, level) -> rows of the config `outputs`, in their published order."""
        if not self._outputs:
            for name in self.evals.below("data/outputs/"):
                for row in read_rows(self.evals.path(name)):
                    key = (row["student"], row["benchmark"], row.get("level"))
                    self._outputs.setdefault(key, []).append(row)
        return self._outputs

    def details(self, record: Record) -> list[tuple[str, str]]:
        """(path in an evaluation's output, path in the evaluations dataset) of what lighteval wrote."""
        student = record.config["student"]
        model = self.manifest.models.get(student) or self.manifest.pinned[student]["model"]
        folder = details_folder(model, asked_of(record.config)[2])
        found = []
        for entry in record.files:
            name = entry.path.rpartition("/")[2]
            date = name.removesuffix(".parquet").rpartition("_")[2]
            if (
                entry.path.startswith("details/")
                and name.startswith("details_")
                and name.endswith(".parquet")
            ):
                found.append((entry.path, f"{folder}/{date}/{name}"))
                found.append(("results.json", f"{folder}/results_{date}.json"))
        return found


class _Folders(Mapping[str, Path]):
    """Step name -> a folder with that step's published files, made when it is asked for."""

    def __init__(self, release: Published) -> None:
        self._release, self._made = release, {}  # type: tuple[Published, dict[str, Path]]

    def __getitem__(self, step: str) -> Path:
        if step not in self._made:
            record = self._release.records[step]
            # A digest, since a step's name comes from outside.
            folder = self._release.work / "steps" / digest(step)[:16]
            folder.mkdir(parents=True, exist_ok=True)
            _restore(self._release, step, record, folder)
            self._made[step] = folder
        return self._made[step]

    def __iter__(self) -> Iterator[str]:
        return iter(self._release.records)

    def __len__(self) -> int:
        return len(self._release.records)


def _restore(release: Published, step: str, record: Record, folder: Path) -> None:
    """Put a step's published files into a folder, under the names that the step gave them."""
    manifest = release.manifest
    sources: list[tuple[Repo, str, str]] = []
    if record.kind == "problems":
        names = release.problems.below(f"data/{step.partition('/')[2]}/")
        sources = _parts(release.problems, names, "problems.parquet")
    elif record.kind in (*VARIANTS, "selected"):
        for teacher, repo_id in manifest.traces.items():
            for variant, name in release.facts.variants(teacher).items():
                if name == step:
                    repo = release.repos[repo_id]
                    files = repo.below(f"data/{variant.name}/")
                    sources = _parts(repo, files, variant.row.file)
    elif record.kind == "evaluation":
        _write_samples(release, record, folder / "samples.parquet")
        sources = [
            (release.evals, name, path)
            for path, name in release.details(record)
            if name in release.evals.files
        ]
    elif record.kind == "report":
        sources = [(release.evals, e.path, e.path) for e in record.files if e.path in release.evals.files]
    for repo, name, target in sources:
        link = folder / target
        if not link.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"the record of {step} names a file outside of it: {target[:80]!r}", "")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(repo.path(name).resolve())


def _parts(repo: Repo, names: list[str], table: str) -> list[tuple[Repo, str, str]]:
    """Published files of a split, which are the parts of a step's table."""
    return [(repo, name, part_of(Path(table), number, len(names)).name) for number, name in enumerate(names)]


def _write_samples(release: Published, record: Record, path: Path) -> None:
    """One evaluation's rows of the config `outputs`."""
    config = record.config
    wanted = asked_of(config)
    if not path.exists():
        several = config["benchmark"].get("samples", 1) > 1
        schema = SAMPLED_SCHEMA if several else EVALUATION_SCHEMA
        write_rows(path, release.outputs().get(wanted, []), schema)


def look(access: Access, repo_id: str, repo_type: RepoType, released: PublishedRepo | None = None) -> Repo:
    """A repo's files at its main branch."""
    api = access.api()
    info: Any = attempt(
        access,
        f"look up {repo_type} {repo_id}",
        lambda: api.repo_info(repo_id, repo_type=repo_type, files_metadata=True),
        patient=False,
    )
    kept = [s for s in info.siblings or [] if s.rfilename not in _IGNORED]
    return Repo(
        access,
        repo_id,
        repo_type,
        released,
        str(info.sha),
        {s.rfilename: str(s.blob_id) for s in kept},
        {s.rfilename: str(s.lfs.sha256) for s in kept if s.lfs},
    )


def fetch(access: Access, name: str, work: Path) -> Published:
    """Find a release by its name (org/recipe) and read its manifest and records.

    Raises HubError if a repo does not exist, InputError for a release without the records that a check needs.
    """
    if not is_repo_id(name, owned=True):
        raise InputError(f"{name!r} is no release", "write namespace/recipe, such as local/nano")
    space = look(access, f"{name}{SPACE}", "space")
    manifest = Manifest.read(space.path("release.json").read_text(encoding="utf-8"))
    repos = {repo.id: look(access, repo.id, repo.type, repo) for repo in manifest.repos}
    for needed in (manifest.evals, manifest.problems, *manifest.traces.values()):
        if needed and needed not in repos:
            raise InputError(f"release.json does not list {needed}", "publish the release again")
    evals = repos[manifest.evals]
    names = evals.below(f"{PROVENANCE}/")
    if f"{PROVENANCE}/recipe.json" not in names:
        raise InputError(
            f"{evals.id} has no {PROVENANCE}/recipe.json", "publish the release again with this hubkit"
        )
    try:
        recipe = Recipe.model_validate_json(
            evals.path(f"{PROVENANCE}/recipe.json").read_text(encoding="utf-8")
        )
    except ValueError as error:
        raise InputError(
            f"the recipe of {evals.id} cannot be read: {str(error).splitlines()[0]}", ""
        ) from None
    return Published(
        access, name, manifest, repos, recipe, _records(evals, names), _manifests(evals, names), work
    )


def _records(evals: Repo, names: list[str]) -> dict[str, Record]:
    records = {}
    folder = f"{PROVENANCE}/steps/"
    for name in names:
        if not name.startswith(folder):
            continue
        step = name.removeprefix(folder).removesuffix(".json")
        try:
            record = Record.model_validate_json(evals.path(name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{name} of {evals.id} is no record: {str(error).splitlines()[0]}", "") from None
        if record.step != step or not _STEP.fullmatch(step) or step.partition("/")[0] != record.kind:
            raise InputError(f"{name} of {evals.id} is the record of {record.step[:80]!r}", "")
        records[step] = record
    if not records:
        raise InputError(f"{evals.id} has no records of steps", "publish the release again with this hubkit")
    order = json.loads(evals.path(f"{PROVENANCE}/order.json").read_text(encoding="utf-8"))
    if not isinstance(order, list) or set(order) != set(records):
        raise InputError(
            f"{PROVENANCE}/order.json of {evals.id} lists other steps than there are records of", ""
        )
    return {step: records[step] for step in order}


def _manifests(evals: Repo, names: list[str]) -> dict[str, list[FileEntry]]:
    folder, found = f"{PROVENANCE}/models/", {}
    for name in names:
        if name.startswith(folder):
            try:
                rows = json.loads(evals.path(name).read_text(encoding="utf-8"))
                entries = [FileEntry.model_validate(row) for row in rows]
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"{name} of {evals.id} cannot be read: {str(error).splitlines()[0]}", ""
                ) from None
            found[name.removeprefix(folder).removesuffix(".json")] = entries
    return found


def released_files(repo: Repo) -> Mapping[str, str]:
    """Files of a repo at the commit that the release left. Raises HubError where that is gone."""
    released = repo.released
    if released is None:
        return repo.files
    api = repo.access.api()
    info: Any = attempt(
        repo.access,
        f"look up {repo.type} {repo.id} at {released.sha[:12]}",
        lambda: api.repo_info(repo.id, repo_type=repo.type, revision=released.sha, files_metadata=True),
        patient=False,
    )
    if str(info.sha) != released.sha:
        raise HubError(f"{repo.id} has no commit {released.sha}", "")
    return {s.rfilename: str(s.blob_id) for s in info.siblings or [] if s.rfilename not in _IGNORED}
