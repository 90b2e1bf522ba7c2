"""A recipe's benchmark: what students are evaluated on."""

from __future__ import annotations

from pydantic import model_validator

from hubkit.section import Name, Sampling, Section

__all__ = ["Benchmark"]


class Benchmark(Section):
    """What students are evaluated on: the recipe's own held-out problems, or a task that lighteval knows."""

    name: Name
    problems: Name | None = None
    """A set under `problems`."""
    task: str | None = None
    """A lighteval task such as gsm8k|0."""
    sampling: Sampling

    @model_validator(mode="after")
    def _one_source(self) -> Benchmark:
        if (self.problems is None) == (self.task is None):
            raise ValueError("give either `problems` (a set of this recipe) or `task` (a lighteval task)")
        return self
