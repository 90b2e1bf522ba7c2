"""The report's names of the repos of a release, before anything is published."""

from __future__ import annotations

from typing import Any

from hubkit.hub import RepoType, repo_path
from hubkit.recipe.repos import evals_repo, model_repo, problems_repo, space_repo, traces_repo
from hubkit.release.results import Facts

__all__ = ["repos"]


def repos(facts: Facts) -> list[dict[str, Any]]:
    """What the report points to: {"id", "what", "url"}; `url` is "" on a local Hub, whose address changes."""
    recipe = facts.recipe
    named: list[tuple[str, RepoType, str]] = [
        (traces_repo(recipe, teacher), "dataset", f"traces of {teacher}") for teacher in facts.teachers()
    ]
    if recipe.problems:
        what = ", as a benchmark" if any(b.problems for b in recipe.benchmarks) else ""
        named.append((problems_repo(recipe), "dataset", f"problems{what}"))
    named += [
        (evals_repo(recipe), "dataset", "outputs and results"),
        (space_repo(recipe), "space", "the Space"),
    ]
    named += [
        (model_repo(recipe, name.partition("/")[2]), "model", "student") for name in facts.kind("student")
    ]
    local = recipe.hub.endpoint == "local"
    found = []
    for repo_id, kind, what in named:
        url = "" if local else f"{recipe.hub.endpoint.rstrip('/')}/{repo_path(repo_id, kind)}"
        found.append({"id": repo_id, "what": what, "url": url})
    return found
