"""What a recipe takes from outside, pinned: models and datasets, by commit on the Hub or by content here."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from hubkit.errors import InputError, RecipeError
from hubkit.evaluation.tasks import TaskFacts
from hubkit.problems.base import Pin, beside
from hubkit.recipe.config import Recipe
from hubkit.section import REPO_ID, ModelRef
from hubkit.store import digest, digest_file, digest_folder, write_json

__all__ = ["Model", "pin_models", "recall", "served", "task_facts", "tokenizer_digests"]

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""What decides how a chat becomes tokens, and which of them end a turn. (The size of the embedding does, too.)"""


@dataclass(frozen=True)
class Model:
    """A model or dataset, pinned."""

    model: str
    """Folder, Hub id, the name of a file beside the recipe, or a name that a model has at its endpoint."""
    revision: str
    """Commit on the Hub; empty for what lies here."""
    digest: str


def pin_models(
    recipe: Recipe, folder: Path, root: Path, remember: bool = True
) -> tuple[dict[str, Model], dict[str, Pin]]:
    """Pin every model, and what problems come from. Returns the models, with datasets as
    problems/<set>, traces/<name> and, of lighteval tasks, benchmarks/<name>, and the pins of problem sets and
    existing traces.

    Commits are resolved once and remembered below `root`, so that a recipe that names a branch stays what it was.
    Without `remember` nothing is written.
    Raises RecipeError for what is not there, HubError when the Hub cannot tell.
    """
    tasks = task_facts(recipe, root, remember)
    pins = _Pins(root / "resolved.json", remember)
    models: dict[str, Model] = {}
    for name, reference in recipe.references():
        by_name = reference not in recipe.students.bases and _has_but_a_name(recipe, name, reference)
        model = served(reference.model) if by_name else _model(reference, folder, pins)
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
    for origin in recipe.traces:
        at = sources[f"traces/{origin.name}"] = origin.pin(
            folder, f"traces.{origin.name}", lambda repo, revision: pins.commit("dataset", repo, revision)
        )
        if at.digest:
            models[f"traces/{origin.name}"] = Model(at.where, at.revision, at.digest)
    for name, facts in tasks.items():
        commit = facts.revision or pins.commit("dataset", facts.dataset, "")
        models[f"benchmarks/{name}"] = Model(facts.dataset, commit, commit)
    return models, sources


def task_facts(recipe: Recipe, root: Path, remember: bool = True) -> dict[str, TaskFacts]:
    """Benchmark -> what the lighteval task that it names reads. Raises RecipeError for one that cannot be scored, or
    asked as the recipe says."""
    pins = _Pins(root / "resolved.json", remember)
    found = {b.name: pins.task(b.task) for b in recipe.benchmarks if b.task}
    for benchmark in recipe.benchmarks:
        wanted = found[benchmark.name].samples if benchmark.task else 1
        if wanted > 1 and not benchmark.samples and benchmark.sampling.temperature == 0:
            raise RecipeError(
                f"{benchmark.task!r} wants {wanted} answers to each problem, and greedy ones are one and the same",
                f"give the benchmark {benchmark.name!r} a sampling temperature, or `samples: 1`",
            )
    return found


def tokenizer_digests(
    recipe: Recipe, models: dict[str, Model], root: Path, remember: bool = True
) -> dict[str, str]:
    """Base -> digest of its tokenizer; bases that have the same one make the same tokens.

    That of a model on the Hub is fetched once. Raises HubError where it cannot be.
    """
    from hubkit.hub import download_tokenizer

    pins = _Pins(root / "resolved.json", remember)

    def of_folder(folder: Path) -> str:
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            rows = config.get("text_config", config).get("vocab_size")
        except (ValueError, AttributeError) as error:
            raise RecipeError(
                f"{folder.name}/config.json is not a model's: {error}", "check the file"
            ) from error
        files = {name: digest_file(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()}
        return digest({"files": files, "vocab_size": rows})

    result = {}
    for base in recipe.students.bases:
        model = models[base.name]
        if Path(model.model).is_dir():
            result[base.name] = of_folder(Path(model.model))
        else:
            result[base.name] = pins.remember(
                f"tokenizer/{model.model}@{model.revision}",
                lambda model=model: of_folder(download_tokenizer(model.model, model.revision)),  # type: ignore[misc]
            )
    return result


def recall(root: Path, remember: bool = False) -> Callable[[str, str, Callable[[], Any]], Any]:
    """Returns a function that is given what is looked up, at which commit, and how: it looks once.

    What a commit holds stays what it is: it is remembered with the commits. Without a commit, or where nothing is known
    (None), nothing is remembered beyond this process; without `remember` nothing is written.
    """
    pins, known = _Pins(root / "resolved.json", remember), dict[str, Any]()

    def look(what: str, commit: str, find: Callable[[], Any]) -> Any:
        name = f"{what}@{commit}"
        if name not in known:
            known[name] = json.loads(pins.known[name]) if name in pins.known else find()
            if commit and known[name] is not None:
                pins.remember(name, lambda: json.dumps(known[name]))
        return known[name]

    return look


class _Pins:
    """Commits that were resolved, in a file."""

    def __init__(self, path: Path, remember: bool) -> None:
        self._path, self._remember = path, remember
        try:
            self.known: dict[str, str] = (
                json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            )
        except ValueError as error:
            raise InputError(
                f"{path} is damaged: {error}", "delete it: commits are looked up again"
            ) from error

    def commit(self, kind: Literal["model", "dataset"], repo: str, revision: str) -> str:
        from hubkit.hub import resolve

        return self.remember(f"{kind}/{repo}@{revision}", lambda: resolve(repo, revision, kind))

    def task(self, task: str) -> TaskFacts:
        """What a lighteval task reads: to ask lighteval takes 10 to 20 s, so it is asked once per version."""
        import importlib.metadata

        def ask() -> str:
            from hubkit.evaluation.tasks import contained, describe

            with tempfile.TemporaryDirectory(prefix="hubkit-") as cache, contained(Path(cache)):
                return json.dumps(asdict(describe(task)))

        version = importlib.metadata.version("lighteval")
        values = json.loads(self.remember(f"lighteval {version}/{task}", ask))
        return TaskFacts(**values | {"splits": tuple(values["splits"])})

    def remember(self, name: str, find: Callable[[], str]) -> str:
        if name not in self.known:
            self.known[name] = find()
            if self._remember:
                write_json(self._path, self.known)
        return self.known[name]


def served(name: str) -> Model:
    """A model behind an endpoint that is on no Hub: nothing of it but its name is known, loaded or published."""
    return Model(name, "", digest({"served": name}))


def _has_but_a_name(recipe: Recipe, name: str, reference: ModelRef) -> bool:
    """Whether an endpoint serves it, under a name that is no Hub id and no folder."""
    asked = recipe.run.engine(name).engine == "openai"
    return asked and "/" not in reference.model and not reference.model.startswith(".")


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
