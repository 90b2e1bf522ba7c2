"""Pins what a recipe takes from outside: models and datasets, by commit on the Hub or by content on this machine."""

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
from hubkit.section import ModelRef, is_repo_id
from hubkit.store import digest, digest_file, digest_folder, write_json

__all__ = ["Model", "pin_models", "recall", "served", "task_facts", "tokenizer_digests"]

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Files that decide how a chat becomes tokens, and which tokens end a turn. (The embedding's size matters, too.)"""


@dataclass(frozen=True)
class Model:
    """A model or dataset, pinned."""

    model: str
    """Folder, Hub id, name of a file beside the recipe, or a model's name at its endpoint."""
    revision: str
    """Commit on the Hub; empty for local files."""
    digest: str


def pin_models(
    recipe: Recipe, folder: Path, root: Path, remember: bool = True
) -> tuple[dict[str, Model], dict[str, Pin]]:
    """Pin every model and every source of problems and traces. Returns the models (datasets are among them, as
    problems/<set>, traces/<name> and, for lighteval tasks, benchmarks/<name>), and the pins of problem sets and
    existing traces.

    Commits are resolved once and remembered below `root`, so that a recipe that names a branch does not change.
    Without `remember` nothing is written.
    Raises RecipeError for a model or dataset that does not exist, HubError if the Hub does not answer.
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
    """Returns benchmark -> facts of its lighteval task. Raises RecipeError for a task that cannot be scored, or not
    asked as the recipe says."""
    pins = _Pins(root / "resolved.json", remember)
    found = {b.name: pins.task(b.task) for b in recipe.benchmarks if b.task}
    for benchmark in recipe.benchmarks:
        wanted = found[benchmark.name].samples if benchmark.task else 1
        if wanted > 1 and not benchmark.samples and benchmark.sampling.temperature == 0:
            raise RecipeError(
                f"{benchmark.task!r} takes {wanted} answers to each problem, and greedy answers are all the same",
                f"give the benchmark {benchmark.name!r} a sampling temperature, or `samples: 1`",
            )
    return found


def tokenizer_digests(
    recipe: Recipe, models: dict[str, Model], root: Path, remember: bool = True
) -> dict[str, str]:
    """Returns base -> digest of its tokenizer; bases with the same digest make the same tokens.

    A tokenizer on the Hub is fetched once. Raises HubError if it cannot be fetched.
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
    """Returns a function of (name, commit, how to look it up) that looks each value up once.

    The content of a commit never changes, so values are remembered with the commits. Without a commit, or for a value
    of None, nothing is remembered beyond this process; without `remember` nothing is written.
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
        """Returns the facts of a lighteval task. Asking lighteval takes 10 to 20 s, so it is asked once per version."""
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
    """A model behind an endpoint that is on no Hub: only its name is known, and nothing is loaded or published."""
    return Model(name, "", digest({"served": name}))


def _has_but_a_name(recipe: Recipe, name: str, reference: ModelRef) -> bool:
    """Whether an endpoint serves the model under a name that is neither a Hub id nor a folder."""
    asked = recipe.run.engine(name).engine == "openai"
    return asked and "/" not in reference.model and not reference.model.startswith(".")


def _model(reference: ModelRef, folder: Path, pins: _Pins) -> Model:
    if reference.model.startswith("."):
        place = beside(folder, reference.model, f"model {reference.model}")
        for file in ("config.json", "tokenizer.json"):
            if not (place / file).is_file():
                raise RecipeError(f"{reference.model} is no model: it has no {file}", "check the path")
        return Model(str(place), "", digest_folder(place))
    if not is_repo_id(reference.model):
        raise RecipeError(f"{reference.model!r} is no Hub id", "write org/name, or ./folder for a local one")
    commit = pins.commit("model", reference.model, reference.revision)
    return Model(reference.model, commit, commit)
