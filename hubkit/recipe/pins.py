"""What a recipe takes from outside, pinned: models and datasets, by commit on the Hub or by content here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hubkit.errors import RecipeError
from hubkit.problems.base import Pin, beside
from hubkit.recipe.config import Recipe
from hubkit.section import REPO_ID, ModelRef
from hubkit.store import digest_folder, write_json

__all__ = ["Model", "pin_models"]


@dataclass(frozen=True)
class Model:
    """A model or dataset, pinned."""

    model: str
    """Folder, Hub id, or the name of a file beside the recipe."""
    revision: str
    """Commit on the Hub; empty for what lies here."""
    digest: str


def pin_models(recipe: Recipe, folder: Path, root: Path) -> tuple[dict[str, Model], dict[str, Pin]]:
    """Pin every model, and what problems come from. Returns the models, with datasets as problems/<set>, and the
    pins of the problem sets.

    Commits are resolved once and remembered below `root`, so that a recipe that names a branch stays what it was.
    Raises RecipeError for what is not there, HubError when the Hub cannot tell.
    """
    pins = _Pins(root / "resolved.json")
    models: dict[str, Model] = {}
    for name, reference in recipe.references():
        model = _model(reference, folder, pins)
        if models.get(name, model) != model:
            raise RecipeError(f"two models are called {name!r}", "give each its own name")
        models[name] = model
    sources: dict[str, Pin] = {}
    for name, source in recipe.problems.items():
        at = sources[name] = source.pin(
            folder, f"problems.{name}", lambda repo, revision: pins.commit("dataset", repo, revision)
        )
        if at.digest:
            models[f"problems/{name}"] = Model(at.where, at.revision, at.digest)
    return models, sources


class _Pins:
    """Commits that were resolved, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}

    def commit(self, kind: Literal["model", "dataset"], repo: str, revision: str) -> str:
        from hubkit.hub import resolve

        name = f"{kind}/{repo}@{revision}"
        if name not in self._known:
            self._known[name] = resolve(repo, revision, kind)
            write_json(self._path, self._known)
        return self._known[name]


def _model(reference: ModelRef, folder: Path, pins: _Pins) -> Model:
    if reference.model.startswith("."):
        place = beside(folder, reference.model, f"model {reference.model}")
        for file in ("config.json", "tokenizer.json"):
            if not (place / file).is_file():
                raise RecipeError(f"{reference.model} is no model: it has no {file}", "check the path")
        return Model(str(place), "", digest_folder(place))
    if not REPO_ID.match(reference.model):
        raise RecipeError(f"{reference.model!r} is no Hub id", "write org/name, or ./folder for a local one")
    commit = pins.commit("model", reference.model, reference.revision)
    return Model(reference.model, commit, commit)
