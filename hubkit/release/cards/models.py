"""The cards of models: students, and models that the recipe brings as folders."""

from __future__ import annotations

from typing import Any

import yaml

from hubkit.release.cards.context import TAGS, CardContext, lineage
from hubkit.release.cards.evidence import checked, question
from hubkit.release.results import at_level
from hubkit.release.text import markdown
from hubkit.students.settings import method_arguments, method_card

__all__ = ["model_card", "student_card"]


def student_card(
    context: CardContext, student: str, base_id: str, dataset_id: str, tokenizer_id: str | None = None
) -> str:
    """Returns the card of a student. Its base and dataset are named by repo id, with commits from `context.commits`."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    recipe, facts = context.recipe, context.facts
    record = facts.records[f"student/{student}"]
    config, repo_id = record.config, context.models[student]
    method = method_card(config)
    lora = method.adapter
    rows = context.rows
    variant = facts.variant(config["variant"])
    results = [
        EvalResult(
            task_type="text-generation",
            task_name=f"accuracy on {row['benchmark']}",
            dataset_type=context.evals,
            dataset_name=f"{recipe.name} {row['benchmark']}",
            # Results of one dataset and configuration are put under one name by huggingface_hub, the first one's.
            dataset_config=row["benchmark"],
            dataset_split="test",
            metric_type=kind,
            metric_name=at_level(name, row.get("level")),
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
        **recipe.card_license(),
        library_name=method.library,
        pipeline_tag="text-generation",
        tags=[*TAGS, *method.tags],
        model_name=repo_id.partition("/")[2],
        eval_results=results or None,
    )
    made = facts.variants(config["teacher"])
    taught = [(part.level, facts.variant(part.variant)) for part in variant.parts] or [("", variant)]
    names = [*(made[one] for _, one in taught), f"matched/{config['teacher']}"]
    names += [f"student/{student}"]
    names += [n for n, r in facts.kind("evaluation").items() if r.config["student"] == student]
    steps = {name: facts.records[name] for name in names if name in facts.records}
    body = markdown(
        "model.md",
        _model_values(context)
        | {
            "unverified": not next(o for o in recipe.origins() if o.name == config["teacher"]).is_verified,
            "title": repo_id.partition("/")[2],
            "name": student,
            "student": config,
            "taught": [{"level": level, "variant": one.name} for level, one in taught],
            "variable": variant.variable,
            "levels": [row for row in context.levels if row["student"] == student],
            "lora": lora,
            "base": next(b for b in recipe.students.bases if b.name == config["base"]),
            "base_id": base_id,
            "base_link": context.link(base_id),
            "base_sha": context.commit_of(config["base"], base_id),
            "dataset": dataset_id,
            "dataset_link": context.link(dataset_id, "dataset"),
            "dataset_sha": context.commits.get(dataset_id, ""),
            "metrics": record.metrics,
            "arguments": yaml.safe_dump(method_arguments(config), sort_keys=False, allow_unicode=True),
            "rows": rows,
            "about": lineage(context, record, steps),
            "snippet": _snippet(
                context, student, repo_id, lora, tokenizer_id or repo_id, config.get("system", "")
            ),
            "citation": context.citation(repo_id),
        },
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def model_card(context: CardContext, name: str, role: str) -> str:
    """Returns the card of a model that the recipe brings as a folder: a base, a teacher, a compressor."""
    from huggingface_hub import ModelCard, ModelCardData

    recipe, repo_id = context.recipe, context.models[name]
    task = next((c.task for c in recipe.compressors if c.name == name), "text-generation")
    data = ModelCardData(
        language=recipe.language,
        **recipe.card_license(),
        library_name="transformers",
        pipeline_tag=task,
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
            "levels": [],
            "role": role,
            "rows": rows,
            "about": lineage(context, record, {}),
            "snippet": _snippet(
                context, name, repo_id, False, repo_id, recipe.students.system if rows else ""
            )
            if task == "text-generation"
            else "from transformers import pipeline\n\n"
            f'print(pipeline("{task}", model="{repo_id}")("So 47 + 38 = 85."))',
            "citation": context.citation(repo_id),
        },
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _model_values(context: CardContext) -> dict[str, Any]:
    return {
        "recipe": context.recipe,
        "unverified": False,
        "student": None,
        "lora": False,
        "links": context.links(),
        "places": context.places(),
        "checked": {
            b.name: checked(context.facts).get(b.task or b.problems or "") for b in context.recipe.benchmarks
        },
    }


def _snippet(
    context: CardContext, name: str, repo_id: str, lora: bool, tokenizer_id: str, system: str
) -> str:
    """Returns Python that asks the model a problem of a benchmark, if possible one that it got right."""
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
        if asked.right and asked.temperature:
            verdict = f"it got this one right when drawn at temperature {asked.temperature:g}"
        says = f"  # of {asked.benchmark}, answer {asked.answer[:80]!r}: {verdict}"
    level = "".join(
        f", {variable}={value!r}" for variable, value in (asked.template if asked else {}).items()
    )
    limit = asked.max_tokens if asked else 512
    return (
        f"{imports}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{tokenizer_id}")\n'
        f'model = {loader}.from_pretrained("{repo_id}")\n'
        f"messages = {[*messages, {'role': 'user', 'content': text}]!r}{says}\n"
        "inputs = tokenizer.apply_chat_template(\n"
        f'    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True{level}\n'
        ")\n"
        f"output = model.generate(**inputs, max_new_tokens={limit}, do_sample=False)\n"
        'print(tokenizer.decode(output[0][inputs["input_ids"].shape[1] :]))'
    )
