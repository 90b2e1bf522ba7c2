"""A recipe's benchmark: what students are evaluated on."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

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
    samples: int = Field(default=0, ge=0, le=1024)
    """Answers to each problem. Of several, accuracy is the mean over all, with pass@k and maj@k beside it.
    0: as many as the lighteval task takes, and one for a set of problems."""
    leaderboard: str = ""
    """Of a task: the benchmark dataset whose board its results go to, as org/name#task. Empty: the dataset that
    the task reads, if it has an eval.yaml."""

    @model_serializer(mode="wrap")
    def _without_absent_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A benchmark without these keys is written, and so identified, as it was before there were any."""
        written: dict[str, Any] = dump(self)
        for name in ("leaderboard", "samples"):
            if not written.get(name):
                written.pop(name, None)
        return written

    @model_validator(mode="after")
    def _one_source(self) -> Benchmark:
        if (self.problems is None) == (self.task is None):
            raise ValueError("give either `problems` (a set of this recipe) or `task` (a lighteval task)")
        if self.samples > 1 and self.sampling.temperature == 0:
            raise ValueError(
                f"{self.samples} greedy answers to a problem are one and the same: give `sampling` a temperature"
            )
        if self.leaderboard and not self.task:
            raise ValueError(
                "`leaderboard` is for a `task`: problems of this recipe have a board of their own"
            )
        if self.leaderboard and not re.fullmatch(r"[\w.-]+/[\w.-]+#[^#]+", self.leaderboard):
            raise ValueError(f"{self.leaderboard!r} is not a leaderboard: write org/name#task")
        return self
