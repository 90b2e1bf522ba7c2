"""The card of the evaluations dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hubkit.release.cards.context import TAGS, CardContext, lineage
from hubkit.release.cards.evidence import checked
from hubkit.release.columns import (
    COUNTED,
    MEANING,
    card_configs,
    dataset_info,
    outputs_schema,
    size_category,
    type_name,
)
from hubkit.release.details import configs as details_configs
from hubkit.release.headline import headline
from hubkit.release.results import paired_tests, results_schema
from hubkit.release.seeds import over_seeds, seed_tests
from hubkit.release.text import markdown

__all__ = ["evals_card"]


def evals_card(
    context: CardContext,
    sizes: Mapping[str, tuple[int, int]],
    details: Mapping[str, Iterable[str]],
    plot: bool,
) -> str:
    """Card of the evaluations dataset. `details`: details_<org>__<model> -> paths of its files, as lighteval lays
    them out."""
    from huggingface_hub import DatasetCard, DatasetCardData

    recipe, facts = context.recipe, context.facts
    schemas = {"outputs": outputs_schema(facts), "results": results_schema(facts)}
    meanings = {"outputs": MEANING, "results": COUNTED}
    evaluations = facts.kind("evaluation")
    first = next(iter(evaluations.values()))
    data = DatasetCardData(
        pretty_name=f"{recipe.name}: evaluations",
        language=recipe.language,
        **recipe.card_license(),
        task_categories=["text-generation"],
        size_categories=size_category(sizes["outputs"][0]),
        tags=[*TAGS, "evaluation", "lighteval"],
        configs=[
            *card_configs(schemas, "test"),
            *(config for name, paths in details.items() for config in details_configs(paths, f"{name}_")),
        ],
        dataset_info=[
            dataset_info(name, schema, "test", *sizes[name], None, "") for name, schema in schemas.items()
        ],
    )
    rows, levels, of_seeds = context.rows, context.levels, seed_tests(facts)
    origins = {row["student"]: row["origin"] for row in rows}
    body = markdown(
        "evals.md",
        {
            "title": data.pretty_name,
            "recipe": recipe,
            "students": list(origins.values()).count("student"),
            "bases": list(origins.values()).count("base"),
            "plot": plot,
            "headline": headline(rows, paired_tests(facts) + of_seeds, levels),
            "levels": levels,
            "rows": rows,
            "groups": over_seeds(facts, rows),
            "seed_tests": of_seeds,
            "several_teachers": len(facts.teachers()) > 1,
            "details": next(
                (c["config_name"] for n, paths in details.items() for c in details_configs(paths, f"{n}_")),
                "",
            ),
            "places": context.places(),
            "citation": context.citation(context.evals, "dataset"),
            "links": context.links(),
            "benchmarks": recipe.benchmarks,
            "checked": checked(facts),
            "fields": [
                {"config": name, "name": f.name, "type": type_name(f.type), "meaning": meanings[name][f.name]}
                for name, schema in schemas.items()
                for f in schema
            ],
            "about": lineage(context, first, evaluations),
            "snippet": (
                "from datasets import load_dataset\n\n"
                f'outputs = load_dataset("{context.evals}", "outputs", split="test")\n'
                'print(outputs[0]["student"], outputs[0]["correct"], outputs[0]["output"])'
            ),
        },
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))
