"""The card of a trace dataset."""

from __future__ import annotations

from collections.abc import Mapping

from hubkit.recipe.config import Recipe
from hubkit.release.cards.context import TAGS, CardContext, lineage
from hubkit.release.cards.evidence import alike, checked, disagreement, excerpts, histogram
from hubkit.release.columns import card_configs, dataset_info, size_category, variant_fields
from hubkit.release.results import Facts, variant_rows
from hubkit.release.text import markdown
from hubkit.store import Record
from hubkit.traces.compressors import Compressor
from hubkit.traces.origins import Origin
from hubkit.traces.variants import VARIANTS, Variant

__all__ = ["dataset_card"]


def dataset_card(
    context: CardContext, teacher: str, repo_id: str, sizes: Mapping[str, tuple[int, int]]
) -> str:
    """Card of a trace dataset. `sizes`: config -> (rows, bytes of its Arrow data) of the files pushed."""
    from huggingface_hub import DatasetCard, DatasetCardData

    recipe, facts = context.recipe, context.facts
    variants = facts.variants(teacher)
    data = DatasetCardData(
        pretty_name=f"{recipe.name}: reasoning traces of {teacher}",
        language=recipe.language,
        **recipe.card_license(),
        task_categories=["text-generation"],
        size_categories=size_category(sum(rows for rows, _ in sizes.values())),
        source_datasets=_sources(recipe, teacher),
        tags=[*TAGS, "chain-of-thought", "trace-compression"],
        configs=card_configs((v.name for v in variants), "train"),
        dataset_info=[
            dataset_info(v.name, v.row.schema, "train", *sizes[v.name], facts.records[step], "data.parquet")
            for v, step in variants.items()
        ],
    )
    origin = next(t for t in recipe.origins() if t.name == teacher)
    compressors = [c for c in recipe.compressors if c.name in {v.compressor for v in variants}]
    generator = origin.generator()
    described: list[Origin | Compressor] = [origin, *compressors]
    about = lineage(context, facts.records[variants[Variant("raw")]], _of_teacher(facts, teacher))
    asked = origin.came_from() or recipe.problems[recipe.train_on].describe()
    problems = None if origin.brings_problems else facts.records.get(f"problems/{recipe.train_on}")
    raw = facts.records[Variant("raw").step(teacher)]
    judged = {n: c for n, c in raw.counts.items() if n == "kept" or n.startswith("dropped_")}
    body = markdown(
        "dataset.md",
        {
            "title": data.pretty_name,
            "recipe": recipe,
            "teacher": origin,
            "judge": recipe.judge,
            "judges_itself": recipe.judge is not None
            and generator is not None
            and recipe.judge.model == generator.model,
            "compressors": compressors,
            "texts": {title: text for part in described for title, text in part.texts().items()},
            "forms": [{"name": v.name, "sentence": v.sentence(teacher)} for v in variants],
            "tokenizer": recipe.students.bases[0].name,
            "problems": sum(n for name, n in problems.counts.items() if name == "kept") if problems else 0,
            "source": asked,
            "claims": disagreement(facts, teacher),
            "variants": [row for row in variant_rows(facts) if row["teacher"] == teacher],
            "fields": variant_fields(variants),
            "rows": [row for row in context.rows if row["teacher"] in (teacher, None)],
            "examples": excerpts(facts, teacher),
            "histogram": histogram(facts, teacher),
            "checked": checked(facts),
            "alike": alike(facts),
            "places": context.places(),
            "made": raw.started[:10],
            "owner": recipe.hub.namespace,
            "rows_in_all": sum(rows for rows, _ in sizes.values()),
            "megabytes": sum(size for _, size in sizes.values()) / 1e6,
            "kept": judged.get("kept", 0),
            "written": sum(judged.values()),
            "citation": context.citation(repo_id, "dataset"),
            "links": context.links(),
            "about": about,
            "snippet": (
                "from datasets import load_dataset\n\n"
                f'traces = load_dataset("{repo_id}", "{next(iter(variants)).name}", split="train")\n'
                'print(traces[0]["messages"])'
            ),
        },
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _sources(recipe: Recipe, teacher: str) -> list[str]:
    """Where a trace dataset comes from: the traces that existed, or the problems that were answered."""
    origin = next(t for t in recipe.origins() if t.name == teacher)
    if origin.brings_problems:
        return [origin.hub_id() or "original"]
    return [recipe.problems[recipe.train_on].describe().dataset or "original"]


def _of_teacher(facts: Facts, teacher: str) -> dict[str, Record]:
    """Steps that a teacher's traces came from: those of the teacher, and those that are no teacher's."""
    own = ("traces", "judge", "verify", "selected", "compress", "control", *VARIANTS)
    return {
        name: record
        for name, record in facts.kind("problems", "contamination", *own).items()
        if record.kind not in own or f"{name}/".startswith(f"{record.kind}/{teacher}/")
    }
