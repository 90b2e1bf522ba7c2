"""The card of the problems, and the lighteval task in it."""

from __future__ import annotations

from collections.abc import Mapping

from hubkit.evaluation.benchmark import Benchmark
from hubkit.records import PROBLEM_SCHEMA
from hubkit.release.cards.context import CardContext, lineage
from hubkit.release.cards.evidence import alike, checked
from hubkit.release.columns import MEANING, card_configs, dataset_info, size_category, type_name
from hubkit.release.text import markdown

__all__ = ["problems_card"]


def problems_card(
    context: CardContext, splits: Mapping[str, str], sizes: Mapping[str, tuple[int, int]]
) -> str:
    """Card of the problems. `splits`: set -> train or test; `sizes`: set -> (rows, bytes of its Arrow data)."""
    from huggingface_hub import DatasetCard, DatasetCardData

    recipe, facts = context.recipe, context.facts
    described = {name: source.describe() for name, source in recipe.problems.items()}
    tasks = [b for b in recipe.benchmarks if b.problems]
    data = DatasetCardData(
        pretty_name=f"{recipe.name}: problems",
        language=recipe.language,
        **recipe.card_license(),
        task_categories=["text-generation"],
        size_categories=size_category(sum(rows for rows, _ in sizes.values())),
        source_datasets=sorted({d.dataset or "original" for d in described.values()}),
        tags=["hubkit", "reasoning", *(["benchmark"] if tasks else [])],
        configs=[
            card_configs([name], split)[0] | {"default": n == 0}
            for n, (name, split) in enumerate(splits.items())
        ],
        dataset_info=[
            dataset_info(name, PROBLEM_SCHEMA, split, *sizes[name], None, "")
            for name, split in splits.items()
        ],
    )
    uses = {b.problems: f"evaluation, as {b.name}" for b in tasks} | {recipe.train_on: "training"}
    steps = facts.kind("problems", "contamination")
    first = next(iter(splits))
    body = markdown(
        "problems.md",
        {
            "title": data.pretty_name,
            "recipe": recipe,
            "places": context.places(),
            "sets": [
                {
                    "name": name,
                    "split": split,
                    "rows": sizes[name][0],
                    "source": described[name].text,
                    "license": described[name].license,
                    "use": uses.get(name, "nothing"),
                }
                for name, split in splits.items()
            ],
            "tasks": tasks,
            "checked": {n: c for n, c in checked(facts).items() if n in {b.problems for b in tasks}},
            "alike": alike(facts),
            "submit": "\n".join(
                f"hubkit submit org/model --task '{context.problems}#{b.name}'" for b in tasks
            ),
            "task": _lighteval_task(context.problems, tasks[0]) if tasks else "",
            "fields": [
                {"name": f.name, "type": type_name(f.type), "meaning": MEANING[f.name]}
                for f in PROBLEM_SCHEMA
            ],
            "about": lineage(context, next(iter(steps.values())), steps),
            "snippet": (
                "from datasets import load_dataset\n\n"
                f'problems = load_dataset("{context.problems}", "{first}", split="{splits[first]}")\n'
                'print(problems[0]["problem"], problems[0]["answer"])'
            ),
        },
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _lighteval_task(repo_id: str, benchmark: Benchmark) -> str:
    """A module for lighteval's --custom-tasks; nothing of hubkit is imported in it."""
    return (
        "from lighteval.metrics.metrics import Metrics\n"
        "from lighteval.tasks.lighteval_task import LightevalTaskConfig\n"
        "from lighteval.tasks.requests import Doc\n\n\n"
        "def prompt(line, task_name=None):\n"
        '    return Doc(task_name, query=line["problem"], choices=[line["answer"]], gold_index=0)\n\n\n'
        "TASKS_TABLE = [\n"
        "    LightevalTaskConfig(\n"
        f'        name="{benchmark.name}",\n'
        "        prompt_function=prompt,\n"
        f'        hf_repo="{repo_id}",\n'
        f'        hf_subset="{benchmark.problems}",\n'
        '        hf_avail_splits=["test"],\n'
        '        evaluation_splits=["test"],\n'
        f"        generation_size={benchmark.sampling.max_tokens},\n"
        "        metrics=[Metrics.expr_gold_metric],\n"
        "    )\n"
        "]"
    )
