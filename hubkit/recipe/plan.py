"""From a recipe to its plan: the steps, their configuration, and what ties them.

    recipe.yaml -> [problems/train, problems/test, contamination, traces/…, raw/…, …, report, publish]

Every model and dataset from outside is pinned on the way.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from hubkit.errors import RecipeError
from hubkit.problems import SOURCES
from hubkit.problems.base import Pin, beside
from hubkit.recipe import config as recipes
from hubkit.section import REPO_ID, prompt_sha
from hubkit.store import digest_folder, write_json

__all__ = ["FUNCTIONS", "Plan", "Step", "make_plan", "student_name"]

FUNCTIONS: Final = {
    "problems": "hubkit.problems.problems:run",
    "contamination": "hubkit.problems.contamination:run",
    "traces": "hubkit.traces.origins.teacher:run",
    "judge": "hubkit.traces.judge:run",
    "raw": "hubkit.traces.variants.raw:run",
    "compress": "hubkit.traces.variants.compressed:run",
    "compressed": "hubkit.traces.variants.compressed:merge",
    "truncated": "hubkit.traces.variants.truncated:run",
    "pairs": "hubkit.traces.matched:run",
    "student": "hubkit.students.student:run",
    "evaluation": "hubkit.evaluation.evaluation:run",
    "report": "hubkit.release.report:run",
    "publish": "hubkit.release.publish:run",
}


@dataclass(frozen=True)
class Step:
    """One cached unit of work. `name` begins with its kind: raw/nano-teacher."""

    name: str
    config: dict[str, Any]
    inputs: dict[str, str] = field(default_factory=dict)
    """Input name -> name of the step that makes it."""
    models: dict[str, str] = field(default_factory=dict)
    """Name that the step uses -> key of `Plan.models`."""
    runtime: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.name.split("/")[0]

    @property
    def version(self) -> int:
        """Of the code that makes it: of problems the source's, else the step's."""
        if self.kind == "problems":
            return SOURCES[self.config["source"]].VERSION
        return int(importlib.import_module(FUNCTIONS[self.kind].split(":")[0]).VERSION)


@dataclass(frozen=True)
class Model:
    """Something from outside, pinned: a model or dataset, by commit on the Hub or by content here."""

    model: str
    """Folder or Hub id."""
    revision: str
    digest: str


@dataclass(frozen=True)
class Plan:
    recipe: recipes.Recipe
    steps: list[Step]
    """Every step stands after its inputs."""
    models: dict[str, Model]
    pins: dict[str, Pin]
    """Problem set -> where its data is."""


def student_name(
    recipe: recipes.Recipe, teacher: str, base: str, variant: str, method: str, seed: int
) -> str:
    """<base>-<variant>-<method>; teachers and seeds after the first are named too.

    So adding a second seed or teacher to a recipe renames, and reruns, nothing.
    """
    prefix = "" if teacher == recipe.teachers[0].name else f"{teacher}-"
    suffix = "" if seed == recipe.students.seeds[0] else f"-seed{seed}"
    return f"{prefix}{base}-{variant}-{method}{suffix}"


def make_plan(recipe: recipes.Recipe, path: Path, root: Path) -> Plan:
    """All steps of a recipe. Raises RecipeError or HubError when a model or file is not there."""
    models, pins = _pin_models(recipe, path.parent, root)
    steps: list[Step] = []

    def add(name: str, config: dict[str, Any], **parts: Any) -> str:
        threads = recipe.run.threads_of(name.split("/")[0])
        common = {"device": recipe.run.device, "threads": threads}
        steps.append(Step(name, config, runtime=common | parts.pop("runtime", {}), **parts))
        return name

    def engine(name: str) -> dict[str, Any]:
        return {"engine": recipe.run.engine(name).model_dump(mode="json")}

    # What a step that asks the judge has besides its own; nothing without one, so that no identity changes.
    judging, judge_model, judge_engine = _judge(recipe)

    for name, source in recipe.problems.items():
        pin = pins[name]
        paths = {"source": pin.path} if pin.path else {}
        pinned = {"source": f"problems/{name}"} if pin.digest else {}
        add(f"problems/{name}", source.model_dump(mode="json"), paths=paths, models=pinned)
    tests = {b.problems: f"problems/{b.problems}" for b in recipe.benchmarks if b.problems}
    tasks = [b.task for b in recipe.benchmarks if b.task]
    contamination = add(
        "contamination",
        {"tasks": tasks} if tasks else {},
        inputs={"train": f"problems/{recipe.train_on}"} | tests,
    )

    tokenizer = {"tokenizer": recipe.students.bases[0].name}
    run = recipe.run
    training: dict[str, Any] = {"layout": run.layout, "tokens_per_device": run.tokens_per_device}
    training |= {"accelerate": run.accelerate} if run.accelerate else {}
    finished: dict[str, str] = {}
    for teacher in recipe.teachers:
        traces = {}
        for i in range(teacher.shards):
            config = teacher.model_dump(mode="json", exclude={"name", "model", "revision", "shards"})
            traces[f"shard-{i}"] = add(
                f"traces/{teacher.name}/{i}",
                {"teacher": teacher.name, "seed": recipe.seed, "shard": [i, teacher.shards], **config},
                inputs={"problems": f"problems/{recipe.train_on}"},
                models={"teacher": teacher.name},
                runtime=engine(teacher.name),
            )
        problems = {"problems": f"problems/{recipe.train_on}"}
        verdicts = {}
        for i in range(teacher.shards if judging else 0):
            verdicts[f"verdicts-{i}"] = add(
                f"judge/{teacher.name}/{i}",
                {"seed": recipe.seed, "shard": [i, teacher.shards], **judging},
                inputs=problems | {"traces": traces[f"shard-{i}"]},
                models=judge_model,
                runtime=judge_engine,
            )
        variants = {
            "raw": add(f"raw/{teacher.name}", {}, inputs=problems | traces | verdicts, models=tokenizer)
        }
        for compressor in recipe.compressors:
            wanted = [v for v in recipe.students.variants if v.endswith(f"-{compressor.name}")]
            if not wanted:
                continue
            shards = {}
            for i in range(compressor.shards):
                config = compressor.model_dump(mode="json", exclude={"name", "model", "revision", "shards"})
                shards[f"shard-{i}"] = add(
                    f"compress/{teacher.name}/{compressor.name}/{i}",
                    {
                        "compressor": compressor.name,
                        "prompt_sha": prompt_sha(compressor.prompt),
                        "seed": recipe.seed,
                        "shard": [i, compressor.shards],
                        **config,
                        **judging,
                    },
                    inputs=problems | {"raw": variants["raw"]},
                    models={"compressor": compressor.name} | tokenizer | judge_model,
                    runtime=engine(compressor.name) | judge_engine,
                )
            names = {"teacher": teacher.name, "compressor": compressor.name}
            short = add(
                f"compressed/{teacher.name}/{compressor.name}",
                names,
                inputs=shards | {"raw": variants["raw"]},
            )
            variants[f"compressed-{compressor.name}"] = short
            if f"truncated-{compressor.name}" in wanted:
                variants[f"truncated-{compressor.name}"] = add(
                    f"truncated/{teacher.name}/{compressor.name}",
                    names,
                    inputs={"raw": variants["raw"], "compressed": short},
                    models=tokenizer,
                )
        pairs = add(f"pairs/{teacher.name}", {"teacher": teacher.name}, inputs=variants)
        finished |= {name: name for name in variants.values()}

        for seed in recipe.students.seeds:
            for base in recipe.students.bases:
                template = base.model_dump(include={"chat_template"})
                for variant in recipe.students.variants:
                    for method, arguments in recipe.students.methods.items():
                        student = student_name(recipe, teacher.name, base.name, variant, method, seed)
                        config = {
                            "student": student,
                            "teacher": teacher.name,
                            "base": base.name,
                            "variant": variant,
                            "method": method,
                            "seed": seed,
                        }
                        trained = add(
                            f"student/{student}",
                            config
                            | template
                            | arguments.model_dump(mode="json")
                            | {
                                "max_cut_share": recipe.students.max_cut_share,
                                "system": recipe.students.system,
                            },
                            inputs={
                                "data": variants[variant],
                                "pairs": pairs,
                                "contamination": contamination,
                            },
                            models={"base": base.name},
                            runtime=training,
                        )
                        finished[trained] = trained
                        finished |= _evaluations(
                            recipe, add, engine, config | template, {"student": trained}, base.name
                        )
    nobody = {"teacher": None, "variant": None, "method": None, "seed": None}
    for base in recipe.students.bases:
        template = base.model_dump(include={"chat_template"})
        config = {"student": base.name, "base": base.name, **nobody, **template}
        finished |= _evaluations(recipe, add, engine, config, {}, base.name)

    about = {"recipe": recipe.name, "description": recipe.description}
    report = add("report", about, inputs=finished)
    everything = {step.name: step.name for step in steps if step.name != report}
    local = {m: m for m in models}
    config = {"recipe": recipe.model_dump(mode="json", exclude={"run"})}
    add("publish", config, inputs=everything | {"report": report}, models=local, paths={"hub": root / "hub"})
    return Plan(recipe, steps, models, pins)


def _judge(recipe: recipes.Recipe) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """Config, models and runtime of the judge in the steps that ask it."""
    judge = recipe.judge
    if judge is None:
        return {}, {}, {}
    config = {
        "judge": judge.name,
        "prompt_sha": prompt_sha(judge.prompt),
        **judge.model_dump(mode="json", include={"prompt", "sampling"}),
    }
    runtime = {"judge_engine": recipe.run.engine(judge.name).model_dump(mode="json")}
    return {"judge": config}, {"judge": judge.name}, runtime


def _evaluations(
    recipe: recipes.Recipe,
    add: Callable[..., str],
    engine: Callable[[str], dict[str, Any]],
    config: dict[str, Any],
    inputs: dict[str, str],
    base: str,
) -> dict[str, str]:
    names = {}
    for benchmark in recipe.benchmarks:
        problems = {"problems": f"problems/{benchmark.problems}"} if benchmark.problems else {}
        name = add(
            f"evaluation/{config['student']}/{benchmark.name}",
            {**config, "benchmark": benchmark.model_dump(mode="json"), "system": recipe.students.system},
            inputs=inputs | problems,
            models={"base": base},
            runtime=engine("students"),
        )
        names[name] = name
    return names


def _pin_models(recipe: recipes.Recipe, folder: Path, root: Path) -> tuple[dict[str, Model], dict[str, Pin]]:
    """Pin every model, and datasets that problems come from: folders by content, the Hub's by commit.

    Commits are resolved once and remembered, so that a recipe that names a branch stays what it was.
    """
    from hubkit.hub import resolve

    memory_file = root / "resolved.json"
    memory: dict[str, str] = json.loads(memory_file.read_text()) if memory_file.exists() else {}
    models: dict[str, Model] = {}

    def pin(kind: Literal["model", "dataset"], repo: str, revision: str) -> Model:
        name = f"{kind}/{repo}@{revision}"
        if name not in memory:
            memory[name] = resolve(repo, revision, kind)
            write_json(memory_file, memory)
        return Model(repo, memory[name], memory[name])

    named: list[recipes.Teacher | recipes.Judge | recipes.Compressor | recipes.Base] = [
        *recipe.teachers,
        *([recipe.judge] if recipe.judge else []),
        *recipe.compressors,
        *recipe.students.bases,
    ]
    for reference in named:
        if reference.model.startswith("."):
            place = beside(folder, reference.model, f"model of {reference.name}")
            for file in ("config.json", "tokenizer.json"):
                if not (place / file).is_file():
                    raise RecipeError(f"{reference.model} is no model: it has no {file}", "check the path")
            model = Model(str(place), "", digest_folder(place))
        elif not REPO_ID.match(reference.model):
            raise RecipeError(
                f"{reference.model!r} is no Hub id", "write org/name, or ./folder for a local one"
            )
        else:
            model = pin("model", reference.model, reference.revision)
        if models.get(reference.name, model) != model:
            raise RecipeError(f"two models are called {reference.name!r}", "give each its own name")
        models[reference.name] = model
    pins = {}
    for name, source in recipe.problems.items():
        at = pins[name] = source.pin(
            folder, f"problems.{name}", lambda repo, revision: pin("dataset", repo, revision).digest
        )
        if at.digest:
            models[f"problems/{name}"] = Model(at.where, at.revision, at.digest)
    return models, pins
