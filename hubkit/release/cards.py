"""Cards: the README.md of every repo of a release, rendered from the records of its steps and nothing else.

    Record(step="raw/nano-teacher", counts={"kept": 870, "dropped_wrong": 91}, …)
        -> "| raw | 870 | … | wrong 91 |" in the dataset's card

The YAML on top goes through huggingface_hub's card classes; the text below it through the templates
beside this file, which escape every value: a recipe's description, a model's name or a prompt may hold anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import yaml
from markupsafe import Markup

from hubkit.evaluation.benchmark import Benchmark
from hubkit.hub import RepoType, repo_path
from hubkit.recipe.config import Recipe
from hubkit.records import PROBLEM_SCHEMA
from hubkit.release.columns import (
    MEANING,
    OUTPUTS_SCHEMA,
    card_configs,
    dataset_info,
    size_category,
    type_name,
    variant_fields,
)
from hubkit.release.details import configs as details_configs
from hubkit.release.evidence import beside_raw, citation, examples, histogram, question
from hubkit.release.headline import headline
from hubkit.release.results import (
    RESULTS_SCHEMA,
    Facts,
    Row,
    over_seeds,
    paired_tests,
    student_rows,
    variant_rows,
)
from hubkit.release.text import markdown
from hubkit.store import Record
from hubkit.students.settings import method_card
from hubkit.traces.compressors import Compressor
from hubkit.traces.origins import Origin
from hubkit.traces.variants import VARIANTS, Variant

__all__ = [
    "CardContext",
    "dataset_card",
    "evals_card",
    "model_card",
    "problems_card",
    "space_card",
    "student_card",
]

_ON_CPU: Final = 700_000_000
"""Parameters of a student that still writes some tokens a second on two processors."""
_TAGS: Final = ["hubkit", "synthetic", "reasoning", "distillation"]


@dataclass(frozen=True)
class CardContext:
    """What all cards of a release share."""

    recipe: Recipe
    facts: Facts
    endpoint: str
    """Address of the Hub for links; "" for a local one, whose address changes: links are then relative to it."""
    problems: str
    """Repo id of the problems."""
    evals: str
    """Repo id of the evaluations."""
    space: str
    models: Mapping[str, str]
    """Student, base, teacher or compressor -> repo id."""
    commits: dict[str, str] = field(default_factory=dict)
    """Repo id -> commit, for what is pinned or already pushed."""
    pinned: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What came from outside: name -> {"model": Hub id, "revision": commit}; only what is on the Hub."""

    @cached_property
    def rows(self) -> list[Row]:
        """Results of all students and bases, each beside the student on raw traces that it is compared with."""
        return beside_raw(student_rows(self.facts), paired_tests(self.facts), self.facts)

    def citation(self, repo_id: str, repo_type: RepoType = "model") -> str:
        """BibTeX of the release that a repo belongs to, and of the paper."""
        recipe = self.recipe
        address = f"{self.endpoint or 'a local Hub'}/{repo_path(repo_id, repo_type)}"
        return citation(recipe.name, recipe.hub.namespace, recipe.version, address)

    @property
    def local(self) -> bool:
        return not self.endpoint

    def link(self, repo_id: str, repo_type: RepoType = "model") -> Markup:
        # Recipe and repo names are checked patterns, the endpoint is the one the requests go to.
        return Markup(f"{self.endpoint}/{repo_path(repo_id, repo_type)}")  # noqa: S704

    def links(self) -> dict[str, Markup]:
        return {name: self.link(repo) for name, repo in self.models.items()}


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
        license=recipe.license,
        task_categories=["text-generation"],
        size_categories=size_category(sum(rows for rows, _ in sizes.values())),
        source_datasets=_sources(recipe, teacher),
        tags=[*_TAGS, "chain-of-thought", "trace-compression"],
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
    about = _about(context, facts.records[variants[Variant("raw")]], _of_teacher(facts, teacher))
    asked = None if origin.brings_problems else recipe.problems[recipe.train_on].describe()
    problems = facts.records.get(f"problems/{recipe.train_on}") if asked else None
    raw = facts.records[variants[Variant("raw")]]
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
            "claims": {n: c for n, c in raw.counts.items() if n.startswith("claimed_")},
            "variants": [row for row in variant_rows(facts) if row["teacher"] == teacher],
            "fields": variant_fields(variants),
            "rows": [row for row in context.rows if row["teacher"] in (teacher, None)],
            "examples": examples(facts, teacher),
            "histogram": histogram(facts, teacher),
            "checked": facts.records["contamination"].metrics if "contamination" in facts.records else {},
            "problems_repo": context.problems,
            "problems_link": context.link(context.problems, "dataset"),
            "space": context.space,
            "space_link": context.link(context.space, "space"),
            "citation": context.citation(repo_id, "dataset"),
            "links": context.links(),
            "evals": context.evals,
            "evals_link": context.link(context.evals, "dataset"),
            "about": about,
            "snippet": (
                "from datasets import load_dataset\n\n"
                f'traces = load_dataset("{repo_id}", "{next(iter(variants)).name}", split="train")\n'
                'print(traces[0]["messages"])'
            ),
        },
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def student_card(
    context: CardContext, student: str, base_id: str, dataset_id: str, tokenizer_id: str | None = None
) -> str:
    """Card of a student. Its base and dataset are named by repo id, with the commits in `context.commits`."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    recipe, facts = context.recipe, context.facts
    record = facts.records[f"student/{student}"]
    config, repo_id = record.config, context.models[student]
    method = method_card(config)
    lora = method.adapter
    rows = context.rows
    results = [
        EvalResult(
            task_type="text-generation",
            task_name=f"accuracy on {row['benchmark']}",
            dataset_type=context.evals,
            dataset_name=f"{recipe.name} {row['benchmark']}",
            dataset_config="outputs",
            dataset_split="test",
            metric_type=kind,
            metric_name=name,
            metric_value=row[column],
            source_name=None if context.local else "problem by problem",
            source_url=None if context.local else str(context.link(context.evals, "dataset")),
        )
        for row in rows
        if row["student"] == student
        for kind, name, column in (
            ("accuracy", "accuracy", "accuracy"),
            ("mean_output_tokens", "mean output tokens", "mean_output_tokens"),
        )
    ]
    data = ModelCardData(
        base_model=base_id,
        base_model_relation=method.relation,
        datasets=[dataset_id],
        language=recipe.language,
        license=recipe.license,
        library_name=method.library,
        pipeline_tag="text-generation",
        tags=[*_TAGS, *method.tags],
        model_name=repo_id.partition("/")[2],
        eval_results=results or None,
    )
    arguments = {name: config[name] for name in ("sft", "lora") if config.get(name)}
    names = [facts.variant(config["variant"]).step(config["teacher"]), f"matched/{config['teacher']}"]
    names += [f"student/{student}"]
    names += [n for n, r in facts.kind("evaluation").items() if r.config["student"] == student]
    steps = {name: facts.records[name] for name in names if name in facts.records}
    body = markdown(
        "model.md",
        _model_values(context)
        | {
            "title": repo_id.partition("/")[2],
            "name": student,
            "student": config,
            "lora": lora,
            "base": next(b for b in recipe.students.bases if b.name == config["base"]),
            "base_id": base_id,
            "base_link": context.link(base_id),
            "base_sha": context.commits.get(base_id, ""),
            "dataset": dataset_id,
            "dataset_link": context.link(dataset_id, "dataset"),
            "dataset_sha": context.commits.get(dataset_id, ""),
            "metrics": record.metrics,
            "arguments": yaml.safe_dump(arguments, sort_keys=False, allow_unicode=True),
            "rows": rows,
            "about": _about(context, record, steps),
            "snippet": _snippet(
                context, student, repo_id, lora, tokenizer_id or repo_id, config.get("system", "")
            ),
            "citation": context.citation(repo_id),
        },
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def model_card(context: CardContext, name: str, role: str) -> str:
    """Card of a model that the recipe brought along as a folder: a base, a teacher, a compressor."""
    from huggingface_hub import ModelCard, ModelCardData

    recipe, repo_id = context.recipe, context.models[name]
    data = ModelCardData(
        language=recipe.language,
        license=recipe.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["hubkit", "reasoning", "distillation"],
    )
    record = next(iter(context.facts.records.values()))
    rows = [row for row in context.rows if row["student"] == name]
    body = markdown(
        "model.md",
        _model_values(context)
        | {
            "title": repo_id.partition("/")[2],
            "name": name,
            "role": role,
            "rows": rows,
            "about": _about(context, record, {}),
            "snippet": _snippet(
                context, name, repo_id, False, repo_id, recipe.students.system if rows else ""
            ),
            "citation": context.citation(repo_id),
        },
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


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
        license=recipe.license,
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
    checked = facts.records["contamination"].metrics if "contamination" in facts.records else {}
    first = next(iter(splits))
    body = markdown(
        "problems.md",
        {
            "title": data.pretty_name,
            "recipe": recipe,
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
            "checked": {n: c for n, c in checked.items() if n in {b.problems for b in tasks}},
            "submit": "\n".join(
                f"hubkit submit org/model --task '{context.problems}#{b.name}'" for b in tasks
            ),
            "task": _lighteval_task(context.problems, tasks[0]) if tasks else "",
            "fields": [
                {"name": f.name, "type": type_name(f.type), "meaning": MEANING[f.name]}
                for f in PROBLEM_SCHEMA
            ],
            "about": _about(context, next(iter(steps.values())), steps),
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
    schemas = {"outputs": OUTPUTS_SCHEMA, "results": RESULTS_SCHEMA}
    evaluations = facts.kind("evaluation")
    first = next(iter(evaluations.values()))
    evals_link = context.link(context.evals, "dataset")
    data = DatasetCardData(
        pretty_name=f"{recipe.name}: evaluations",
        language=recipe.language,
        license=recipe.license,
        task_categories=["text-generation"],
        size_categories=size_category(sizes["outputs"][0]),
        tags=[*_TAGS, "evaluation", "lighteval"],
        configs=[
            *card_configs(schemas, "test"),
            *(config for name, paths in details.items() for config in details_configs(paths, f"{name}_")),
        ],
        dataset_info=[
            dataset_info(name, schema, "test", *sizes[name], None, "") for name, schema in schemas.items()
        ],
    )
    rows = context.rows
    origins = {row["student"]: row["origin"] for row in rows}
    body = markdown(
        "evals.md",
        {
            "title": data.pretty_name,
            "recipe": recipe,
            "students": list(origins.values()).count("student"),
            "bases": list(origins.values()).count("base"),
            "plot": plot,
            "headline": headline(rows, paired_tests(facts)),
            "rows": rows,
            "groups": over_seeds(rows),
            "details": next(
                (c["config_name"] for n, paths in details.items() for c in details_configs(paths, f"{n}_")),
                "",
            ),
            "release": f"{recipe.hub.namespace}/{recipe.name}",
            "space": context.space,
            "space_link": context.link(context.space, "space"),
            "citation": context.citation(context.evals, "dataset"),
            "check_link": Markup(f"{evals_link}/blob/main/.check/report.md"),  # noqa: S704
            "links": context.links(),
            "benchmarks": recipe.benchmarks,
            "checked": facts.records["contamination"].metrics if "contamination" in facts.records else {},
            "fields": [
                {"config": name, "name": f.name, "type": type_name(f.type), "meaning": MEANING[f.name]}
                for name, schema in schemas.items()
                for f in schema
            ],
            "about": _about(context, first, evaluations),
            "snippet": (
                "from datasets import load_dataset\n\n"
                f'outputs = load_dataset("{context.evals}", "outputs", split="test")\n'
                'print(outputs[0]["student"], outputs[0]["correct"], outputs[0]["output"])'
            ),
        },
    )
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


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
        "evals": context.evals,
        "evals_link": context.link(context.evals, "dataset"),
    }
    return str(SpaceCard(f"---\n{SpaceCardData(**data).to_yaml()}\n---\n\n{markdown('space.md', values)}"))


def _hardware(facts: Facts) -> str:
    """What the Space's students need to answer: two processors for small ones, else a GPU for the while (ZeroGPU)."""
    sizes = [record.metrics.get("parameters") or 0 for record in facts.kind("student").values()]
    return "zero-a10g" if max(sizes, default=0) > _ON_CPU else "cpu-basic"


def _model_values(context: CardContext) -> dict[str, Any]:
    return {
        "recipe": context.recipe,
        "student": None,
        "lora": False,
        "links": context.links(),
        "evals": context.evals,
        "evals_link": context.link(context.evals, "dataset"),
        "space": context.space,
        "space_link": context.link(context.space, "space"),
        "checked": {
            b.name: facts.records["contamination"].metrics.get(b.task or b.problems or "")
            for b in context.recipe.benchmarks
            if "contamination" in (facts := context.facts).records
        },
    }


def _snippet(
    context: CardContext, name: str, repo_id: str, lora: bool, tokenizer_id: str, system: str
) -> str:
    """Python that asks the model a problem of a benchmark, one that it is known to get right where there is any."""
    loader, module = (
        ("AutoPeftModelForCausalLM", "peft") if lora else ("AutoModelForCausalLM", "transformers")
    )
    imports = (
        f"from {module} import {loader}\nfrom transformers import AutoTokenizer"
        if lora
        else "from transformers import AutoModelForCausalLM, AutoTokenizer"
    )
    asked = question(context.facts, name)
    text = asked.problem if asked else "What is 47 + 38?"
    messages = [{"role": "system", "content": system}] if system else []
    says = ""
    if asked:
        verdict = "it gets this one right" if asked.right else "it got none right, nor this one"
        says = f"  # of {asked.benchmark}, answer {asked.answer[:80]!r}: {verdict}"
    limit = asked.max_tokens if asked else 512
    return (
        f"{imports}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{tokenizer_id}")\n'
        f'model = {loader}.from_pretrained("{repo_id}")\n'
        f"messages = {[*messages, {'role': 'user', 'content': text}]!r}{says}\n"
        "inputs = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n'
        ")\n"
        f"output = model.generate(**inputs, max_new_tokens={limit}, do_sample=False)\n"
        'print(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :]))'
    )


def _sources(recipe: Recipe, teacher: str) -> list[str]:
    """Where a trace dataset comes from: the traces that existed, or the problems that were answered."""
    origin = next(t for t in recipe.origins() if t.name == teacher)
    if origin.brings_problems:
        return [origin.hub_id() or "original"]
    return [recipe.problems[recipe.train_on].describe().dataset or "original"]


def _of_teacher(facts: Facts, teacher: str) -> dict[str, Record]:
    """Steps that a teacher's traces came from: those of the teacher, and those that are no teacher's."""
    own = ("traces", "judge", "compress", *VARIANTS)
    return {
        name: record
        for name, record in facts.kind("problems", "contamination", *own).items()
        if record.kind not in own or f"{name}/".startswith(f"{record.kind}/{teacher}/")
    }


def _about(context: CardContext, record: Record, steps: Mapping[str, Record]) -> dict[str, Any]:
    """Lineage: the recipe, everything from outside with its commit, the steps, the versions."""
    recipe = context.recipe
    settings = recipe.model_dump(mode="json", exclude={"run"})
    sources = []
    for name, reference in dict(recipe.references()).items():
        where = context.models.get(name, reference.model)
        revision = context.pinned.get(name, {}).get("revision") or context.commits.get(where, "")
        sources.append({"name": name, "where": where, "revision": revision})
    for origin in recipe.origins():
        if hub_id := origin.hub_id():
            revision = context.pinned.get(f"traces/{origin.name}", {}).get("revision", "")
            sources.append({"name": f"traces/{origin.name}", "where": hub_id, "revision": revision})
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
