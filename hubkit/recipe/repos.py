"""Names of the repos that a release makes, and whether the Hub takes them.

nano in the namespace local -> local/nano-problems, local/nano-traces, local/nano-s, local/nano-s-raw-full, …,
                               local/nano-evals, local/nano-compare
"""

from __future__ import annotations

from collections.abc import Iterator

from hubkit.recipe.config import Recipe
from hubkit.section import AtKey

__all__ = ["check_repos", "evals_repo", "model_repo", "problems_repo", "space_repo", "traces_repo"]


def traces_repo(recipe: Recipe, teacher: str) -> str:
    """Returns the dataset of a teacher's traces; the name contains the teacher's, except for the first."""
    return _repo(recipe, "traces" if teacher == recipe.origins()[0].name else f"{teacher}-traces")


def model_repo(recipe: Recipe, name: str) -> str:
    """Returns the model repo of a student, or of a model beside the recipe."""
    return _repo(recipe, name)


def problems_repo(recipe: Recipe) -> str:
    """Returns the dataset of all sets of problems; a benchmark if students are evaluated on one of them."""
    return _repo(recipe, "problems")


def evals_repo(recipe: Recipe) -> str:
    return _repo(recipe, "evals")


def space_repo(recipe: Recipe) -> str:
    return _repo(recipe, "compare")


def _repo(recipe: Recipe, name: str) -> str:
    return f"{recipe.hub.namespace}/{recipe.name}-{name}"


def check_repos(recipe: Recipe) -> None:
    """Raise AtKey for the first repo whose name the Hub refuses, or that two repos share."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(recipe.hub.namespace)
    except HFValidationError as error:
        raise AtKey(_said(error, recipe.hub.namespace), "hub", "namespace") from None
    seen: set[str] = set()
    for repo, keys in _repos(recipe):
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            of_recipe = any(mark in f"{recipe.name}-" for mark in ("--", "..", ".-"))
            raise AtKey(_said(error, repo), *(("name",) if of_recipe else keys)) from None
        if repo in seen:
            raise AtKey(f"two repos of the release would be called {repo}", *keys)
        seen.add(repo)


def _repos(recipe: Recipe) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Yield every repo, and the keys that it is named after."""
    yield problems_repo(recipe), ("name",)
    yield evals_repo(recipe), ("name",)
    yield space_repo(recipe), ("name",)
    for index, teacher in enumerate(recipe.origins()):
        yield traces_repo(recipe, teacher.name), ("teachers", index, "name")
    keys_of: dict[str, tuple[str | int, ...]] = {recipe.judge.name: ("judge", "name")} if recipe.judge else {}
    for index, compressor in enumerate(recipe.compressors):
        keys_of[compressor.name] = ("compressors", index, "name")
    for index, teacher in enumerate(recipe.origins()):
        keys_of[teacher.name] = ("teachers", index, "name")
    for index, base in enumerate(recipe.students.bases):
        keys_of[base.name] = ("students", "bases", index, "name")
    # One model may be both teacher and base. Models on the Hub are not published again.
    for name in dict.fromkeys(name for name, model in recipe.references() if model.model.startswith(".")):
        yield model_repo(recipe, name), keys_of[name]
    for student in recipe.grid():
        yield model_repo(recipe, student.name), ("students",)


def _said(error: Exception, name: str) -> str:
    short = name.rpartition("/")[2]
    if len(short) > 96:
        return f"the Hub takes no repo name longer than 96 characters, and {short} has {len(short)}"
    return f"the Hub does not take the name {name}: " + str(error).splitlines()[0].split(f": '{name}'")[0]
