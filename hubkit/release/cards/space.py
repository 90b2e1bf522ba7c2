"""The card of the Space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hubkit.release.cards.context import CardContext
from hubkit.release.results import Facts
from hubkit.release.text import markdown

__all__ = ["space_card"]

_ON_CPU: Final = 700_000_000
"""Parameters of a student that still writes some tokens a second on two processors."""


def space_card(context: CardContext, card: str, datasets: Iterable[str], sdk_version: str) -> str:
    """The Space's README: the YAML of `card` (spaces/compare/README.md) filled in for this release."""
    from huggingface_hub import SpaceCard, SpaceCardData

    recipe = context.recipe
    title = f"{recipe.name}: students side by side"
    data: dict[str, Any] = dict(SpaceCard(card).data.to_dict())  # type: ignore[no-untyped-call]
    data |= {
        "title": title,
        "license": recipe.license,
        "sdk_version": sdk_version,
        "models": list(context.models.values()),
        "datasets": list(datasets),
        "tags": ["hubkit", "reasoning", "distillation"],
        # The first student and its base come with the image: those that the Space asks first.
        "preload_from_hub": list(
            dict.fromkeys(
                context.models[name]
                for record in list(context.facts.kind("student").values())[:1]
                for name in (record.config["base"], record.config["student"])
                if name in context.models
            )
        ),
        "suggested_hardware": _hardware(context.facts),
    }
    values = {
        "title": title,
        "recipe": recipe,
        "places": context.places(),
    }
    return str(SpaceCard(f"---\n{SpaceCardData(**data).to_yaml()}\n---\n\n{markdown('space.md', values)}"))


def _hardware(facts: Facts) -> str:
    """What the Space's students need to answer: two processors for small ones, else a GPU for the while (ZeroGPU)."""
    sizes = [record.metrics.get("parameters") or 0 for record in facts.kind("student").values()]
    return "zero-a10g" if max(sizes, default=0) > _ON_CPU else "cpu-basic"
