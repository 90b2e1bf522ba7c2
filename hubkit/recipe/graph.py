"""What a plan is: steps with their configuration and inputs, and the builder by which plan.py adds them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubkit.evaluation.tasks import TaskFacts
from hubkit.problems.base import Pin
from hubkit.recipe.config import Recipe
from hubkit.recipe.pins import Model
from hubkit.recipe.steps import STEPS
from hubkit.section import prompt_sha
from hubkit.traces.variants import Variant, possible_variants

__all__ = ["Builder", "Plan", "Step"]


@dataclass(frozen=True)
class Step:
    """One cached unit of work."""

    kind: str
    """A key of STEPS."""
    name: str
    """Kind and what the step is for: raw/nano-teacher."""
    function: str
    """module:function that does it."""
    config: dict[str, Any]
    """Settings that decide the output; part of the step's key."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Input name -> name of the step that makes it."""
    models: dict[str, str] = field(default_factory=dict)
    """Name that the step uses -> key of `Plan.models`."""
    runtime: dict[str, Any] = field(default_factory=dict)
    """Settings that decide only how the step runs; never part of the key."""
    paths: dict[str, Path] = field(default_factory=dict)
    source_version: int | None = None
    """Version of a problem source, which has its own; None: the module's VERSION."""

    @property
    def module(self) -> Any:
        return importlib.import_module(self.function.partition(":")[0])

    @property
    def version(self) -> int:
        return int(self.module.VERSION if self.source_version is None else self.source_version)


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    steps: list[Step]
    """Every step stands after its inputs."""
    models: dict[str, Model]
    pins: dict[str, Pin]
    """Problem set, or traces/<name> of existing traces -> where its data is."""
    tasks: dict[str, TaskFacts] = field(default_factory=dict)
    """Benchmark -> what the lighteval task that it names reads."""


class Builder:
    """The plan so far, and what its stages need from the recipe."""

    def __init__(
        self,
        recipe: Recipe,
        models: dict[str, Model],
        pins: dict[str, Pin],
        tokenizers: dict[str, str],
        tasks: dict[str, TaskFacts],
    ) -> None:
        self.recipe, self.models, self.pins, self.tasks = recipe, models, pins, tasks
        self.steps: list[Step] = []
        self.tokenizers = tokenizers
        """Base -> digest of its tokenizer."""
        self.tokenised: dict[str, str] = {}
        """Digest of the tokenisation of chats -> the first base with it."""
        self.tokenizer = {"tokenizer": recipe.students.bases[0].name}
        """All lengths are counted by the tokenizer of the first base."""

    def add(self, kind: str, *of: str | int, config: dict[str, Any], function: str = "", **parts: Any) -> str:
        """Add a step of a kind; returns its name."""
        run = self.recipe.run
        common = {"device": run.device, "precision": run.precision, "threads": run.threads_of(kind)}
        parts["runtime"] = common | parts.get("runtime", {})
        step = Step(kind, "/".join([kind, *map(str, of)]), function or STEPS[kind], config, **parts)
        self.steps.append(step)
        return step.name

    def engine(self, name: str, prefix: str = "") -> dict[str, Any]:
        """Returns the engine settings of the model of this name."""
        return {f"{prefix}engine": self.recipe.run.engine(name).model_dump(mode="json")}

    def judge(self) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
        """Config, models and runtime of the judge in the steps that ask it; empty without a judge, so that existing
        step keys stay valid."""
        judge = self.recipe.judge
        if judge is None:
            return {}, {}, {}
        config = {
            "judge": judge.name,
            "prompt_sha": prompt_sha(judge.prompt),
            **judge.model_dump(mode="json", include={"prompt", "sampling"}),
        }
        return {"judge": config}, {"judge": judge.name}, self.engine(judge.name, "judge_")

    def needed_variants(self) -> list[Variant]:
        """Returns the variants that students are trained on, and those whose lengths controls have."""
        known = possible_variants(c.name for c in self.recipe.compressors)
        used = [one for v in self.recipe.variants() for one in ([known[p.variant] for p in v.parts] or [v])]
        needed = set(used) | {Variant("compressed", v.compressor) for v in used if v.row.matched}
        return [variant for variant in known.values() if variant in needed]
