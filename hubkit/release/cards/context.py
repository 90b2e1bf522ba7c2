"""Shared parts of all cards of a release: names, links, results, and the lineage at the end of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import yaml
from markupsafe import Markup

from hubkit.hub import RepoType, repo_path
from hubkit.recipe.config import Recipe
from hubkit.release.cards.evidence import beside_raw, citation
from hubkit.release.levels import obedience
from hubkit.release.manifest import PROVENANCE
from hubkit.release.results import Facts, Row, paired_tests, student_rows
from hubkit.store import Record

__all__ = ["BADGE", "REPORT", "TAGS", "CardContext", "lineage"]

REPORT: Final = ".check/report.md"
BADGE: Final = ".check/badge.svg"
"""Of the evaluations dataset, where `release check --push` leaves them. A dot file stays when a release is pushed
again."""
_SLUG: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TAGS: Final = ["hubkit", "synthetic", "reasoning", "distillation"]


@dataclass(frozen=True)
class CardContext:
    """Shared data of all cards of a release."""

    recipe: Recipe
    facts: Facts
    endpoint: str
    """Address of the Hub for links; "" for a local Hub, whose address changes: links are then relative."""
    problems: str
    """Repo id of the problems."""
    evals: str
    """Repo id of the evaluations."""
    space: str
    models: Mapping[str, str]
    """Student, base, teacher or compressor -> repo id."""
    commits: dict[str, str] = field(default_factory=dict)
    """Repo id -> commit, for pinned and already pushed repos."""
    collection: str = ""
    """Slug of the release's collection."""
    pinned: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Models and datasets from outside: name -> {"model": Hub id, "revision": commit}; only those on the Hub."""

    @cached_property
    def rows(self) -> list[Row]:
        """Results of all students and bases, each beside the student on raw traces that it is compared with."""
        return beside_raw(student_rows(self.facts), paired_tests(self.facts), self.facts)

    @cached_property
    def levels(self) -> list[Row]:
        """How mixtures answer at their levels of effort."""
        return obedience(self.facts, paired_tests(self.facts))

    def citation(self, repo_id: str, repo_type: RepoType = "model") -> str:
        """BibTeX of the release that a repo belongs to, and of the paper."""
        recipe = self.recipe
        address = f"{self.endpoint or 'a local Hub'}/{repo_path(repo_id, repo_type)}"
        year = max(record.started for record in self.facts.records.values())[:4]
        return citation(recipe.name, recipe.hub.namespace, recipe.version, year, address)

    @property
    def local(self) -> bool:
        return not self.endpoint

    def link(self, repo_id: str, repo_type: RepoType = "model") -> Markup:
        # Recipe and repo names are checked patterns, the endpoint is the one the requests go to.
        return Markup(f"{self.endpoint}/{repo_path(repo_id, repo_type)}")  # noqa: S704

    def commit_of(self, name: str, where: str) -> str:
        """Commit of a model by its name in the recipe: of one repo a recipe may take several. `where`: its repo id."""
        return self.pinned.get(name, {}).get("revision") or self.commits.get(where, "")

    def places(self) -> dict[str, Any]:
        """Where the rest of the release is, for the templates."""
        recipe, evals = self.recipe, self.link(self.evals, "dataset")
        slug = self.collection if _SLUG.fullmatch(self.collection) else ""
        return {
            "release": f"{recipe.hub.namespace}/{recipe.name}",
            "problems": self.problems,
            "problems_link": self.link(self.problems, "dataset") if recipe.problems else "",
            "evals": self.evals,
            "evals_link": evals,
            "space": self.space,
            "space_link": self.link(self.space, "space"),
            "collection_link": Markup(f"{self.endpoint}/collections/{slug}") if slug else "",  # noqa: S704
            "recipe_link": Markup(f"{evals}/blob/main/{PROVENANCE}/recipe.json"),  # noqa: S704
            "check_link": Markup(f"{evals}/blob/main/{REPORT}"),  # noqa: S704
            "badge_link": Markup(f"{evals}/resolve/main/{BADGE}"),  # noqa: S704
        }

    def links(self) -> dict[str, Markup]:
        return {name: self.link(repo) for name, repo in self.models.items()}


def lineage(context: CardContext, record: Record, steps: Mapping[str, Record]) -> dict[str, Any]:
    """Lineage: the recipe, everything from outside with its commit, the steps, the versions."""
    recipe = context.recipe
    settings = recipe.model_dump(mode="json", exclude={"run"})
    sources = []
    for name, reference in dict(recipe.references()).items():
        where = context.models.get(name, reference.model)
        revision = context.commit_of(name, where)
        sources.append({"name": name, "where": where, "revision": revision})
    for origin in recipe.origins():
        if came := origin.came_from():
            name = f"traces/{origin.name}"
            revision = context.pinned.get(name, {}).get("revision", "")
            where = came.dataset or came.link or came.text
            sources.append({"name": name, "where": where, "revision": revision, "license": came.license})
    for name, pin in context.pinned.items():
        if name.startswith("benchmarks/"):
            sources.append({"name": name, "where": pin["model"], "revision": pin["revision"]})
    for name, source in recipe.problems.items():
        about = source.describe()
        if where := about.dataset or about.link:
            pin = context.pinned.get(f"problems/{name}", {})
            sources.append(
                {
                    "name": f"problems/{name}",
                    "where": where,
                    "revision": pin.get("revision", ""),
                    "license": about.license,
                }
            )
    return {
        "recipe": recipe,
        "yaml": yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100),
        "sources": sources,
        "steps": [
            {"name": name, "key": r.key[:16], "output": r.output[:16], "counts": r.counts}
            for name, r in steps.items()
        ],
        "python": record.environment.get("python", ""),
        "platform": record.environment.get("platform", ""),
        "packages": record.environment.get("packages", {}),
        "git_sha": record.environment.get("git_sha", ""),
        "local": context.local,
    }
