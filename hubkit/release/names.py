"""Names of the repos of a release: what the recipe decides before anything is published."""

from __future__ import annotations

from typing import Any

from hubkit.hub import RepoType, repo_path
from hubkit.recipe.config import Recipe
from hubkit.release.results import Facts

__all__ = ["repos", "traces_name"]


def traces_name(recipe: Recipe, teacher: str) -> str:
    """Repo id of a teacher's traces; the first teacher's bear no name."""
    middle = "" if teacher == recipe.teachers[0].name else f"{teacher}-"
    return f"{recipe.hub.namespace}/{recipe.name}-{middle}traces"


def repos(facts: Facts) -> list[dict[str, Any]]:
    """What the report points to: {"id", "what", "url"}; `url` is "" on a local Hub, whose address changes."""
    recipe = facts.recipe
    prefix = f"{recipe.hub.namespace}/{recipe.name}"
    named: list[tuple[str, RepoType, str]] = [
        (traces_name(recipe, teacher), "dataset", f"traces of {teacher}") for teacher in facts.teachers()
    ]
    named += [
        (f"{prefix}-evals", "dataset", "outputs and results"),
        (f"{prefix}-compare", "space", "the Space"),
    ]
    named += [(f"{prefix}-{name.partition('/')[2]}", "model", "student") for name in facts.kind("student")]
    local = recipe.hub.endpoint == "local"
    found = []
    for repo_id, kind, what in named:
        url = "" if local else f"{recipe.hub.endpoint.rstrip('/')}/{repo_path(repo_id, kind)}"
        found.append({"id": repo_id, "what": what, "url": url})
    return found
