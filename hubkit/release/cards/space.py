"""The card of the Space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hubkit.release.cards.context import CardContext
from hubkit.release.results import Facts, student_rows
from hubkit.release.text import markdown
from hubkit.traces.variants import VARIANTS

__all__ = ["space_card"]

_ON_CPU: Final = 700_000_000
"""Maximum parameters of a student that still writes some tokens per second on two cores."""


def space_card(context: CardContext, card: str, datasets: Iterable[str], sdk_version: str) -> str:
    """The Space's README: the YAML of `card` (spaces/compare/README.md) filled in for this release."""
    from huggingface_hub import SpaceCard, SpaceCardData

    recipe = context.recipe
    title = f"{recipe.name}: students side by side"
    data: dict[str, Any] = dict(SpaceCard(card).data.to_dict())  # type: ignore[no-untyped-call]
    data |= recipe.card_license() | {
        "title": title,
        "sdk_version": sdk_version,
        "models": list(context.models.values()),
        "datasets": list(datasets),
        "tags": ["hubkit", "reasoning", "distillation"],
        "preload_from_hub": _asked_first(context),  # they come with the image
        "suggested_hardware": _hardware(context.facts),
    }
    values = {
        "title": title,
        "recipe": recipe,
        "places": context.places(),
    }
    return str(SpaceCard(f"---\n{SpaceCardData(**data).to_yaml()}\n---\n\n{markdown('space.md', values)}"))


def _asked_first(context: CardContext) -> list[str]:
    """Returns the repos of the models that the Space asks first: a raw and a compressed student, and their base."""
    rows = [row for row in student_rows(context.facts) if row["origin"] == "student"]
    alike = ("teacher", "base", "method", "seed")
    raw = next((row for row in rows if row["kind"] == "raw"), next(iter(rows), None))
    if raw is None:
        return []
    pair = [row for row in rows if all(row[name] == raw[name] for name in alike)]
    chosen = [row for row in pair if row is raw or VARIANTS[row["kind"]].compressed]
    names = [
        name for row in chosen[:2] for name in ([row["base"]] if row["adapter"] else []) + [row["student"]]
    ]
    repos = [context.models.get(name) or context.pinned.get(name, {}).get("model", "") for name in names]
    return [*dict.fromkeys(filter(None, repos))]


def _hardware(facts: Facts) -> str:
    """Returns the hardware of the Space: two CPUs for small students, else a GPU during answers (ZeroGPU)."""
    sizes = [record.metrics.get("parameters") or 0 for record in facts.kind("student").values()]
    return "zero-a10g" if max(sizes, default=0) > _ON_CPU else "cpu-basic"
