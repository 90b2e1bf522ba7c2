"""From a recipe to its plan: the steps, their configuration, and their inputs.

    recipe.yaml -> [problems/train, problems/test, contamination, traces/…, raw/…, …, report, publish]

`make_plan` follows the paper's method section, one function per stage. Every model and dataset from outside is pinned
first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from hubkit.problems.base import Pin
from hubkit.problems.contamination import TRAINING, Decontamination
from hubkit.recipe.config import Base, Recipe, Student
from hubkit.recipe.graph import Builder, Plan
from hubkit.recipe.pins import pin_models, task_facts, tokenizer_digests
from hubkit.recipe.steps import STEPS
from hubkit.store import digest
from hubkit.traces.compressors import Compressor
from hubkit.traces.origins import Origin
from hubkit.traces.variants import Variant

__all__ = ["make_plan"]

MANY: Final = 4
"""From this number of shards on, the traces of a teacher are also verified and cut in shards, and a compressor's shards
are contiguous rows of raw instead of every n-th row. One shard of tokens, which uses all its cores, is made for every
MANY shards of traces. Fewer shards run well on one machine; their keys stay valid."""


def make_plan(recipe: Recipe, path: Path, root: Path, remember: bool = True) -> Plan:
    """Returns all steps of a recipe. Raises RecipeError or HubError if a model or file does not exist.

    `path` is the recipe's file, `root` the folder of its runs. Without `remember` nothing is written there: commits
    on the Hub that are not known yet are looked up again next time.
    """
    models, pins = pin_models(recipe, path.parent, root, remember)
    build = Builder(
        recipe,
        models,
        pins,
        tokenizer_digests(recipe, models, root, remember),
        task_facts(recipe, root, remember),
    )
    _problems(build)
    traces_of = {origin.name: _traces(build, origin) for origin in recipe.origins()}
    contamination = _contamination(build)
    published: list[str] = []
    for origin in recipe.origins():
        traces = traces_of[origin.name]
        verdicts = _verdicts(build, origin, traces)
        raw = _selected(build, origin, _raw(build, origin, traces, verdicts), contamination)
        variants = _variants(build, origin, raw)
        matched = _matched(build, origin, variants)
        published += variants.values()
        tokens = {
            base.name: _tokens(build, origin, base, variants, matched) for base in recipe.students.bases
        }
        for student in recipe.grid():
            if student.teacher == origin.name:
                made, rows = tokens[student.base.name]
                trained = _student(build, student, made, rows, contamination)
                published += [trained, *_evaluations(build, student.base, student, trained)]
    for base in recipe.students.bases:
        published += _evaluations(build, base)
    _release(build, published, root)
    return Plan(recipe, build.steps, models, pins, build.tasks)


def _problems(build: Builder) -> None:
    """Each set of problems, read from its source."""
    for name, source in build.recipe.problems.items():
        pin = build.pins[name]
        build.add(
            "problems",
            name,
            config=source.model_dump(mode="json"),
            models={"source": f"problems/{name}"} if pin.digest else {},
            paths={"source": pin.path} if pin.path else {},
            source_version=source.VERSION,
        )


def _contamination(build: Builder) -> str:
    """Add the check that no benchmark problem is a training problem."""
    recipe, benchmarks = build.recipe, build.recipe.benchmarks
    trained = {
        f"{TRAINING}{step}": step for step in dict.fromkeys(_asked(build, o) for o in recipe.origins())
    }
    tests = {b.problems: f"problems/{b.problems}" for b in benchmarks if b.problems}
    tasks = [b.task for b in benchmarks if b.task]
    config: dict[str, Any] = {"tasks": tasks} if tasks else {}
    if recipe.decontamination != Decontamination():
        config["decontamination"] = recipe.decontamination.model_dump(mode="json")
    models = {b.task: f"benchmarks/{b.name}" for b in benchmarks if b.task}
    return build.add("contamination", config=config, inputs=trained | tests, models=models)


def _asked(build: Builder, origin: Origin) -> str:
    """Returns the step that writes the problems of an origin's traces: the recipe's set, or the traces' own."""
    return f"traces/{origin.name}/0" if origin.brings_problems else f"problems/{build.recipe.train_on}"


def _problems_of(build: Builder, origin: Origin) -> dict[str, str]:
    return {"problems": _asked(build, origin)}


def _traces(build: Builder, origin: Origin) -> dict[str, str]:
    """Add the shards of an origin's traces."""
    pin = build.pins.get(f"traces/{origin.name}", Pin())
    models = {"source": f"traces/{origin.name}"} if pin.digest else {}
    models |= {"teacher": origin.name} if origin.generator() else {}
    return {
        f"shard-{i}": build.add(
            "traces",
            origin.name,
            i,
            function=origin.step,
            config={
                "teacher": origin.name,
                "seed": build.recipe.seed,
                "shard": [i, origin.shards],
                **origin.identity(),
            },
            inputs={} if origin.brings_problems else _problems_of(build, origin),
            models=models,
            runtime=build.engine(origin.name) if origin.generator() else {},
            paths={"source": pin.path} if pin.path else {},
        )
        for i in range(origin.shards)
    }


def _verdicts(build: Builder, origin: Origin, traces: Mapping[str, str]) -> dict[str, str]:
    """Add a judge's verdicts on each shard; empty without a judge."""
    config, models, runtime = build.judge()
    if not config:
        return {}
    return {
        f"verdicts-{i}": build.add(
            "judge",
            origin.name,
            i,
            config={"seed": build.recipe.seed, "shard": [i, origin.shards], **config},
            inputs=_problems_of(build, origin) | {"traces": traces[f"shard-{i}"]},
            models=models,
            runtime=runtime,
        )
        for i in range(origin.shards)
    }


def _raw(build: Builder, origin: Origin, traces: Mapping[str, str], verdicts: Mapping[str, str]) -> str:
    """Add the traces that are verified correct; from MANY shards on, shard by shard."""
    config = {"unverified": True} if not origin.is_verified else {}
    if origin.shards < MANY:
        inputs = {**_problems_of(build, origin), **traces, **verdicts}
        return build.add("raw", origin.name, config=config, inputs=inputs, models=build.tokenizer)
    verified = {}
    for i in range(origin.shards):
        inputs = _problems_of(build, origin) | {f"shard-{i}": traces[f"shard-{i}"]}
        if verdicts:
            inputs[f"verdicts-{i}"] = verdicts[f"verdicts-{i}"]
        shard = config | {"shard": [i, origin.shards]}
        verified[f"shard-{i}"] = build.add(
            "verify", origin.name, i, config=shard, inputs=inputs, models=build.tokenizer
        )
    return _joined(build, "raw", [origin.name], "hubkit.traces.variants.raw:join", config, verified)


def _joined(
    build: Builder, kind: str, of: list[str], function: str, config: dict[str, Any], shards: dict[str, str]
) -> str:
    """Add the step that joins the parts of a variant."""
    return build.add(kind, *of, function=function, config=config, inputs=shards, models=build.tokenizer)


def _selected(build: Builder, origin: Origin, raw: str, contamination: str) -> str:
    """Add the selection of the correct traces that all variants are made from; without one, returns `raw`."""
    recipe = build.recipe
    config: dict[str, Any] = {"teacher": origin.name}
    inputs, models = {"raw": raw}, {}
    if recipe.select:
        config["select"] = recipe.select.model_dump(mode="json")
        inputs, models = inputs | _problems_of(build, origin), build.tokenizer
    if recipe.decontamination.drops:
        config["asked"] = _asked(build, origin)
        inputs["contamination"] = contamination
    if len(config) == 1:
        return raw
    return build.add("selected", origin.name, config=config, inputs=inputs, models=models)


def _variants(build: Builder, origin: Origin, raw: str) -> dict[Variant, str]:
    """Add the traces in every form that students need: compressed, and the controls of the same length."""
    made: dict[Variant, str] = {}
    compressors = {compressor.name: compressor for compressor in build.recipe.compressors}
    for variant in build.needed_variants():
        config: dict[str, Any] = {"teacher": origin.name, "compressor": variant.compressor}
        config |= {"seed": build.recipe.seed} if variant.row.seeded else {}
        if variant.row.compressed:
            shards = _compress(build, origin, compressors[variant.compressor], raw)
            inputs, models = shards | {"raw": raw}, {}
            if compressors[variant.compressor].solution == "shorten":
                models = build.tokenizer  # to measure how near whole responses came to their length
        elif variant.row.matched:
            compressed = made[Variant("compressed", variant.compressor)]
            inputs, models = {"raw": raw, "compressed": compressed}, build.tokenizer
        else:
            made[variant] = raw
            continue
        of = variant.step(origin.name).split("/")[1:]
        if variant.row.matched and origin.shards >= MANY:
            parts = {
                f"shard-{i}": build.add(
                    "control",
                    origin.name,
                    variant.kind,
                    variant.compressor,
                    i,
                    function=variant.row.step,
                    config=config | {"shard": [i, origin.shards]},
                    inputs=inputs,
                    models=models,
                )
                for i in range(origin.shards)
            }
            join = "hubkit.traces.variants.controls:join"
            made[variant] = _joined(build, variant.kind, of, join, config, parts)
            continue
        made[variant] = build.add(variant.kind, *of, config=config, inputs=inputs, models=models)
    return made


def _compress(build: Builder, origin: Origin, compressor: Compressor, raw: str) -> dict[str, str]:
    """Add the shards of compressed traces."""
    config, models, runtime = build.judge()
    return {
        f"shard-{i}": build.add(
            "compress",
            origin.name,
            compressor.name,
            i,
            function=compressor.step,
            config={
                "compressor": compressor.name,
                "seed": build.recipe.seed,
                "shard": [i, compressor.shards],
                **({"contiguous": True} if compressor.shards >= MANY else {}),
                **compressor.identity(),
                **config,
            },
            inputs=_problems_of(build, origin) | {"raw": raw},
            models=({"compressor": compressor.name} if compressor.model_ref() else {})
            | build.tokenizer
            | models,
            runtime=(build.engine(compressor.name) if compressor.generator() else {}) | runtime,
        )
        for i in range(compressor.shards)
    }


def _matched(build: Builder, origin: Origin, variants: Mapping[Variant, str]) -> str:
    """Add the traces that all variants have, on which every student is trained."""
    inputs = {variant.name: step for variant, step in variants.items()}
    return build.add("matched", origin.name, config={"teacher": origin.name}, inputs=inputs)


Form = tuple[Variant, str, str]
"""A variant in the form that a student is trained on: with the template variable and its level, or "" and ""."""


def _tokens(
    build: Builder, origin: Origin, base: Base, variants: Mapping[Variant, str], matched: str
) -> tuple[dict[Form, str], str]:
    """Add the tokens of each variant, once for every level that a mixture gives it, and the rows whose tokens pass the
    checks in all variants; bases with the same tokenisation share them."""
    students = build.recipe.students
    config = {"teacher": origin.name, "system": students.system, **base.model_dump(include={"chat_template"})}
    first = build.tokenised.setdefault(digest([config, build.tokenizers[base.name]]), base.name)
    made = {}
    for form in _forms(build, variants):
        variant, variable, level = form
        of = (*variant.step(origin.name).split("/"), first, *([variable, level] if level else []))
        made[form] = "/".join(("tokens", *of))
        if first == base.name:
            how = config | ({"level": {"variable": variable, "value": level}} if level else {})
            inputs, function = {"data": variants[variant]}, STEPS["tokens"]
            if (shards := origin.shards // MANY) > 1:
                function = "hubkit.students.tokens:join"
                inputs = {
                    f"shard-{i}": build.add(
                        "tokenise",
                        *of,
                        i,
                        config=how | {"shard": [i, shards]},
                        inputs=inputs,
                        models={"tokenizer": first},
                    )
                    for i in range(shards)
                }
            build.add(
                "tokens", *of, function=function, config=how, inputs=inputs, models={"tokenizer": first}
            )
    rows = f"rows/{origin.name}/{first}"
    if first == base.name:
        allowed = {"teacher": origin.name, "max_dropped_share": students.max_dropped_share}
        inputs = {"matched": matched}
        inputs |= {
            f"{variant.name} at {variable} {level}" if level else variant.name: step
            for (variant, variable, level), step in made.items()
        }
        build.add("rows", origin.name, first, config=allowed, inputs=inputs)
    return made, rows


def _forms(build: Builder, variants: Mapping[Variant, str]) -> list[Form]:
    """Returns every variant without a level, except those used only in mixtures; then the parts of mixtures."""
    used = build.recipe.variants()
    by_name = {variant.name: variant for variant in variants}
    parts = [(by_name[p.variant], mixed.variable, p.level) for mixed in used for p in mixed.parts]
    alone = {variant for variant, _, _ in parts} - set(used)
    return [*((v, "", "") for v in variants if v not in alone), *dict.fromkeys(parts)]


def _student(
    build: Builder, student: Student, tokens: Mapping[Form, str], rows: str, contamination: str
) -> str:
    """Add one student, fine-tuned from its base."""
    recipe, run = build.recipe, build.recipe.run
    method = recipe.students.methods[student.method]
    config = _about(student.base, student) | method.model_dump(mode="json")
    config |= {"max_cut_share": recipe.students.max_cut_share, "system": recipe.students.system}
    mixed = student.variant
    if mixed.parts:
        by_name = {variant.name: variant for variant, _, _ in tokens}
        config["mix"] = {"variable": mixed.variable, "levels": [asdict(part) for part in mixed.parts]}
        inputs = {
            f"tokens-{p.level}": tokens[by_name[p.variant], mixed.variable, p.level] for p in mixed.parts
        }
    else:
        inputs = {"tokens": tokens[mixed, "", ""]}
    return build.add(
        "student",
        student.name,
        function=method.step,
        config=config,
        inputs=inputs | {"rows": rows, "contamination": contamination},
        models={"base": student.base.name},
        runtime={
            "layout": run.layout,
            "attention": run.attention,
            "tokens_per_device": run.tokens_per_device,
            "accelerate": run.accelerate,
            "workers": run.workers if run.executor == "local" else 1,
            "gpu_memory_gb": run.resources_of("student").gpu_memory_gb,
            "gpus": run.resources_of("student").gpus if run.executor in ("ray", "slurm") else 0,
        },
    )


def _evaluations(build: Builder, base: Base, student: Student | None = None, trained: str = "") -> list[str]:
    """Add the evaluations of a student, or an untrained base, on every benchmark; of a mixture's at every level."""
    names = []
    parts = student.variant.parts if student else ()
    levels = [part.level for part in parts] or [""]
    asked = [(benchmark, level) for benchmark in build.recipe.benchmarks for level in levels]
    for benchmark, level in asked:
        inputs = {"student": trained} if trained else {}
        if benchmark.problems:
            inputs["problems"] = f"problems/{benchmark.problems}"
        about = benchmark.model_dump(mode="json", exclude={"leaderboard"})
        if benchmark.task and (samples := benchmark.samples or build.tasks[benchmark.name].samples) > 1:
            about["samples"] = samples
        config = _about(base, student) | {"benchmark": about, "system": build.recipe.students.system}
        if student and level:
            config["level"] = {"variable": student.variant.variable, "value": level}
        names.append(
            build.add(
                "evaluation",
                student.name if student else base.name,
                benchmark.name,
                *([level] if level else []),
                config=config,
                inputs=inputs,
                models={"base": base.name}
                | ({"benchmark": f"benchmarks/{benchmark.name}"} if benchmark.task else {}),
                # The next benchmark of the same model finds it loaded if it runs in the same process.
                runtime=build.engine("students") | {"keep_engine": (benchmark, level) != asked[-1]},
            )
        )
    return names


def _about(base: Base, student: Student | None) -> dict[str, Any]:
    """Returns who is trained or evaluated; for an untrained base all values but its name are null."""
    return {
        "student": student.name if student else base.name,
        "teacher": student.teacher if student else None,
        "base": base.name,
        "variant": student.variant.name if student else None,
        "method": student.method if student else None,
        "seed": student.seed if student else None,
        **base.model_dump(include={"chat_template"}),
    }


def _release(build: Builder, published: list[str], root: Path) -> None:
    """Add the report, and the repos on the Hub."""
    config = {"recipe": build.recipe.model_dump(mode="json", exclude={"run"})}
    report = build.add("report", config=config, inputs={name: name for name in published})
    everything = {step.name: step.name for step in build.steps if step.name != report}
    build.add(
        "publish",
        config=config,
        inputs=everything | {"report": report},
        models={name: name for name in build.models},
        paths={"hub": root / "hub"},
    )
